//! Products that training needs besides those of serving: the gradient that passes through a frozen layer, and the
//! gradients of the two factors of a low-rank change. All in f32 on f32 activations; what drives them is not here.

use crate::LANES;
use crate::cpu::Cpu;
use crate::matrix::{Matrix, PANEL};
use crate::vectorized::vectorized;

/// Rows of one task of [`linear_backward`]: a panel of weights is brought to f32 once for so many.
const ROWS: usize = 128;
/// Columns of a panel that stay in the first-level cache while all rows of a task pass.
const CACHED: usize = 256;
/// Columns whose sums stay in registers.
const COLUMNS: usize = 64;

/// `dx[r] += dy[r] W`: the gradient with respect to the input of `y = x Wᵀ` ([`crate::linear`]), of `dy` `[rows, outputs]`,
/// `w` `[outputs, inputs]` in any storage and `dx` `[rows, inputs]`.
///
/// Weights are those that [`Matrix::read_row`] gives: int8 with their scales. A sum runs over the outputs in order, so no
/// bit depends on threads or on other rows.
///
/// # Panics
/// If sizes do not fit.
pub fn linear_backward(cpu: &Cpu, dy: &[f32], w: &Matrix, dx: &mut [f32]) {
    let (outputs, inputs) = (w.outputs(), w.inputs());
    assert_eq!(dx.len() % inputs, 0, "dx is [rows, inputs]");
    assert_eq!(dy.len(), dx.len() / inputs * outputs, "dy is [rows, outputs]");
    cpu.each_chunk(dx, ROWS * inputs, |task, dx| {
        let dy = &dy[task * ROWS * outputs..];
        let mut weights = vec![0.0; PANEL * inputs];
        for first in (0..outputs).step_by(PANEL) {
            let count = PANEL.min(outputs - first);
            for (n, row) in weights.chunks_exact_mut(inputs).enumerate() {
                if n < count { w.read_row(first + n, row) } else { row.fill(0.0) }
            }
            for begin in (0..inputs).step_by(CACHED) {
                let columns = begin..(begin + CACHED).min(inputs);
                for (dx, dy) in dx.chunks_exact_mut(inputs).zip(dy.chunks_exact(outputs)) {
                    let mut factors = [0.0; PANEL];
                    factors[..count].copy_from_slice(&dy[first..][..count]);
                    add_rows(cpu.isa(), &factors, &weights[begin..], inputs, &mut dx[columns.clone()]);
                }
            }
        }
    });
}

/// `out += scale · Lᵀ R`: the gradient of a factor, of `left` `[rows, m]`, `right` `[rows, n]` and `out` `[m, n]`. For
/// `y += s · B h`, `h = A x`: `dB` has `left = dy`, `right = h`; `dA` has `left = dh`, `right = x`.
///
/// A sum runs over the rows in order, so no bit depends on threads.
///
/// # Panics
/// If sizes do not fit.
pub fn outer_sum(cpu: &Cpu, left: &[f32], right: &[f32], rows: usize, scale: f32, out: &mut [f32]) {
    let of_row = |len: usize, what: &str| {
        assert!(rows > 0 && len.is_multiple_of(rows), "{what} is of {rows} rows");
        len / rows
    };
    let (m, n) = (of_row(left.len(), "left"), of_row(right.len(), "right"));
    assert_eq!(out.len(), m * n, "out is [m, n]");
    let columns = (m / PANEL).clamp(1, PANEL);
    cpu.each_chunk(out, columns * n, |task, out| {
        for (first, right) in (0..rows).step_by(PANEL).zip(right.chunks(PANEL * n)) {
            for (out, column) in out.chunks_exact_mut(n).zip(task * columns..) {
                let mut factors = [0.0; PANEL];
                for (factor, left) in factors.iter_mut().zip(left[first * m..].chunks_exact(m)) {
                    *factor = scale * left[column];
                }
                add_rows(cpu.isa(), &factors, right, n, out);
            }
        }
    });
}

vectorized! {
    /// `out += Σ factors[i] · rows[i]` for as many rows as there are, up to 16; row `i` begins at `i · stride`.
    fn add_rows(factors: &[f32; PANEL], rows: &[f32], stride: usize, out: &mut [f32]) {
        let width = out.len();
        let row = |i: usize| rows.get(i * stride..).and_then(|row| row.get(..width));
        let (blocks, rest) = out.as_chunks_mut::<COLUMNS>();
        let mut first = 0;
        for block in blocks {
            add_block(block, factors, (0..).map_while(row).map(|row| &row[first..]));
            first += COLUMNS;
        }
        let (blocks, rest) = rest.as_chunks_mut::<LANES>();
        for block in blocks {
            add_block(block, factors, (0..).map_while(row).map(|row| &row[first..]));
            first += LANES;
        }
        for sum in rest {
            for (factor, row) in factors.iter().zip((0..).map_while(row)) {
                *sum = factor.mul_add(row[first], *sum);
            }
            first += 1;
        }
    }
}

#[inline(always)]
fn add_block<'a, const N: usize>(block: &mut [f32; N], factors: &[f32; PANEL], rows: impl Iterator<Item = &'a [f32]>) {
    let mut sums = *block;
    for (factor, row) in factors.iter().zip(rows) {
        for (sum, value) in sums.iter_mut().zip(&row[..N]) {
            *sum = factor.mul_add(*value, *sum);
        }
    }
    *block = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Storage;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

    /// Rows, inputs, outputs.
    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 1, 1), (3, 65, 17), (33, 64, 16), (5, 200, 130), (70, 31, 33), (40, 128, 7)];

    #[test]
    fn the_gradient_of_the_input_is_the_product_with_the_weights_as_they_are_held() {
        each_cpu(|cpu| {
            for (rows, inputs, outputs) in SHAPES {
                for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
                    let w = Matrix::from_values(cpu, outputs, inputs, storage, &values(outputs * inputs, 1));
                    let dy = values(rows * outputs, 2);
                    let before = values(rows * inputs, 3);
                    let mut dx = before.clone();
                    linear_backward(cpu, &dy, &w, &mut dx);
                    let mut want: Vec<f64> = before.iter().map(|value| f64::from(*value)).collect();
                    let mut row = vec![0.0; inputs];
                    for o in 0..outputs {
                        w.read_row(o, &mut row);
                        for (want, dy) in want.chunks_mut(inputs).zip(dy.chunks(outputs)) {
                            want.iter_mut().zip(&row).for_each(|(sum, w)| *sum += f64::from(dy[o]) * f64::from(*w));
                        }
                    }
                    assert_close(&dx, &want, 1e-6 * outputs as f64 + 1e-6);
                    for (r, (alone, together)) in before.chunks(inputs).zip(dx.chunks(inputs)).enumerate() {
                        let mut alone = alone.to_vec();
                        linear_backward(&Cpu::serial(), &dy[r * outputs..][..outputs], &w, &mut alone);
                        assert_same_bits(&alone, together);
                    }
                }
            }
        });
    }

    #[test]
    fn the_gradient_of_a_factor_is_the_sum_of_outer_products() {
        each_cpu(|cpu| {
            for (rows, n, m) in SHAPES {
                let (left, right, before) = (values(rows * m, 1), values(rows * n, 2), values(m * n, 3));
                let mut out = before.clone();
                outer_sum(cpu, &left, &right, rows, 0.5, &mut out);
                let at = |i: usize, j: usize| {
                    let sum: f64 = (0..rows).map(|r| f64::from(left[r * m + i]) * f64::from(right[r * n + j])).sum();
                    f64::from(before[i * n + j]) + 0.5 * sum
                };
                let want: Vec<f64> = (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect();
                assert_close(&out, &want, 1e-6 * rows as f64 + 1e-6);
                let mut serial = before;
                outer_sum(&Cpu::serial(), &left, &right, rows, 0.5, &mut serial);
                assert_same_bits(&out, &serial);
            }
        });
    }

    #[test]
    #[should_panic(expected = "dy is [rows, outputs]")]
    fn sizes_are_checked() {
        let w = Matrix::from_values(&Cpu::serial(), 2, 3, Storage::F32, &values(6, 1));
        linear_backward(&Cpu::serial(), &[0.0; 3], &w, &mut [0.0; 3]);
    }
}
