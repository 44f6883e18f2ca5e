//! Searches in a row of logits over a large vocabulary. One row each: rows of a batch are spread over threads elsewhere.

use std::cmp::Ordering;

use crate::LANES;
use crate::isa::Isa;
use crate::vectorized::vectorized;

/// Values that are searched again for the place of their largest one.
const ARGMAX_BLOCK: usize = 2048;
/// Values of which only the largest is looked at, unless it is among the `k` largest.
const TOP_BLOCK: usize = 128;

/// Whether no value is NaN or infinite.
pub fn all_finite(row: &[f32]) -> bool {
    scan(Isa::best(), row).finite
}

/// Index of the largest value, the first among equals (−0 equals 0); `None` if there is none or one is NaN or infinite.
pub fn argmax(row: &[f32]) -> Option<usize> {
    argmax_with(Isa::best(), row)
}

/// Indices of the `k` largest values, the largest first and the lower index first among equals (−0 equals 0); all of them
/// if there are fewer. Values are numbers: with a NaN among them the choice is not specified.
pub fn top_k(row: &[f32], k: usize) -> Vec<u32> {
    top_k_with(Isa::best(), row, k)
}

fn argmax_with(isa: Isa, row: &[f32]) -> Option<usize> {
    let (mut best, mut block) = (f32::NEG_INFINITY, 0);
    for (i, values) in row.chunks(ARGMAX_BLOCK).enumerate() {
        let Scan { max, finite } = scan(isa, values);
        if !finite {
            return None;
        }
        if max > best {
            (best, block) = (max, i);
        }
    }
    let first = block * ARGMAX_BLOCK;
    row[first.min(row.len())..].iter().position(|value| *value == best).map(|at| first + at)
}

fn top_k_with(isa: Isa, row: &[f32], k: usize) -> Vec<u32> {
    // Adding zero makes −0 equal to 0.
    let descending = |a: f32, b: f32| (b + 0.0).total_cmp(&(a + 0.0));
    let order = |a: &u32, b: &u32| -> Ordering { descending(row[*a as usize], row[*b as usize]).then(a.cmp(b)) };
    let blocks = row.len().div_ceil(TOP_BLOCK);
    let mut ids: Vec<u32> = if k == 0 {
        Vec::new()
    } else if k <= blocks / 4 {
        // The k largest blocks hold k values that reach the k-th largest maximum: less cannot be among the k largest.
        let maxima: Vec<f32> = row.chunks(TOP_BLOCK).map(|values| scan(isa, values).max).collect();
        let mut sorted = maxima.clone();
        let threshold = *sorted.select_nth_unstable_by(k - 1, |a, b| descending(*a, *b)).1;
        let reached = maxima.iter().enumerate().filter(|(_, max)| **max >= threshold);
        reached
            .flat_map(|(i, _)| (i * TOP_BLOCK..row.len().min((i + 1) * TOP_BLOCK)).filter(|id| row[*id] >= threshold))
            .map(|id| id as u32)
            .collect()
    } else {
        (0..row.len() as u32).collect()
    };
    if k < ids.len() {
        ids.select_nth_unstable_by(k, order);
        ids.truncate(k);
    }
    ids.sort_unstable_by(order);
    ids
}

/// The largest value, and whether all are finite. Without one: negative infinity.
struct Scan {
    max: f32,
    finite: bool,
}

vectorized! {
    fn scan(row: &[f32]) -> Scan {
        const EXPONENT: u32 = 0x7f80_0000;
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut magnitudes = [0u32; LANES];
        let (groups, rest) = row.as_chunks::<LANES>();
        for group in groups {
            for i in 0..LANES {
                maxima[i] = if group[i] > maxima[i] { group[i] } else { maxima[i] };
                magnitudes[i] = magnitudes[i].max(group[i].to_bits() & !(1 << 31));
            }
        }
        for (i, value) in rest.iter().enumerate() {
            maxima[i] = if *value > maxima[i] { *value } else { maxima[i] };
            magnitudes[i] = magnitudes[i].max(value.to_bits() & !(1 << 31));
        }
        let max = maxima.into_iter().fold(f32::NEG_INFINITY, |max, value| if value > max { value } else { max });
        Scan { max, finite: magnitudes.into_iter().all(|magnitude| magnitude < EXPONENT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::values;

    /// Few distinct values, zeros of both signs among them, so that there are equals.
    fn row(width: usize, seed: u64) -> Vec<f32> {
        values(width, seed).iter().map(|v| (v * 50.0).round() / 10.0).collect()
    }

    #[test]
    fn the_largest_come_first_and_the_lower_index_among_equals() {
        for isa in Isa::available() {
            for width in [1, 2, 15, 16, 17, 100, 1000, 5000, 40_000, 151_936] {
                for row in [row(width, 3), values(width, 4), vec![-3.0; width]] {
                    let mut want: Vec<u32> = (0..width as u32).collect();
                    want.sort_by(|a, b| row[*b as usize].partial_cmp(&row[*a as usize]).unwrap());
                    assert_eq!(argmax_with(isa, &row), Some(want[0] as usize));
                    for k in [0, 1, 2, 20, 60, 300, width, width + 1] {
                        assert_eq!(top_k_with(isa, &row, k), want[..k.min(width)], "{k} of {width}");
                    }
                }
            }
        }
        assert_eq!(argmax(&[-0.0, 0.0]), Some(0));
        assert_eq!(top_k(&[-0.0, 1.0, 0.0], 3), [1, 0, 2]);
        assert_eq!((argmax(&[]), all_finite(&[]), top_k(&[], 3)), (None, true, vec![]));
    }

    #[test]
    fn a_value_that_is_no_number_is_seen_wherever_it_is() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 16, 4999, 5000, 5002] {
                let mut row = values(5003, 1);
                assert!(all_finite(&row));
                row[at] = bad;
                for isa in Isa::available() {
                    assert_eq!(argmax_with(isa, &row), None);
                    assert!(!scan(isa, &row).finite);
                }
            }
        }
    }
}
