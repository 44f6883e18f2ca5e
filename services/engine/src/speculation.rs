//! Drafts by prompt look-up: what followed the last time that the text's latest tokens appeared is guessed to follow again
//! (Saxena, "Prompt lookup decoding", 2023; `prompt_lookup_num_tokens` of transformers). The draft comes from the
//! sequence alone; it knows no other sequence, no model and no text. Whether a guess was right, the sampler says: a drafted
//! token is kept exactly if it is the one that would have been chosen without it, so answers are the same with and without.

use crate::config::EngineConfig;

/// When to draft, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speculation {
    pub tokens_max: usize,
    pub ngram_min: usize,
    pub ngram_max: usize,
    /// Rows of a step up to which drafts are added to it.
    pub rows_max: usize,
    /// Longest pause of a sequence whose drafts are rejected, in steps.
    pub pause_max: usize,
}

/// The guesses of one sequence for the step that is being made, and how earlier ones fared.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    tokens: Vec<u32>,
    /// Steps without a draft that are still to come.
    pause: usize,
    /// Drafts in a row of which nothing was accepted.
    misses: u32,
}

impl Speculation {
    pub fn of(config: &EngineConfig) -> Self {
        Self {
            tokens_max: config.speculative_tokens_max,
            ngram_min: config.speculative_ngram_min,
            ngram_max: config.speculative_ngram_max,
            rows_max: config.speculative_rows_max,
            pause_max: config.speculative_pause_max,
        }
    }

    /// No drafts at all.
    #[cfg(test)]
    pub fn off() -> Self {
        Self { tokens_max: 0, ngram_min: 1, ngram_max: 1, rows_max: 0, pause_max: 0 }
    }

    /// Up to `most` tokens that may follow `tokens`: those behind the longest, then latest, earlier appearance of its last
    /// `ngram_min..=ngram_max` tokens. Where they reach the end they go on from the beginning, as a text that repeats.
    pub fn look_up(&self, tokens: &[u32], most: usize) -> Vec<u32> {
        let most = most.min(self.tokens_max);
        let Some((last, before)) = tokens.split_last().filter(|_| most > 0) else { return Vec::new() };
        let (mut longest, mut found) = (0, None);
        for end in (0..before.len()).rev().filter(|at| before[*at] == *last) {
            let shared = before[..end].iter().rev().zip(before.iter().rev());
            let length = 1 + shared.take(self.ngram_max - 1).take_while(|(a, b)| a == b).count();
            if length > longest {
                (longest, found) = (length, Some(end + 1));
            }
            if longest == self.ngram_max {
                break;
            }
        }
        match found.filter(|_| longest >= self.ngram_min) {
            Some(from) => tokens[from..].iter().cycle().take(most).copied().collect(),
            None => Vec::new(),
        }
    }
}

impl Draft {
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn clear(&mut self) {
        self.tokens.clear();
    }

    /// True if a draft should be tried in this step; counts the pause down.
    pub fn is_due(&mut self) -> bool {
        let due = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        due
    }

    pub fn set(&mut self, tokens: Vec<u32>) {
        self.tokens = tokens;
    }

    /// The step is over and `accepted` of the draft were right. Each draft for nothing doubles the pause.
    pub fn judge(&mut self, accepted: usize, pause_max: usize) {
        if self.tokens.is_empty() {
            return;
        }
        self.tokens.clear();
        self.misses = if accepted > 0 { 0 } else { self.misses.saturating_add(1) };
        self.pause = (1usize << self.misses.min(30)).saturating_sub(1).min(pause_max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn speculation(tokens_max: usize, ngram_min: usize, ngram_max: usize) -> Speculation {
        Speculation { tokens_max, ngram_min, ngram_max, rows_max: 16, pause_max: 8 }
    }

    #[test]
    fn the_longest_then_the_latest_appearance_is_continued() {
        let two_to_three = speculation(3, 2, 3);
        // `2 3` appears twice before the end, `1 2 3` once, and earlier.
        assert_eq!(two_to_three.look_up(&[1, 2, 3, 7, 8, 9, 2, 3, 5, 5, 1, 2, 3], 9), [7, 8, 9]);
        assert_eq!(two_to_three.look_up(&[4, 2, 3, 7, 8, 9, 2, 3, 5, 6, 1, 2, 3], 9), [5, 6, 1]);
        // One token is too little.
        assert!(two_to_three.look_up(&[3, 4, 5, 3], 9).is_empty());
        assert_eq!(speculation(3, 1, 3).look_up(&[3, 4, 5, 3], 9), [4, 5, 3]);
        assert!(two_to_three.look_up(&[], 9).is_empty());
        assert!(two_to_three.look_up(&[1, 2, 1, 2], 0).is_empty());
    }

    #[test]
    fn a_text_that_repeats_is_drafted_beyond_its_end() {
        assert_eq!(speculation(7, 2, 3).look_up(&[9, 1, 2, 1, 2, 1], 9), [2, 1, 2, 1, 2, 1, 2]);
        assert_eq!(speculation(4, 2, 3).look_up(&[5, 5, 5], 9), [5, 5, 5, 5]);
        assert_eq!(speculation(4, 2, 3).look_up(&[5, 5, 5], 2), [5, 5]);
    }

    #[test]
    fn drafts_for_nothing_make_pauses_that_double_and_one_hit_ends_them() {
        let mut draft = Draft::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let mut pause = 0;
            while !draft.is_due() {
                pause += 1;
            }
            pauses.push(pause);
            draft.set(vec![1]);
            draft.judge(0, 8);
        }
        assert_eq!(pauses, [0, 1, 3, 7, 8, 8]);
        while !draft.is_due() {}
        draft.set(vec![1]);
        draft.judge(1, 8);
        assert!(draft.is_due());
        // A step without a draft says nothing.
        draft.judge(0, 8);
        assert!(draft.is_due());
    }

    proptest! {
        /// Against the definition, straight.
        #[test]
        fn a_draft_is_what_followed_the_best_match(
            tokens in prop::collection::vec(0u32..3, 0..40), most in 0usize..6, (min, max) in (1usize..4, 0usize..3),
        ) {
            let max = min + max;
            let drafted = speculation(5, min, max).look_up(&tokens, most);
            let expected = (min..=max).rev().filter(|n| *n < tokens.len()).find_map(|n| {
                let (text, pattern) = (&tokens[..tokens.len() - 1], &tokens[tokens.len() - n..]);
                let at = text.windows(n).rposition(|window| window == pattern)?;
                Some(tokens[at + n..].iter().cycle().take(most.min(5)).copied().collect::<Vec<_>>())
            });
            prop_assert_eq!(drafted, expected.unwrap_or_default());
        }
    }
}
