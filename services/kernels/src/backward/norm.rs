//! The gradient through a root-mean-square norm whose weight is frozen.

use crate::LANES;
use crate::cpu::Cpu;
use crate::norm::{chunk, inverse_rms};
use crate::reduce::sum_lanes;
use crate::vectorized::vectorized;

/// `dx +=` the gradient with respect to `x` of [`crate::rms_norm`], row by row; `x`, `dy` and `dx` are `[rows, weight.len()]`.
///
/// With `f = 1 / √(mean(x²) + eps)` and `g = dy ⊙ weight`: `f g − f³ x · mean(g ⊙ x)`.
pub fn rms_norm_backward(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && x.len() == dy.len() && x.len().is_multiple_of(weight.len()), "rows of a norm");
    let chunk = chunk(weight.len());
    cpu.each_chunk(dx, chunk, |i, dx| {
        let rows = i * chunk..i * chunk + dx.len();
        add_rows(cpu.isa(), &x[rows.clone()], weight, eps, &dy[rows], dx);
    });
}

/// As [`rms_norm_backward`], in the place of `dy`: the norm of each head of queries or keys.
pub fn rms_norm_backward_in_place(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, dy: &mut [f32]) {
    assert!(x.len() == dy.len() && x.len().is_multiple_of(weight.len()), "rows of a norm");
    let chunk = chunk(weight.len());
    cpu.each_chunk(dy, chunk, |i, dy| replace_rows(cpu.isa(), &x[i * chunk..][..dy.len()], weight, eps, dy));
}

vectorized! {
    fn add_rows(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let width = weight.len();
        for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let (factor, back) = factors(x, weight, eps, dy);
            for (((dx, dy), weight), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                *dx += dy * weight * factor - x * back;
            }
        }
    }
}

vectorized! {
    fn replace_rows(x: &[f32], weight: &[f32], eps: f32, dy: &mut [f32]) {
        let width = weight.len();
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
            let (factor, back) = factors(x, weight, eps, dy);
            for ((dy, weight), x) in dy.iter_mut().zip(weight).zip(x) {
                *dy = *dy * weight * factor - x * back;
            }
        }
    }
}

/// `f` and `f³ · mean(g ⊙ x)` of one row.
#[inline(always)]
fn factors(x: &[f32], weight: &[f32], eps: f32, dy: &[f32]) -> (f32, f32) {
    let factor = inverse_rms(x, eps);
    let mut lanes = [0.0f32; LANES];
    for ((x, weight), dy) in x.chunks(LANES).zip(weight.chunks(LANES)).zip(dy.chunks(LANES)) {
        for (((lane, x), weight), dy) in lanes.iter_mut().zip(x).zip(weight).zip(dy) {
            *lane += dy * weight * x;
        }
    }
    (factor, factor * factor * factor * (sum_lanes(&lanes) / x.len() as f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, differences, each_cpu, values};

    /// Tolerance 2e-5 against central differences in f64: values of the order of one.
    #[test]
    fn it_agrees_with_differences_and_in_place_is_the_same() {
        for (rows, width) in [(3, 2), (3, 16), (2, 33), (4, 64), (40, 96)] {
            let (x, weight, dy) = (values(rows * width, 1), values(width, 2), values(rows * width, 3));
            let loss = |x: &[f64]| {
                let row = |(x, dy): (&[f64], &[f32])| -> f64 {
                    let factor = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / width as f64 + 1e-5).sqrt();
                    let terms = x.iter().zip(&weight).zip(dy);
                    terms.map(|((x, w), dy)| x * factor * f64::from(*w) * f64::from(*dy)).sum()
                };
                x.chunks(width).zip(dy.chunks(width)).map(row).sum()
            };
            let want = differences(&x, loss);
            each_cpu(|cpu| {
                let mut dx = vec![0.0; x.len()];
                rms_norm_backward(cpu, &x, &weight, 1e-5, &dy, &mut dx);
                assert_close(&dx, &want, 2e-5);
                let mut in_place = dy.clone();
                rms_norm_backward_in_place(cpu, &x, &weight, 1e-5, &mut in_place);
                assert_same_bits(&in_place, &dx);
                let mut twice = dx.clone();
                rms_norm_backward(cpu, &x, &weight, 1e-5, &dy, &mut twice);
                assert_same_bits(&twice, &dx.iter().map(|v| v + v).collect::<Vec<_>>());
                let last = (rows - 1) * width;
                let mut one = dy[last..].to_vec();
                rms_norm_backward_in_place(&Cpu::serial(), &x[last..], &weight, 1e-5, &mut one);
                assert_same_bits(&one, &dx[last..]);
            });
        }
    }
}
