//! A set of tokens that may come next.

/// One bit for each token id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Box<[u32]>,
}

impl TokenMask {
    /// Bit `i` of word `w` is token `32 w + i`; ids beyond the last word are not in the set.
    pub fn new(words: &[u32]) -> Self {
        Self { words: words.into() }
    }

    pub fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Makes all other tokens of `[vocab]` logits impossible.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        let none = [0];
        let words = self.words.iter().chain(none.iter().cycle());
        for (word, logits) in words.zip(logits.chunks_mut(32)) {
            if *word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_set_stays_possible() {
        let mask = TokenMask::new(&[u32::MAX, 0b101]);
        let mut logits = vec![1.0; 70];
        mask.apply(&mut logits);
        for (id, logit) in logits.into_iter().enumerate() {
            let expected = id < 33 || id == 34;
            assert_eq!((logit == 1.0, mask.allows(id as u32)), (expected, expected), "{id}");
        }
    }
}
