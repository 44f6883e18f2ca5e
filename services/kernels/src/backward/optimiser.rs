//! The element-wise part of the optimiser: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), in the
//! order of operations of `torch.optim.AdamW`.

use crate::LANES;
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::split::Split;
use crate::vectorized::vectorized;

/// Elements of one task.
const TASK_ELEMENTS: usize = 1 << 14;

/// The factors of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Multiplies every gradient first: the mean over tokens, and clipping.
    pub gradient_factor: f32,
    /// `1 − lr · decay`
    pub keep: f32,
    /// `1 − β₁`
    pub first_rate: f32,
    /// `β₂`
    pub second_keep: f32,
    /// `1 − β₂`
    pub second_rate: f32,
    /// `lr / (1 − β₁ᵗ)`
    pub step: f32,
    /// `√(1 − β₂ᵗ)`
    pub second_root: f32,
    pub epsilon: f32,
}

/// One step of `values` and of their moments by `gradient`, element by element.
///
/// # Panics
/// If lengths differ.
pub fn adamw(cpu: &Cpu, by: &AdamW, values: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
    let length = values.len();
    assert!(first.len() == length && second.len() == length && gradient.len() == length, "one length");
    let (first, second) = (Split::new(first), Split::new(second));
    cpu.each_chunk(values, TASK_ELEMENTS, |i, values| {
        let part = i * TASK_ELEMENTS..i * TASK_ELEMENTS + values.len();
        // SAFETY: chunks do not overlap.
        let (first, second) = unsafe { (first.part(part.clone()), second.part(part.clone())) };
        step_part(cpu.isa(), by, values, first, second, &gradient[part]);
    });
}

/// `Σ v²` in f64, in a fixed order; infinite or not a number if a value is.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    squares(Isa::best(), values)
}

vectorized! {
    fn step_part(by: &AdamW, values: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        for (((value, first), second), gradient) in values.iter_mut().zip(first).zip(second).zip(gradient) {
            let gradient = gradient * by.gradient_factor;
            *first += by.first_rate * (gradient - *first);
            *second = *second * by.second_keep + by.second_rate * gradient * gradient;
            *value = *value * by.keep - by.step * *first / (second.sqrt() / by.second_root + by.epsilon);
        }
    }
}

vectorized! {
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for i in 0..LANES {
                lanes[i] += f64::from(group[i]) * f64::from(group[i]);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*value) * f64::from(*value);
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

    /// Three steps with decay; tolerance 1e-6 for values of the order of one.
    #[test]
    fn steps_agree_with_f64_and_every_instruction_set_has_the_same_bits() {
        const LENGTH: usize = 40_000;
        let (start, rate, decay) = (values(LENGTH, 1), 0.02, 0.1);
        let mut first_bits: Option<Vec<f32>> = None;
        each_cpu(|cpu| {
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; LENGTH], vec![0.0; LENGTH]);
            let mut want: Vec<[f64; 3]> = start.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
            for t in 1..=3 {
                let gradient = values(LENGTH, 10 + t as u64);
                let (bias, root) = (1.0 - 0.9f64.powi(t), (1.0 - 0.999f64.powi(t)).sqrt());
                let by = AdamW {
                    gradient_factor: 0.5,
                    keep: (1.0 - rate * decay) as f32,
                    first_rate: 0.1,
                    second_keep: 0.999,
                    second_rate: 0.001,
                    step: (rate / bias) as f32,
                    second_root: root as f32,
                    epsilon: 1e-8,
                };
                adamw(cpu, &by, &mut p, &mut m, &mut v, &gradient);
                for ([p, m, v], g) in want.iter_mut().zip(&gradient) {
                    let g = 0.5 * f64::from(*g);
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    *p = *p * (1.0 - rate * decay) - rate * (*m / bias) / (v.sqrt() / root + 1e-8);
                }
            }
            assert_close(&p, &want.iter().map(|w| w[0]).collect::<Vec<_>>(), 1e-6);
            assert_same_bits(first_bits.get_or_insert_with(|| p.clone()), &p);
        });
    }

    #[test]
    fn squares_are_added_up_and_what_is_no_number_shows() {
        let mut row = values(1003, 1);
        let want: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        for isa in Isa::available() {
            assert!((squares(isa, &row) - want).abs() < 1e-9);
            assert_eq!(squares(isa, &row).to_bits(), sum_of_squares(&row).to_bits());
        }
        for bad in [f32::NAN, f32::INFINITY] {
            row[1002] = bad;
            assert!(!sum_of_squares(&row).is_finite());
        }
    }
}
