//! Softmax of a row of logits, in f64 where a large vocabulary is added up.

use crate::LANES;
use crate::activation::exp;
use crate::isa::Isa;
use crate::vectorized::vectorized;

/// `ln Σ eˣ` over `row`: subtract it from a logit to get the natural log-probability. Sums in f64, so that a large
/// vocabulary loses nothing.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    log_sum_exp_with(Isa::best(), row)
}

/// `exp((row[i] − max) / temperature)` into `out`, whose former contents go: weights of a draw. `max` is the largest
/// value. Within two units in the last place of f64; below e⁻⁷⁰⁸ it is 0.
pub fn exp_weights(row: &[f32], max: f32, temperature: f32, out: &mut Vec<f64>) {
    out.clear();
    out.resize(row.len(), 0.0);
    exp_weights_with(Isa::best(), row, f64::from(max), f64::from(temperature), out);
}

vectorized! {
    fn log_sum_exp_with(row: &[f32]) -> f64 {
        let (max, sum) = max_and_sum(row);
        f64::from(max) + sum.ln()
    }
}

/// The largest value, and the sum of `exp(value − max)`.
#[inline(always)]
pub fn max_and_sum(row: &[f32]) -> (f32, f64) {
    let (groups, rest) = row.as_chunks::<LANES>();
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for i in 0..LANES {
            maxima[i] = if group[i] > maxima[i] { group[i] } else { maxima[i] };
        }
    }
    let max = rest.iter().chain(&maxima).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0f64; LANES];
    for group in groups {
        for i in 0..LANES {
            lanes[i] += f64::from(exp(group[i] - max));
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(exp(*value - max));
    }
    (max, lanes.iter().sum())
}

vectorized! {
    fn exp_weights_with(row: &[f32], max: f64, temperature: f64, out: &mut [f64]) {
        for (out, value) in out.iter_mut().zip(row) {
            *out = exp_f64((f64::from(*value) - max) / temperature);
        }
    }
}

/// eˣ in f64 for `-708 <= x <= 709`; 0 below, e⁷⁰⁹ above.
#[inline(always)]
fn exp_f64(x: f64) -> f64 {
    const MIN: f64 = -708.0;
    const MAX: f64 = 709.0;
    /// ln 2 in two parts (Cody and Waite): the product of the first with an integer below 2¹¹ is exact.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// Adding 1.5 · 2⁵² leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let clamped = if x < MIN { MIN } else { x };
    let clamped = if clamped > MAX { MAX } else { clamped };
    let shifted = clamped.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    // Taylor series up to r¹³ / 13!: the next term is below 2⁻⁵⁷ for |r| <= ln 2 / 2.
    let mut p = INVERSE_FACTORIALS[0];
    for factor in &INVERSE_FACTORIALS[1..] {
        p = p.mul_add(r, *factor);
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x < MIN { 0.0 } else { p * power }
}

/// 1 / 13!, …, 1 / 1!, 1 / 0!
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut factors = [1.0; 14];
    let (mut i, mut factorial) = (1, 1.0);
    while i < 14 {
        factorial *= i as f64;
        factors[13 - i] = 1.0 / factorial;
        i += 1;
    }
    factors
};

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
            for isa in Isa::available() {
                assert!((log_sum_exp_with(isa, &row) - want).abs() < 2e-7, "{width}");
                assert_eq!(log_sum_exp_with(isa, &row).to_bits(), log_sum_exp(&row).to_bits());
            }
        }
    }

    #[test]
    fn weights_are_within_two_units_in_the_last_place_of_f64_on_every_instruction_set() {
        let row: Vec<f32> = values(20_001, 6).iter().map(|v| v * 300.0).collect();
        let mut out = vec![9.0; 3];
        for temperature in [0.9, 2.0, 0.43] {
            exp_weights(&row, 300.0, temperature, &mut out);
            assert_eq!(out.len(), row.len());
            for (value, got) in row.iter().zip(&out) {
                let x = (f64::from(*value) - 300.0) / f64::from(temperature);
                let want = if x < -708.0 { 0.0 } else { x.exp() };
                assert!((got - want).abs() <= 2.0 * f64::EPSILON * want, "e^{x} is {want}, not {got}");
            }
            for isa in Isa::available() {
                let mut again = vec![0.0; row.len()];
                exp_weights_with(isa, &row, 300.0, f64::from(temperature), &mut again);
                assert!(again.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
        exp_weights(&[5.0, 5.0, f32::MIN], 5.0, 1e-30, &mut out);
        assert_eq!(out, [1.0, 1.0, 0.0]);
    }
}
