//! Rotary position embedding in the half-split form of Llama-like checkpoints. Which frequencies a model uses is not
//! decided here.

use crate::cpu::Cpu;
use crate::vectorized::vectorized;

/// Sines and cosines of one task; each takes as long as dozens of other operations.
const TASK_TURNS: usize = 128;
/// Elements of one task that turns them.
const TASK_ELEMENTS: usize = 8192;

/// Cosines and sines of some positions.
pub struct RotaryTable {
    half: usize,
    /// `[position][2][half]`: cosines, then sines.
    turns: Vec<f32>,
}

impl RotaryTable {
    /// One entry for each of `positions`: angle `position · frequencies[i]`, both factors times `factor`.
    ///
    /// The angle is an f32 product, as the reference library has it; its sine is that of the exact f32 angle.
    pub fn new(cpu: &Cpu, frequencies: &[f32], factor: f32, positions: impl Iterator<Item = usize>) -> Self {
        let mut table = RotaryTable { half: frequencies.len(), turns: Vec::new() };
        table.extend(cpu, frequencies, factor, positions);
        table
    }

    /// Appends positions that may turn by other frequencies.
    pub fn extend(&mut self, cpu: &Cpu, frequencies: &[f32], factor: f32, positions: impl Iterator<Item = usize>) {
        assert_eq!(frequencies.len(), self.half, "frequencies of one table");
        let positions: Vec<usize> = positions.collect();
        let (first, width) = (self.turns.len(), 2 * self.half);
        self.turns.resize(first + positions.len() * width, 0.0);
        let rows = (TASK_TURNS / self.half).max(1);
        cpu.each_chunk(&mut self.turns[first..], rows * width, |i, turns| {
            for (turns, position) in turns.chunks_exact_mut(width).zip(&positions[i * rows..]) {
                let (cosines, sines) = turns.split_at_mut(width / 2);
                for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
                    let (sin, cos) = f64::from(*position as f32 * frequency).sin_cos();
                    (*cosine, *sine) = (cos as f32 * factor, sin as f32 * factor);
                }
            }
        });
    }

    /// Entries, one for each row.
    pub fn len(&self) -> usize {
        self.turns.len() / (2 * self.half)
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

/// Turns each head of each row of `x` `[rows, heads, head_dim]`; row `r` by entry `r` of the table.
pub fn rotate(cpu: &Cpu, x: &mut [f32], heads: usize, table: &RotaryTable) {
    let dim = 2 * table.half;
    assert_eq!(x.len(), table.len() * heads * dim, "one entry of the table for each row");
    let rows = (TASK_ELEMENTS / (heads * dim)).max(1);
    cpu.each_chunk(x, rows * heads * dim, |i, x| {
        turn_rows(cpu.isa(), x, heads * dim, &table.turns[i * rows * dim..], dim)
    });
}

/// The transposed map of [`rotate`]: what a gradient of the turned rows is to the rows before.
pub fn rotate_backward(cpu: &Cpu, x: &mut [f32], heads: usize, table: &RotaryTable) {
    let dim = 2 * table.half;
    assert_eq!(x.len(), table.len() * heads * dim, "one entry of the table for each row");
    let rows = (TASK_ELEMENTS / (heads * dim)).max(1);
    cpu.each_chunk(x, rows * heads * dim, |i, x| {
        turn_rows_back(cpu.isa(), x, heads * dim, &table.turns[i * rows * dim..], dim)
    });
}

vectorized! {
    fn turn_rows_back(x: &mut [f32], width: usize, turns: &[f32], dim: usize) {
        for (row, turns) in x.chunks_exact_mut(width).zip(turns.chunks_exact(dim)) {
            let (cosines, sines) = turns.split_at(dim / 2);
            for head in row.chunks_exact_mut(dim) {
                let (first, second) = head.split_at_mut(dim / 2);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
                }
            }
        }
    }
}

vectorized! {
    fn turn_rows(x: &mut [f32], width: usize, turns: &[f32], dim: usize) {
        for (row, turns) in x.chunks_exact_mut(width).zip(turns.chunks_exact(dim)) {
            let (cosines, sines) = turns.split_at(dim / 2);
            for head in row.chunks_exact_mut(dim) {
                let (first, second) = head.split_at_mut(dim / 2);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

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
        each_cpu(|cpu| {
            let mut got = x.clone();
            rotate(cpu, &mut got, 2, &RotaryTable::new(cpu, &frequencies, 0.5, positions.into_iter()));
            assert_close(&got, &want, 3e-7);
        });
    }

    /// `⟨R x, y⟩ = ⟨x, Rᵀ y⟩`, and without a factor turning back undoes the turn. Tolerances: sums of 400 products.
    #[test]
    fn the_gradient_turns_back() {
        let frequencies = [1.0, 0.3, 0.02, 0.5];
        each_cpu(|cpu| {
            for factor in [1.0, 0.7] {
                let table = RotaryTable::new(cpu, &frequencies, factor, 3..28);
                let (x, y) = (values(25 * 2 * 8, 3), values(25 * 2 * 8, 4));
                let (mut turned, mut back) = (x.clone(), y.clone());
                rotate(cpu, &mut turned, 2, &table);
                rotate_backward(cpu, &mut back, 2, &table);
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                assert!((dot(&turned, &y) - dot(&x, &back)).abs() < 1e-5);
                if factor == 1.0 {
                    rotate_backward(cpu, &mut turned, 2, &table);
                    assert_close(&turned, &x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), 1e-6);
                }
            }
        });
    }

    #[test]
    fn many_rows_turn_as_each_of_them_alone() {
        let frequencies: Vec<f32> = (0..32).map(|i| 0.7f32.powi(i)).collect();
        let x = values(100 * 3 * 64, 2);
        each_cpu(|cpu| {
            let mut table = RotaryTable::new(cpu, &frequencies, 1.0, 5..60);
            table.extend(cpu, &frequencies, 1.0, 7..52);
            let mut all = x.clone();
            rotate(cpu, &mut all, 3, &table);
            for (r, position) in [(0, 5), (54, 59), (55, 7), (99, 51)] {
                let mut one = x[r * 192..][..192].to_vec();
                rotate(cpu, &mut one, 3, &RotaryTable::new(cpu, &frequencies, 1.0, std::iter::once(position)));
                assert_same_bits(&one, &all[r * 192..][..192]);
            }
        });
    }
}
