//! One row: to bf16, to int8. Plain Rust, compiled for each width of registers; every one gives the same bits.

use super::Group;
use crate::isa::Isa;
use crate::matrix::GROUP;

/// Below it, a group counts as zeros: what is divided by is far from overflow.
const TINY: f32 = 7.888_609e-31; // 2^-100
/// Added to a number of magnitude below 2²², it leaves the number, rounded to nearest even, in the low bits.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2^23

/// To nearest even. A NaN stays one.
#[inline(always)]
pub fn round_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if nan { bits | 0x0040_0000 } else { rounded } >> 16) as u16
}

/// Rounds `x` `[width]` into `out`: bf16 from `Isa::Avx512Bf16` on, else f32; what lies behind `width` becomes zeros.
pub fn bf16(isa: Isa, x: &[f32], out: &mut [u8]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions, or the `Cpu` would not have them.
        Isa::Amx | Isa::Avx512Bf16 => unsafe { bf16_words_avx512(x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { bf16_wide_avx512(x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { bf16_wide_avx2(x, out) },
        _ => bf16_wide(x, out),
    }
}

/// Quantises `x` `[width]` into `out` `[depth]` i8 and `groups`, one for each 64 or the rest; what lies behind `width`
/// becomes zeros.
pub fn int8(isa: Isa, x: &[f32], out: &mut [u8], groups: &mut [Group]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has these instructions, or the `Cpu` would not have them.
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => unsafe { int8_avx512(x, out, groups) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { int8_avx2(x, out, groups) },
        _ => int8_plain(x, out, groups),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn bf16_words_avx512(x: &[f32], out: &mut [u8]) {
    bf16_words(x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn bf16_wide_avx512(x: &[f32], out: &mut [u8]) {
    bf16_wide(x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn bf16_wide_avx2(x: &[f32], out: &mut [u8]) {
    bf16_wide(x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn int8_avx512(x: &[f32], out: &mut [u8], groups: &mut [Group]) {
    int8_plain(x, out, groups);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn int8_avx2(x: &[f32], out: &mut [u8], groups: &mut [Group]) {
    int8_plain(x, out, groups);
}

#[inline(always)]
fn bf16_words(x: &[f32], out: &mut [u8]) {
    let (values, padding) = out.split_at_mut(2 * x.len());
    for (out, value) in values.as_chunks_mut::<2>().0.iter_mut().zip(x) {
        *out = round_bf16(*value).to_ne_bytes();
    }
    padding.fill(0);
}

#[inline(always)]
fn bf16_wide(x: &[f32], out: &mut [u8]) {
    let (values, padding) = out.split_at_mut(4 * x.len());
    for (out, value) in values.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        *out = (u32::from(round_bf16(*value)) << 16).to_ne_bytes();
    }
    padding.fill(0);
}

#[inline(always)]
fn int8_plain(x: &[f32], out: &mut [u8], groups: &mut [Group]) {
    let (whole, rest) = x.as_chunks::<GROUP>();
    let (out, last) = out.split_at_mut(whole.len() * GROUP);
    for ((x, out), group) in whole.iter().zip(out.as_chunks_mut::<GROUP>().0).zip(groups.iter_mut()) {
        *group = quantise(x, out);
    }
    if !rest.is_empty() {
        let (mut padded, mut values) = ([0.0; GROUP], [0; GROUP]);
        padded[..rest.len()].copy_from_slice(rest);
        groups[whole.len()] = quantise(&padded, &mut values);
        // Up to 64 inputs are padded to less than a group.
        last.copy_from_slice(&values[..last.len()]);
    }
}

#[inline(always)]
fn quantise(x: &[f32; GROUP], out: &mut [u8; GROUP]) -> Group {
    let mut largest = 0;
    for value in x {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        out.fill(0);
        return Group { scale: f32::NAN, start: 0 };
    }
    if largest < TINY {
        out.fill(0);
        return Group { scale: 0.0, start: 0 };
    }
    let steps = 127.0 / largest;
    let mut sum = 0;
    for (out, value) in out.iter_mut().zip(x) {
        let value = (value * steps + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        *out = value as u8;
        sum += value;
    }
    Group { scale: largest / 127.0, start: -128 * sum }
}
