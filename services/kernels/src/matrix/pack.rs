//! One panel: from 16 rows of f32 to its lines, and back.

use half::f16;

use super::Storage;
use super::layout::{GROUP, LINE, PANEL};
use crate::input::round_bf16;

/// Packs `rows` `[16, depth]` into the lines and, for int8, the scales of a panel.
pub fn panel(storage: Storage, rows: &[f32], depth: usize, values: &mut [u8], scales: &mut [u8]) {
    let lines = values.as_chunks_mut::<LINE>().0;
    match storage {
        Storage::F32 => {
            for (k, line) in lines.iter_mut().enumerate() {
                for (lane, bytes) in line.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *bytes = rows[lane * depth + k].to_le_bytes();
                }
            }
        }
        Storage::Bf16 => {
            for (pair, line) in lines.iter_mut().enumerate() {
                for (lane, bytes) in line.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let [low, high] = [0, 1].map(|i| u32::from(round_bf16(rows[lane * depth + 2 * pair + i])));
                    *bytes = (low | high << 16).to_le_bytes();
                }
            }
        }
        Storage::Int8 => {
            let groups = lines.chunks_exact_mut(GROUP / 4).zip(scales.as_chunks_mut::<{ 2 * PANEL }>().0);
            for (group, (lines, scales)) in groups.enumerate() {
                for (lane, bytes) in scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let values = &rows[lane * depth + group * GROUP..][..GROUP];
                    let scale = scale(values);
                    *bytes = scale.to_le_bytes();
                    for (line, four) in lines.iter_mut().zip(values.as_chunks::<4>().0) {
                        line.as_chunks_mut::<4>().0[lane] = four.map(|value| quantise(value, scale.to_f32()));
                    }
                }
            }
        }
    }
}

/// Row `lane` of a panel as f32.
pub fn read_row(storage: Storage, values: &[u8], scales: &[u8], lane: usize, out: &mut [f32]) {
    let lines = values.as_chunks::<LINE>().0;
    let word = |line: &[u8; LINE]| line.as_chunks::<4>().0[lane];
    match storage {
        Storage::F32 => {
            for (line, value) in lines.iter().zip(out) {
                *value = f32::from_le_bytes(word(line));
            }
        }
        Storage::Bf16 => {
            for (line, pair) in lines.iter().zip(out.chunks_mut(2)) {
                let word = u32::from_le_bytes(word(line));
                for (value, bits) in pair.iter_mut().zip([word << 16, word & 0xffff_0000]) {
                    *value = f32::from_bits(bits);
                }
            }
        }
        Storage::Int8 => {
            let groups = lines.chunks_exact(GROUP / 4).zip(scales.as_chunks::<{ 2 * PANEL }>().0);
            for ((lines, scales), group) in groups.zip(out.chunks_mut(GROUP)) {
                let scale = f16::from_le_bytes(scales.as_chunks::<2>().0[lane]).to_f32();
                for (line, four) in lines.iter().zip(group.chunks_mut(4)) {
                    for (value, byte) in four.iter_mut().zip(word(line)) {
                        *value = (i32::from(byte) - 128) as f32 * scale;
                    }
                }
            }
        }
    }
}

/// 1/127 of the largest magnitude, rounded to an f16 that does not cut off the largest value. NaN if a value is not finite.
fn scale(values: &[f32]) -> f16 {
    let bits = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    let largest = f32::from_bits(bits);
    if !largest.is_finite() {
        return f16::NAN;
    }
    let scale = f16::from_f32(largest / 127.0);
    // Only scales below the normal range of f16 are rounded as far down as that.
    if scale.to_f32() * 127.5 < largest { f16::from_bits(scale.to_bits() + 1) } else { scale }
}

fn quantise(value: f32, scale: f32) -> u8 {
    let steps = if scale > 0.0 { (value / scale).round_ties_even().clamp(-127.0, 127.0) } else { 0.0 };
    (steps as i32 + 128) as u8
}
