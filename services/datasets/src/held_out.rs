//! What the held-out file asks, to find it again in the rows that are trained: the same question word by word, or most of
//! its runs of words (containment). Runs that many held-out questions share are wording and say nothing.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

/// Words of a run. Chinese, Japanese and Korean characters are words.
const RUN: usize = 8;

/// A question with fewer runs that are its own is found only word by word.
const RUNS_MIN: usize = 4;

/// Share of a question's runs, in hundredths, that another text must have.
const CONTAINED_PERCENT: usize = 80;

/// A run that more questions share is wording.
const SHARED_MAX: usize = 8;

/// The questions of the held-out file.
#[derive(Default)]
pub(crate) struct HeldOut {
    questions: HashMap<u128, u64>,
    /// Which questions have a run, by their place in `lines`.
    runs: HashMap<u64, Vec<u32>>,
    lines: Vec<u64>,
    /// For each question: how many of its runs say something. Filled when all are read.
    telling: Vec<u32>,
    runs_max: usize,
    /// Questions whose runs found no place.
    pub(crate) not_compared: u64,
}

/// Why a row is taken to be in the held-out file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// Line in the held-out file.
    pub line: u64,
    /// Of a hundred runs; 100 for the same question.
    pub percent: usize,
}

impl HeldOut {
    pub(crate) fn new(runs_max: usize) -> Self {
        HeldOut { runs_max, ..HeldOut::default() }
    }

    /// `question` is the hash that [`key`] gives, `runs` those that [`runs`] gives.
    pub(crate) fn add(&mut self, line: u64, question: u128, runs: &[u64]) {
        self.questions.entry(question).or_insert(line);
        if self.runs.len() + runs.len() > self.runs_max {
            self.not_compared += 1;
            return;
        }
        let place = self.lines.len() as u32;
        self.lines.push(line);
        for run in runs {
            let places = self.runs.entry(*run).or_default();
            if places.len() <= SHARED_MAX {
                places.push(place);
            }
        }
    }

    /// After the last question.
    pub(crate) fn complete(&mut self) {
        self.runs.retain(|_, places| places.len() <= SHARED_MAX);
        self.telling = vec![0; self.lines.len()];
        for place in self.runs.values().flatten() {
            self.telling[*place as usize] += 1;
        }
    }

    pub(crate) fn find(&self, question: u128, runs: &[u64]) -> Option<Leak> {
        if let Some(line) = self.questions.get(&question) {
            return Some(Leak { line: *line, percent: 100 });
        }
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for place in runs.iter().filter_map(|run| self.runs.get(run)).flatten() {
            *counts.entry(*place).or_default() += 1;
        }
        let percent = |(place, count): (u32, usize)| {
            let all = self.telling[place as usize] as usize;
            (all >= RUNS_MIN).then(|| Leak { line: self.lines[place as usize], percent: count * 100 / all })
        };
        let found = counts.into_iter().filter_map(percent).filter(|leak| leak.percent >= CONTAINED_PERCENT);
        found.max_by_key(|leak| (leak.percent, std::cmp::Reverse(leak.line)))
    }
}

/// Names a normalised text by its content.
pub(crate) fn key(text: &str) -> u128 {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(16).fold(0, |key, byte| (key << 8) | u128::from(*byte))
}

/// The runs of a normalised text, each once.
pub(crate) fn runs(text: &str) -> Vec<u64> {
    let words: Vec<u64> = words(text).map(hash).collect();
    let distinct: HashSet<u64> =
        words.windows(RUN).map(|run| run.iter().fold(0, |all, word| combined(all, *word))).collect();
    let mut runs: Vec<_> = distinct.into_iter().collect();
    runs.sort_unstable();
    runs
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).flat_map(|word| {
        let alone = word.chars().any(is_ideograph);
        let ends = word.char_indices().map(move |(at, c)| (at, at + c.len_utf8()));
        let characters = alone.then_some(ends).into_iter().flatten().map(move |(start, end)| &word[start..end]);
        characters.chain((!alone).then_some(word))
    })
}

/// CJK ideographs, kana and Hangul.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

fn hash(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn combined(all: u64, word: u64) -> u64 {
    (all.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str =
        "a customer in the north asks why the second invoice of march shows a late fee although it was paid";

    fn held_out(questions: &[&str]) -> HeldOut {
        let mut held_out = HeldOut::new(1000);
        for (at, question) in questions.iter().enumerate() {
            held_out.add(at as u64 + 1, key(question), &runs(question));
        }
        held_out.complete();
        held_out
    }

    fn found(held_out: &HeldOut, text: &str) -> Option<Leak> {
        held_out.find(key(text), &runs(text))
    }

    #[test]
    fn the_question_itself_and_a_text_that_contains_it_are_found() {
        let held_out = held_out(&["what is e-17?", QUESTION]);
        assert_eq!(found(&held_out, "what is e-17?"), Some(Leak { line: 1, percent: 100 }));
        assert_eq!(found(&held_out, &format!("good morning, {QUESTION}. thank you")).map(|leak| leak.line), Some(2));
        assert_eq!(found(&held_out, "what is e-18?"), None);
        assert_eq!(found(&held_out, &QUESTION.replace("second", "third").replace("late fee", "discount")), None);
    }

    #[test]
    fn wording_that_many_questions_share_is_no_leak() {
        let wording = "please answer in one short sentence and in a polite tone of voice";
        let names = ["ada", "bob", "cleo", "dan", "eve", "finn", "gil", "hal", "ida", "jan"];
        let questions: Vec<_> = names.iter().map(|name| format!("{wording} who is {name}")).collect();
        let questions: Vec<_> = questions.iter().map(String::as_str).collect();
        assert_eq!(found(&held_out(&questions), &format!("{wording} who is zoe")), None);
    }

    #[test]
    fn chinese_characters_are_words() {
        let question = "请用一句话解释合同里的第十七条是什么意思谢谢";
        assert_eq!(found(&held_out(&[question]), &format!("你好，{question}！")).map(|leak| leak.line), Some(1));
    }

    #[test]
    fn questions_beyond_the_bound_are_counted_and_still_found_word_by_word() {
        let mut held_out = HeldOut::new(3);
        held_out.add(9, key(QUESTION), &runs(QUESTION));
        held_out.complete();
        assert_eq!(held_out.not_compared, 1);
        assert_eq!(found(&held_out, QUESTION), Some(Leak { line: 9, percent: 100 }));
    }
}
