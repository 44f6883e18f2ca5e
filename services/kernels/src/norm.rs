//! Root-mean-square norm over the last axis.

use pulp::Arch;

use crate::reduce::sum_by_lane;

/// `out = x / √(mean(x²) + eps) ⊙ weight`, row by row; rows are `[weight.len()]`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(weight.len()), "rows of a norm");
    Arch::new().dispatch(|| {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let factor = inverse_rms(x, eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * factor * weight;
            }
        }
    });
}

/// As [`rms_norm`], in place: the norm of each head of queries or keys.
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len().is_multiple_of(weight.len()), "rows of a norm");
    Arch::new().dispatch(|| {
        for x in x.chunks_exact_mut(weight.len()) {
            let factor = inverse_rms(x, eps);
            for (x, weight) in x.iter_mut().zip(weight) {
                *x = *x * factor * weight;
            }
        }
    });
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_by_lane(x, |v| v * v) / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, values};

    /// Tolerance 1e-6: results are of the order of one.
    #[test]
    fn it_agrees_with_f64_and_in_place_is_the_same() {
        for width in [2, 16, 33, 64, 896] {
            let (x, weight) = (values(3 * width, 1), values(width, 2));
            let want: Vec<f64> = x
                .chunks(width)
                .flat_map(|x| {
                    let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                    let factor = 1.0 / (mean + 1e-5).sqrt();
                    x.iter().zip(&weight).map(move |(x, w)| f64::from(*x) * factor * f64::from(*w))
                })
                .collect();
            let mut out = vec![0.0; x.len()];
            rms_norm(&x, &weight, 1e-5, &mut out);
            assert_close(&out, &want, 1e-6);
            let mut in_place = x.clone();
            rms_norm_in_place(&mut in_place, &weight, 1e-5);
            assert_same_bits(&in_place, &out);
        }
    }
}
