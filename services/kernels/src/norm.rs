//! Root-mean-square norm over the last axis, alone and fused with the addition of a residual.

use crate::cpu::Cpu;
use crate::reduce::sum_by_lane;
use crate::split::Split;
use crate::vectorized::vectorized;

/// Elements of one task: what takes a few times as long as to hand it over.
const TASK_ELEMENTS: usize = 8192;

/// `out = x / √(mean(x²) + eps) ⊙ weight`, row by row; rows are `[weight.len()]`.
pub fn rms_norm(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(weight.len()), "rows of a norm");
    let chunk = chunk(weight.len());
    cpu.each_chunk(out, chunk, |i, out| norm_rows(cpu.isa(), &x[i * chunk..][..out.len()], weight, eps, out));
}

/// As [`rms_norm`], in place: the norm of each head of queries or keys.
pub fn rms_norm_in_place(cpu: &Cpu, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len().is_multiple_of(weight.len()), "rows of a norm");
    cpu.each_chunk(x, chunk(weight.len()), |_, x| norm_rows_in_place(cpu.isa(), x, weight, eps));
}

/// `hidden += change`, then `out` the norm of the sum: the same bits as [`crate::add`] and [`rms_norm`], in one pass.
pub fn add_rms_norm(cpu: &Cpu, hidden: &mut [f32], change: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(hidden.len() == out.len() && hidden.len() == change.len(), "a residual, its change and its norm");
    assert!(hidden.len().is_multiple_of(weight.len()), "rows of a norm");
    let chunk = chunk(weight.len());
    let split = Split::new(out);
    cpu.each_chunk(hidden, chunk, |i, hidden| {
        let rows = i * chunk..i * chunk + hidden.len();
        // SAFETY: chunks do not overlap.
        let out = unsafe { split.part(rows.clone()) };
        add_norm_rows(cpu.isa(), hidden, &change[rows], weight, eps, out);
    });
}

/// Elements of one task, whole rows.
pub fn chunk(width: usize) -> usize {
    (TASK_ELEMENTS / width).max(1) * width
}

vectorized! {
    fn norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let factor = inverse_rms(x, eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * factor * weight;
            }
        }
    }
}

vectorized! {
    fn norm_rows_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
        for x in x.chunks_exact_mut(weight.len()) {
            let factor = inverse_rms(x, eps);
            for (x, weight) in x.iter_mut().zip(weight) {
                *x = *x * factor * weight;
            }
        }
    }
}

vectorized! {
    fn add_norm_rows(hidden: &mut [f32], change: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        let rows = hidden.chunks_exact_mut(width).zip(change.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for ((hidden, change), out) in rows {
            for (hidden, change) in hidden.iter_mut().zip(change) {
                *hidden += change;
            }
            let factor = inverse_rms(hidden, eps);
            for ((out, hidden), weight) in out.iter_mut().zip(&*hidden).zip(weight) {
                *out = hidden * factor * weight;
            }
        }
    }
}

/// `1 / √(mean(x²) + eps)`
#[inline(always)]
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_by_lane(x, |v| v * v) / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

    /// Tolerance 1e-6: results are of the order of one.
    #[test]
    fn it_agrees_with_f64_and_in_place_is_the_same() {
        for (rows, width) in [(3, 2), (3, 16), (3, 33), (3, 64), (40, 896)] {
            let (x, weight) = (values(rows * width, 1), values(width, 2));
            let want: Vec<f64> = x
                .chunks(width)
                .flat_map(|x| {
                    let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                    let factor = 1.0 / (mean + 1e-5).sqrt();
                    x.iter().zip(&weight).map(move |(x, w)| f64::from(*x) * factor * f64::from(*w))
                })
                .collect();
            let mut first = Vec::new();
            each_cpu(|cpu| {
                let mut out = vec![0.0; x.len()];
                rms_norm(cpu, &x, &weight, 1e-5, &mut out);
                assert_close(&out, &want, 1e-6);
                let mut in_place = x.clone();
                rms_norm_in_place(cpu, &mut in_place, &weight, 1e-5);
                assert_same_bits(&in_place, &out);
                first = if first.is_empty() { out.clone() } else { first.clone() };
                assert_same_bits(&first, &out);
            });
        }
    }

    #[test]
    fn fused_with_the_residual_it_has_the_bits_of_both_steps() {
        for (rows, width) in [(1, 7), (5, 64), (40, 896)] {
            let (hidden, change, weight) = (values(rows * width, 3), values(rows * width, 4), values(width, 5));
            each_cpu(|cpu| {
                let (mut sum, mut normed) = (hidden.clone(), vec![0.0; hidden.len()]);
                crate::add(cpu, &mut sum, &change);
                rms_norm(cpu, &sum, &weight, 1e-6, &mut normed);
                let (mut fused, mut out) = (hidden.clone(), vec![0.0; hidden.len()]);
                add_rms_norm(cpu, &mut fused, &change, &weight, 1e-6, &mut out);
                assert_same_bits(&fused, &sum);
                assert_same_bits(&out, &normed);
            });
        }
    }
}
