//! Log-softmax of a row of logits.

use pulp::Arch;

use crate::LANES;
use crate::activation::exp;

/// `ln Σ eˣ` over `row`: subtract it from a logit to get the natural log-probability. Sums in f64, so that a large
/// vocabulary loses nothing.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    Arch::new().dispatch(|| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut lanes = [0.0f64; LANES];
        let (groups, rest) = row.as_chunks::<LANES>();
        for group in groups {
            for i in 0..LANES {
                lanes[i] += f64::from(exp(group[i] - max));
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(exp(*value - max));
        }
        f64::from(max) + lanes.iter().sum::<f64>().ln()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::values;

    /// Tolerance 2e-7: that of `exp`.
    #[test]
    fn it_agrees_with_f64() {
        for width in [1, 7, 16, 1000, 151_936] {
            let row: Vec<f32> = values(width, 5).iter().map(|v| v * 12.0).collect();
            let want = row.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&row) - want).abs() < 2e-7, "{width}");
        }
    }
}
