//! Two answers to the same request, held against each other.

use std::collections::HashMap;

use store::ShadowTally;

use super::Answered;

/// Hundredths of a percent.
const WHOLE: u64 = 10_000;

pub fn compare(answer: &Answered, shadow: &Answered) -> ShadowTally {
    let in_front = answer.tokens.iter().zip(&shadow.tokens).take_while(|(one, other)| one == other).count();
    let equal = answer.tokens == shadow.tokens;
    ShadowTally {
        compared: 1,
        equal: u64::from(equal),
        equal_tokens: if equal { 0 } else { in_front as u64 },
        similarity: similarity(&answer.text, &shadow.text),
        answer_ms: answer.ms,
        completion_tokens: shadow.tokens.len() as u64,
        ..ShadowTally::default()
    }
}

/// Sørensen–Dice coefficient of the texts' pairs of neighbouring characters: twice those that they share, over all.
fn similarity(one: &str, other: &str) -> u64 {
    if one == other {
        return WHOLE;
    }
    let mut left: HashMap<(char, char), u64> = HashMap::new();
    let (mut all, mut shared) = (0, 0);
    for pair in pairs(one) {
        *left.entry(pair).or_default() += 1;
        all += 1;
    }
    for pair in pairs(other) {
        all += 1;
        if let Some(count) = left.get_mut(&pair).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    (2 * shared * WHOLE).checked_div(all).unwrap_or_default()
}

fn pairs(text: &str) -> impl Iterator<Item = (char, char)> {
    text.chars().zip(text.chars().skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(tokens: &[u32], text: &str) -> Answered {
        Answered { tokens: tokens.to_vec(), text: text.to_owned(), ms: 7 }
    }

    #[test]
    fn equal_answers_are_equal_and_others_differ_from_somewhere_on() {
        let real = answered(&[1, 2, 3], "abc");
        let same = compare(&real, &answered(&[1, 2, 3], "abc"));
        assert_eq!((same.compared, same.equal, same.equal_tokens, same.similarity), (1, 1, 0, 10_000));
        let other = compare(&real, &answered(&[1, 2, 4, 5], "abde"));
        assert_eq!((other.compared, other.equal, other.equal_tokens), (1, 0, 2));
        assert_eq!((other.answer_ms, other.completion_tokens), (7, 4));
        let shorter = compare(&real, &answered(&[1, 2], "ab"));
        assert_eq!((shorter.equal, shorter.equal_tokens), (0, 2));
    }

    #[test]
    fn texts_are_as_similar_as_the_pairs_that_they_share() {
        assert_eq!(similarity("night", "nacht"), 2_500);
        assert_eq!(similarity("abc", "abc"), 10_000);
        assert_eq!(similarity("abc", "xyz"), 0);
        assert_eq!(similarity("", "abc"), 0);
        assert_eq!(similarity("a", "b"), 0);
        assert_eq!(similarity("aaaa", "aa"), 5_000);
    }
}
