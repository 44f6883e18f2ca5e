//! The loss of rows of logits and its gradient, in the place of the logits: nothing of the size of the vocabulary is kept
//! besides.

use crate::activation::exp;
use crate::cpu::Cpu;
use crate::softmax::max_and_sum;
use crate::split::Split;
use crate::vectorized::vectorized;

/// For each row of `logits` `[rows, vocab]`: `losses[r] = −ln softmax(logits[r])[targets[r]]`, in nats and without its
/// weight, and `logits[r]` becomes `weights[r] · (softmax(logits[r]) − onehot(targets[r]))`, the gradient of
/// `Σ weights[r] · losses[r]`.
///
/// # Panics
/// If sizes do not fit or a target is out of the vocabulary.
pub fn cross_entropy_backward(
    cpu: &Cpu,
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
    losses: &mut [f64],
) {
    assert!(vocab > 0 && logits.len() == targets.len() * vocab, "logits are [rows, vocab]");
    assert!(targets.len() == weights.len() && targets.len() == losses.len(), "a target, a weight, a loss of each row");
    assert!(targets.iter().all(|target| (*target as usize) < vocab), "a target is out of the vocabulary");
    let losses = Split::new(losses);
    cpu.each_chunk(logits, vocab, |r, logits| {
        // SAFETY: each row has its own.
        let loss = unsafe { losses.part(r..r + 1) };
        loss[0] = replace_row(cpu.isa(), logits, targets[r] as usize, weights[r]);
    });
}

vectorized! {
    fn replace_row(row: &mut [f32], target: usize, weight: f32) -> f64 {
        let (max, sum) = max_and_sum(row);
        let loss = sum.ln() + f64::from(max) - f64::from(row[target]);
        let factor = (1.0 / sum) as f32 * weight;
        for value in row.iter_mut() {
            *value = exp(*value - max) * factor;
        }
        row[target] -= weight;
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, differences, each_cpu, values};

    fn nll(row: &[f64], target: u32) -> f64 {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter().map(|v| (v - max).exp()).sum::<f64>().ln() + max - row[target as usize]
    }

    /// Tolerance 1e-6 on losses and gradients of the order of one.
    #[test]
    fn loss_and_gradient_agree_with_f64_and_a_masked_row_has_none() {
        for vocab in [2, 17, 144, 4096] {
            let logits: Vec<f32> = values(4 * vocab, 1).iter().map(|v| v * 9.0).collect();
            let (targets, weights) = ([0, vocab as u32 - 1, 1, 0], [1.0, 0.25, 0.0, 2.0]);
            let loss_of = |row: &[f64], r: usize| f64::from(weights[r]) * nll(row, targets[r]);
            let rows = || logits.chunks(vocab).enumerate();
            let want: Vec<f64> = rows().flat_map(|(r, row)| differences(row, |x| loss_of(x, r))).collect();
            each_cpu(|cpu| {
                let (mut got, mut losses) = (logits.clone(), [0.0; 4]);
                cross_entropy_backward(cpu, &mut got, vocab, &targets, &weights, &mut losses);
                assert_close(&got, &want, 1e-6);
                assert!(got[2 * vocab..3 * vocab].iter().all(|value| *value == 0.0));
                for (r, row) in rows() {
                    let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
                    assert!((losses[r] - nll(&row, targets[r])).abs() < 1e-6);
                }
            });
        }
    }

    #[test]
    #[should_panic(expected = "out of the vocabulary")]
    fn a_target_is_a_token() {
        cross_entropy_backward(&Cpu::serial(), &mut [0.0; 3], 3, &[3], &[1.0], &mut [0.0]);
    }
}
