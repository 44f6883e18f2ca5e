//! Rotary position embedding in the half-split form of Llama-like checkpoints. Which frequencies a model uses is not
//! decided here.

/// Cosines and sines of some positions.
pub struct RotaryTable {
    half: usize,
    /// `[position][half]` pairs.
    turns: Vec<(f32, f32)>,
}

impl RotaryTable {
    /// One entry for each of `positions`: angle `position · frequencies[i]`, both factors times `factor`.
    ///
    /// The angle is an f32 product, as the reference library has it; its sine is that of the exact f32 angle.
    pub fn new(frequencies: &[f32], factor: f32, positions: impl Iterator<Item = usize>) -> Self {
        let mut table = RotaryTable { half: frequencies.len(), turns: Vec::new() };
        table.extend(frequencies, factor, positions);
        table
    }

    /// Appends positions that may turn by other frequencies.
    pub fn extend(&mut self, frequencies: &[f32], factor: f32, positions: impl Iterator<Item = usize>) {
        assert_eq!(frequencies.len(), self.half, "frequencies of one table");
        for position in positions {
            self.turns.extend(frequencies.iter().map(|frequency| {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                (cos as f32 * factor, sin as f32 * factor)
            }));
        }
    }
}

/// Turns each head of each row of `x` `[rows, heads, head_dim]`; row `r` by entry `r` of the table.
pub fn rotate(x: &mut [f32], heads: usize, table: &RotaryTable) {
    let dim = 2 * table.half;
    assert_eq!(x.len(), table.turns.len() / table.half * heads * dim, "one entry of the table for each row");
    for (row, turns) in x.chunks_exact_mut(heads * dim).zip(table.turns.chunks_exact(table.half)) {
        for head in row.chunks_exact_mut(dim) {
            let (first, second) = head.split_at_mut(table.half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, values};

    /// Tolerance 3e-7: two products and a sum of values below one.
    #[test]
    fn it_turns_pairs_of_the_two_halves() {
        let frequencies = [1.0, 0.1, 0.01];
        let x = values(2 * 2 * 6, 1);
        let positions = [3usize, 1000];
        let mut want = Vec::new();
        for (row, position) in x.chunks(12).zip(positions) {
            for head in row.chunks(6) {
                let turn = |i: usize| {
                    let (sin, cos) = f64::from(position as f32 * frequencies[i % 3]).sin_cos();
                    let (a, b) = (f64::from(head[i]), f64::from(head[(i + 3) % 6]));
                    0.5 * (a * cos + if i < 3 { -b } else { b } * sin)
                };
                want.extend((0..6).map(turn));
            }
        }
        let mut got = x.clone();
        rotate(&mut got, 2, &RotaryTable::new(&frequencies, 0.5, positions.into_iter()));
        assert_close(&got, &want, 3e-7);
    }
}
