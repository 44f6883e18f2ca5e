//! Grouped LoRA: the rows of a batch that use an adapter get its low-rank change, each group its own; rows without
//! an adapter cost nothing. What an adapter is and whether it fits is decided elsewhere.

use rayon::prelude::*;

use crate::expand::expand;
use crate::linear::linear_serial;
use crate::matrix::{Matrix, Storage};

/// Rows of one task.
const TASK_ROWS: usize = 16;
/// Below so many multiplications a task costs more to hand over than to do.
const SERIAL_PRODUCTS: usize = 1 << 16;

/// The low-rank change of one linear layer: `ΔW = scale · B A`.
pub struct Lora {
    /// `[rank, inputs]`
    a: Matrix,
    /// Transposed: `[rank, outputs]`.
    b: Vec<f32>,
    outputs: usize,
    scale: f32,
}

impl Lora {
    /// From row-major `a` `[rank, inputs]` and `b` `[outputs, rank]`.
    pub fn new(rank: usize, inputs: usize, outputs: usize, a: &[f32], b: &[f32], scale: f32) -> Self {
        assert_eq!(b.len(), outputs * rank, "b is [outputs, rank]");
        let mut transposed = vec![0.0; b.len()];
        for (o, row) in b.chunks_exact(rank).enumerate() {
            for (i, value) in row.iter().enumerate() {
                transposed[i * outputs + o] = *value;
            }
        }
        Lora { a: Matrix::from_values(rank, inputs, Storage::F32, a), b: transposed, outputs, scale }
    }

    /// Memory that the change holds.
    pub fn bytes(&self) -> usize {
        self.a.bytes() + size_of_val(self.b.as_slice())
    }
}

/// The rows of a batch that share one change.
pub struct LoraGroup<'a> {
    pub rows: &'a [usize],
    pub lora: &'a Lora,
}

/// `y[r] += scale · (x[r] Aᵀ) Bᵀ` for the rows of each group; ranks may differ. No row is in two groups.
pub fn grouped_lora(x: &[f32], groups: &[LoraGroup<'_>], y: &mut [f32]) {
    let Some(first) = groups.first() else { return };
    let (inputs, outputs) = (first.lora.a.inputs(), first.lora.outputs);
    assert!(x.len() / inputs * outputs == y.len(), "x is [rows, inputs] and y [rows, outputs]");
    let mut rows_of_y: Vec<Option<&mut [f32]>> = y.chunks_mut(outputs).map(Some).collect();
    let mut tasks = Vec::new();
    let mut products = 0;
    for group in groups {
        assert!(group.lora.a.inputs() == inputs && group.lora.outputs == outputs, "changes of one layer");
        products += group.rows.len() * group.lora.a.outputs() * (inputs + outputs);
        for rows in group.rows.chunks(TASK_ROWS) {
            let ys: Vec<_> = rows.iter().map(|r| rows_of_y[*r].take().expect("a row is in one group")).collect();
            tasks.push((group.lora, rows, ys));
        }
    }
    let task = |(lora, rows, ys): (&Lora, &[usize], Vec<&mut [f32]>)| shrink_expand(x, lora, rows, ys);
    if products < SERIAL_PRODUCTS || tasks.len() == 1 {
        tasks.into_iter().for_each(task);
    } else {
        tasks.into_par_iter().for_each(task);
    }
}

fn shrink_expand(x: &[f32], lora: &Lora, rows: &[usize], ys: Vec<&mut [f32]>) {
    let (rank, inputs) = (lora.a.outputs(), lora.a.inputs());
    let gathered: Vec<f32> = rows.iter().flat_map(|r| &x[r * inputs..(r + 1) * inputs]).copied().collect();
    let mut h = vec![0.0; rows.len() * rank];
    linear_serial(&gathered, &lora.a, &mut h);
    for (h, y) in h.chunks_exact(rank).zip(ys) {
        expand(h, &lora.b, lora.scale, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, values};

    const INPUTS: usize = 100;
    const OUTPUTS: usize = 150;

    fn lora(rank: usize, seed: u64) -> (Lora, Vec<f32>, Vec<f32>) {
        let (a, b) = (values(rank * INPUTS, seed), values(OUTPUTS * rank, seed + 1));
        (Lora::new(rank, INPUTS, OUTPUTS, &a, &b, 0.25), a, b)
    }

    /// Tolerance 2e-5: sums of 100 and of up to 33 products, of the order of ten.
    #[test]
    fn mixed_ranks_agree_with_f64_and_rows_without_adapter_are_untouched() {
        let adapters = [lora(1, 1), lora(8, 3), lora(33, 5)];
        let rows: [&[usize]; 3] = [&[4], &[0, 2, 19], &[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 3, 20, 21]];
        let x = values(23 * INPUTS, 7);
        let before = values(23 * OUTPUTS, 8);
        let mut want: Vec<f64> = before.iter().map(|v| f64::from(*v)).collect();
        for ((_, a, b), rows) in adapters.iter().zip(rows) {
            let rank = a.len() / INPUTS;
            for row in rows {
                let dot = |i: usize| -> f64 {
                    let (x, a) = (&x[row * INPUTS..][..INPUTS], &a[i * INPUTS..][..INPUTS]);
                    x.iter().zip(a).map(|(x, a)| f64::from(*x) * f64::from(*a)).sum()
                };
                let h: Vec<f64> = (0..rank).map(dot).collect();
                for o in 0..OUTPUTS {
                    let sum: f64 = (0..rank).map(|i| h[i] * f64::from(b[o * rank + i])).sum();
                    want[row * OUTPUTS + o] += 0.25 * sum;
                }
            }
        }
        let groups: Vec<_> = adapters.iter().zip(rows).map(|((lora, ..), rows)| LoraGroup { rows, lora }).collect();
        let mut y = before.clone();
        grouped_lora(&x, &groups, &mut y);
        assert_close(&y, &want, 2e-5);
        for row in [1, 22] {
            assert_same_bits(&y[row * OUTPUTS..][..OUTPUTS], &before[row * OUTPUTS..][..OUTPUTS]);
        }
        // Each row alone has the same bits.
        for (group, (lora, ..)) in groups.iter().zip(&adapters) {
            for row in group.rows {
                let mut alone = before[row * OUTPUTS..][..OUTPUTS].to_vec();
                grouped_lora(&x[row * INPUTS..][..INPUTS], &[LoraGroup { rows: &[0], lora }], &mut alone);
                assert_same_bits(&alone, &y[row * OUTPUTS..][..OUTPUTS]);
            }
        }
    }
}
