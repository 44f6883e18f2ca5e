//! Which tokens are learned: one bit for each.

/// Bits, one for each token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossMask {
    words: Vec<u64>,
    len: usize,
}

impl LossMask {
    /// `len` tokens, none of which is learned.
    pub fn none(len: usize) -> Self {
        LossMask { words: vec![0; len.div_ceil(64)], len }
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the token at `at` is learned; none is beyond the end.
    pub fn get(&self, at: usize) -> bool {
        at < self.len && self.words[at / 64] >> (at % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, at: usize) {
        if at < self.len {
            self.words[at / 64] |= 1 << (at % 64);
        }
    }

    /// Tokens that are learned.
    pub fn trained(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_a_word_are_counted_and_bits_beyond_the_end_are_not() {
        let mut mask = LossMask::none(70);
        for at in [0, 63, 64, 69, 70, 1000] {
            mask.set(at);
        }
        assert_eq!((mask.trained(), mask.len()), (4, 70));
        assert!(mask.get(64) && !mask.get(65) && !mask.get(70));
        assert_eq!(mask.iter().filter(|bit| *bit).count(), 4);
    }
}
