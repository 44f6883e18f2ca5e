//! Element-wise functions. `exp` is ours so that it vectorises and gives the same bits on every machine.

use crate::cpu::Cpu;
use crate::vectorized::vectorized;

/// Elements of one task.
const TASK_ELEMENTS: usize = 4096;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts (Cody and Waite): the first has few bits, so its product with a small integer is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5 · 2²³ leaves the nearest integer in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0;
const EXP_MIN: f32 = -87.0;
const EXP_MAX: f32 = 88.0;

/// eˣ within 2 units in the last place for `-87 <= x <= 88`; below it is 0, above it stays at e⁸⁸. NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x < EXP_MIN { EXP_MIN } else { x };
    let clamped = if clamped > EXP_MAX { EXP_MAX } else { clamped };
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    // Minimax polynomial of (eʳ − 1 − r) / r² on |r| <= ln 2 / 2 (Cephes expf).
    let p = 1.987_569_1e-4f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let fraction = p.mul_add(r * r, r) + 1.0;
    // n is in -126..=127: its bits go straight into the exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < EXP_MIN { 0.0 } else { fraction * power }
}

/// SwiGLU's gate: `gate[i] = silu(gate[i]) · up[i]`, with `silu(x) = x / (1 + e⁻ˣ)`.
pub fn silu_mul(cpu: &Cpu, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up have one shape");
    cpu.each_chunk(gate, TASK_ELEMENTS, |i, gate| {
        silu_mul_part(cpu.isa(), gate, &up[i * TASK_ELEMENTS..][..gate.len()]);
    });
}

vectorized! {
    fn silu_mul_part(gate: &mut [f32], up: &[f32]) {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

    #[test]
    fn exp_is_within_2_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY).is_finite());
    }

    /// Tolerance 4e-6 for |x| < 20.
    #[test]
    fn silu_mul_agrees_with_f64_and_an_element_has_the_same_bits_everywhere() {
        let gate: Vec<f32> = values(20_000, 1).iter().map(|v| v * 20.0).collect();
        let up = values(20_000, 2);
        let silu = |g: &f32| f64::from(*g) / (1.0 + (-f64::from(*g)).exp());
        let want: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| silu(g) * f64::from(*u)).collect();
        let mut first = gate.clone();
        silu_mul(&Cpu::serial(), &mut first, &up);
        each_cpu(|cpu| {
            let mut all = gate.clone();
            silu_mul(cpu, &mut all, &up);
            assert_close(&all, &want, 4e-6);
            assert_same_bits(&all, &first);
            for i in [0, 1, 17, 4095, 4096, 19_999] {
                let mut one = [gate[i]];
                silu_mul(cpu, &mut one, &up[i..=i]);
                assert_eq!(one[0].to_bits(), all[i].to_bits());
            }
        });
    }
}
