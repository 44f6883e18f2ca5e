//! One panel to int8. Plain Rust, compiled for each width of registers; every one gives the same bits.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::isa::Isa;
use crate::matrix::layout::{GROUP, LINE, PANEL};

/// Added to a number of magnitude below 2²², it leaves the number, rounded to nearest even, in the low bits.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2^23

/// The scales of one group of a panel, f16.
type Scales = [u8; 2 * PANEL];

/// Quantises `rows` `[16, depth]` into `lines` `[depth / 4]` and the `scales` of each group.
pub fn panel(isa: Isa, rows: &[f32], depth: usize, lines: &mut [[u8; LINE]], scales: &mut [Scales]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions, or the `Cpu` would not have them.
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => unsafe { panel_avx512(rows, depth, lines, scales) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { panel_avx2(rows, depth, lines, scales) },
        _ => panel_plain(rows, depth, lines, scales),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn panel_avx512(rows: &[f32], depth: usize, lines: &mut [[u8; LINE]], scales: &mut [Scales]) {
    panel_plain(rows, depth, lines, scales);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn panel_avx2(rows: &[f32], depth: usize, lines: &mut [[u8; LINE]], scales: &mut [Scales]) {
    panel_plain(rows, depth, lines, scales);
}

#[inline(always)]
fn panel_plain(rows: &[f32], depth: usize, lines: &mut [[u8; LINE]], scales: &mut [Scales]) {
    for (i, (lines, scales)) in lines.chunks_mut(GROUP / 4).zip(scales).enumerate() {
        let rows = &rows[i * GROUP..];
        match 4 * lines.len() {
            ..=16 => group::<16>(rows, depth, lines, scales),
            17..=32 => group::<32>(rows, depth, lines, scales),
            _ => group::<GROUP>(rows, depth, lines, scales),
        }
    }
}

/// One group of up to `N` inputs; that of lane `l` begins at `rows[l · depth]`.
#[inline(always)]
fn group<const N: usize>(rows: &[f32], depth: usize, lines: &mut [[u8; LINE]], scales: &mut Scales) {
    let length = 4 * lines.len();
    let lane = |lane: usize| rows[lane * depth..].first_chunk::<N>();
    if length == N {
        // Whole: every lane has as many.
        return whole_group::<N>(std::array::from_fn(|l| lane(l).unwrap_or(&[0.0; N])), lines, scales);
    }
    let mut padded = [[0.0; N]; PANEL];
    for (lane, padded) in padded.iter_mut().enumerate() {
        padded[..length].copy_from_slice(&rows[lane * depth..][..length]);
    }
    whole_group::<N>(padded.each_ref(), lines, scales);
}

#[inline(always)]
fn whole_group<const N: usize>(lanes: [&[f32; N]; PANEL], lines: &mut [[u8; LINE]], scales: &mut Scales) {
    let mut largest = [0.0; PANEL];
    for (largest, values) in largest.iter_mut().zip(lanes) {
        *largest = magnitude(values);
    }
    let steps = steps(&largest, scales);
    for (lane, values) in lanes.into_iter().enumerate() {
        let quantised = quantise(values, steps[lane]);
        for (line, four) in lines.iter_mut().zip(quantised.as_chunks::<4>().0) {
            line.as_chunks_mut::<4>().0[lane] = *four;
        }
    }
}

/// The largest magnitude; not finite if a value is not.
#[inline(always)]
fn magnitude<const N: usize>(values: &[f32; N]) -> f32 {
    let mut largest = 0;
    for value in values {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(largest)
}

/// The scales of 16 outputs: 1/127 of the largest magnitude, rounded to an f16 that does not cut off the largest value. NaN
/// if a value is not finite.
#[inline(always)]
fn steps(largest: &[f32; PANEL], scales: &mut Scales) -> [f32; PANEL] {
    let mut halves = [f16::ZERO; PANEL];
    let mut steps = *largest;
    steps.iter_mut().for_each(|step| *step /= 127.0);
    halves.convert_from_f32_slice(&steps);
    halves.convert_to_f32_slice(&mut steps);
    for lane in 0..PANEL {
        let exact = if !largest[lane].is_finite() {
            f16::NAN
        } else if steps[lane] * 127.5 < largest[lane] {
            // Only scales below the normal range of f16 are rounded as far down as that.
            f16::from_bits(halves[lane].to_bits() + 1)
        } else {
            continue;
        };
        (halves[lane], steps[lane]) = (exact, exact.to_f32());
    }
    for (bytes, half) in scales.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
        *bytes = half.to_le_bytes();
    }
    steps
}

/// In steps of `step`, to nearest even; the value + 128. All zeros if the step is zero or not a number.
#[inline(always)]
fn quantise<const N: usize>(values: &[f32; N], step: f32) -> [u8; N] {
    let mut out = [128; N];
    if step > 0.0 {
        let mut steps = [0; N];
        for (steps, value) in steps.iter_mut().zip(values) {
            // At most 127.5 in magnitude: the step does not cut off the largest value.
            *steps = ((value / step + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32).clamp(-127, 127) + 128;
        }
        for (out, steps) in out.iter_mut().zip(steps) {
            *out = steps as u8;
        }
    }
    out
}
