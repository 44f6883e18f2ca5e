//! Rows that are nearly the same: MinHash over runs of bytes, looked up by bands (locality-sensitive hashing). Texts with
//! other numbers in them are never nearly the same, for a code or an amount is what such rows are about.
//!
//! Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman, "Mining of Massive
//! Datasets", §3.3–3.4. With 12 bands of 5, of pairs whose resemblance is 0.8 all but about 1 % become candidates, of those
//! with 0.9 all but one in ten thousand; the 64 hashes then estimate it to within about 0.05.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::row::{Side, normalised};

const HASHES: usize = 64;
const BANDS: usize = 12;
const BAND_HASHES: usize = 5;

/// Bytes of a run: nine letters, or three Chinese characters.
const RUN: usize = 9;

/// Of 64 hashes, how many must be equal: an estimated resemblance of 0.8.
const EQUAL_MIN: usize = 52;

/// What of a text is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sketch {
    hashes: [u16; HASHES],
    bands: [u64; BANDS],
    numbers: u64,
}

/// The sketch of a row's texts.
pub(crate) fn sketch(texts: &[&str]) -> Sketch {
    let text = normalised(&texts.join("\n"));
    let mut least = [u32::MAX; HASHES];
    for run in text.as_bytes().windows(RUN.min(text.len().max(1))) {
        let hash = run
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let hash = mixed(hash);
        for (at, least) in least.iter_mut().enumerate() {
            // Multiply-shift: the upper half is as good as random.
            let value = (hash.wrapping_mul(odd(at)) >> 32) as u32;
            *least = (*least).min(value);
        }
    }
    let digits = text.bytes().filter(u8::is_ascii_digit);
    let numbers = digits.fold(0, |hash, digit| mixed(hash ^ u64::from(digit)));
    // With the numbers in it, or the first row of a band would hide those with other numbers.
    let band = |at: usize| {
        let part = &least[at * BAND_HASHES..(at + 1) * BAND_HASHES];
        part.iter().fold(numbers, |hash, value| mixed(hash ^ u64::from(*value)))
    };
    Sketch { hashes: least.map(|value| value as u16), bands: std::array::from_fn(band), numbers }
}

/// The rows that later ones are compared with: the first `rows_max`.
pub(crate) struct Compared {
    rows: Vec<Known>,
    bands: [HashMap<u64, u32, BuildHasherDefault<AsItIs>>; BANDS],
    rows_max: usize,
}

struct Known {
    line: u64,
    side: Side,
    numbers: u64,
    hashes: [u16; HASHES],
}

impl Compared {
    pub(crate) fn new(rows_max: usize) -> Self {
        Compared { rows: Vec::new(), bands: Default::default(), rows_max }
    }

    /// Whether later rows are no longer kept.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= self.rows_max
    }

    /// Line and side of an earlier row that is nearly the same.
    pub(crate) fn like(&self, sketch: &Sketch) -> Option<(u64, Side)> {
        let candidates = self.bands.iter().zip(&sketch.bands).filter_map(|(rows, band)| rows.get(band));
        let known = candidates.filter_map(|row| self.rows.get(*row as usize));
        let is_like = |known: &&Known| {
            let equal = known.hashes.iter().zip(&sketch.hashes).filter(|(a, b)| a == b).count();
            known.numbers == sketch.numbers && equal >= EQUAL_MIN
        };
        known.filter(is_like).map(|known| (known.line, known.side)).min_by_key(|(line, _)| *line)
    }

    /// Keeps the first row of each band: rows that are all alike are all like the first.
    pub(crate) fn add(&mut self, line: u64, side: Side, sketch: &Sketch) {
        if self.is_full() {
            return;
        }
        let row = self.rows.len() as u32;
        self.rows.push(Known { line, side, numbers: sketch.numbers, hashes: sketch.hashes });
        for (rows, band) in self.bands.iter_mut().zip(&sketch.bands) {
            rows.entry(*band).or_insert(row);
        }
    }
}

fn odd(at: usize) -> u64 {
    mixed(at as u64 + 0x9e37) | 1
}

/// The finaliser of SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Keys that are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = mixed(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "The pump at the second line stops when the pressure falls below the limit, and nobody is warned \
                        before it does; please tell me what the operator has to do, and whom to call at night.";

    fn compared(text: &str) -> Compared {
        let mut compared = Compared::new(10);
        compared.add(7, Side::Train, &sketch(&[text]));
        compared
    }

    #[test]
    fn one_other_word_in_a_long_text_is_nearly_the_same() {
        let compared = compared(LONG);
        assert_eq!(compared.like(&sketch(&[&LONG.replace("please", "kindly")])), Some((7, Side::Train)));
        assert_eq!(compared.like(&sketch(&[&LONG.to_uppercase().replace(' ', "  ")])), Some((7, Side::Train)));
    }

    #[test]
    fn another_text_or_another_number_is_not() {
        let numbered = format!("{LONG} Code 17.");
        assert_eq!(compared(LONG).like(&sketch(&["What is the invoice batch, and who signs it in the end?"])), None);
        assert_eq!(compared(&numbered).like(&sketch(&[&numbered.replace("17", "18")])), None);
        assert!(compared(&numbered).like(&sketch(&[&numbered])).is_some());
    }

    #[test]
    fn texts_shorter_than_a_run_are_compared_as_a_whole() {
        assert!(compared("ok").like(&sketch(&["OK"])).is_some());
        assert_eq!(compared("ok").like(&sketch(&["no"])), None);
        assert_eq!(sketch(&[""]), sketch(&[" "]));
    }

    #[test]
    fn no_more_rows_are_kept_than_may_be() {
        let mut compared = Compared::new(1);
        compared.add(1, Side::Train, &sketch(&["one text of the first row"]));
        compared.add(2, Side::Train, &sketch(&["something else altogether"]));
        assert!(compared.is_full() && compared.like(&sketch(&["something else altogether"])).is_none());
    }
}
