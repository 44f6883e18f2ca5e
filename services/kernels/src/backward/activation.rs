//! The gradient through SwiGLU's gate.

use crate::activation::exp;
use crate::cpu::Cpu;
use crate::split::Split;
use crate::vectorized::vectorized;

/// Elements of one task.
const TASK_ELEMENTS: usize = 4096;

/// Gradients of [`crate::silu_mul`]: `gate` and `up`, as they were before it, become the gradients with respect to them;
/// `dy` is that of the product.
pub fn silu_mul_backward(cpu: &Cpu, gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
    assert!(gate.len() == up.len() && gate.len() == dy.len(), "gate and up have one shape");
    let split = Split::new(up);
    cpu.each_chunk(gate, TASK_ELEMENTS, |i, gate| {
        let part = i * TASK_ELEMENTS..i * TASK_ELEMENTS + gate.len();
        // SAFETY: chunks do not overlap.
        let up = unsafe { split.part(part.clone()) };
        replace_part(cpu.isa(), gate, up, &dy[part]);
    });
}

vectorized! {
    fn replace_part(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let sigmoid = 1.0 / (1.0 + exp(-*gate));
            let silu = *gate * sigmoid;
            (*gate, *up) = (dy * *up * (sigmoid + silu * (1.0 - sigmoid)), dy * silu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, differences, each_cpu, values};

    /// Tolerance 4e-6 against central differences in f64, for |x| < 8.
    #[test]
    fn it_agrees_with_differences() {
        let gate: Vec<f32> = values(5000, 1).iter().map(|v| v * 8.0).collect();
        let (up, dy) = (values(5000, 2), values(5000, 3));
        let value = |gate: f64, up: f64, i: usize| gate / (1.0 + (-gate).exp()) * up * f64::from(dy[i]);
        let of_gate = |i: usize| differences(&gate[i..=i], |x| value(x[0], f64::from(up[i]), i))[0];
        let of_up = |i: usize| differences(&up[i..=i], |x| value(f64::from(gate[i]), x[0], i))[0];
        let want: [Vec<f64>; 2] = [(0..5000).map(of_gate).collect(), (0..5000).map(of_up).collect()];
        let mut first = (gate.clone(), up.clone());
        silu_mul_backward(&Cpu::serial(), &mut first.0, &mut first.1, &dy);
        each_cpu(|cpu| {
            let (mut d_gate, mut d_up) = (gate.clone(), up.clone());
            silu_mul_backward(cpu, &mut d_gate, &mut d_up, &dy);
            assert_close(&d_gate, &want[0], 4e-6);
            assert_close(&d_up, &want[1], 4e-6);
            assert_same_bits(&d_gate, &first.0);
            assert_same_bits(&d_up, &first.1);
        });
    }
}
