//! One panel: from 16 rows of f32 to its lines, and back.

mod int8;

use half::f16;

use super::Storage;
use super::layout::{GROUP, LINE, PANEL};
use crate::input::round_bf16;
use crate::isa::Isa;

/// Packs `rows` `[16, depth]` into the lines and, for int8, the scales of a panel.
pub fn panel(isa: Isa, storage: Storage, rows: &[f32], depth: usize, values: &mut [u8], scales: &mut [u8]) {
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
        Storage::Int8 => int8::panel(isa, rows, depth, lines, scales.as_chunks_mut().0),
    }
}

/// Packs up to 16 rows of `inputs` bf16 elements each into the lines of a panel as they are.
pub fn panel_of_bf16(rows: &[u8], inputs: usize, values: &mut [u8]) {
    let lines = values.as_chunks_mut::<LINE>().0;
    let mut lanes: [&[[u8; 4]]; PANEL] = [&[]; PANEL];
    let mut last = [[0; 4]; PANEL];
    for (lane, row) in rows.chunks_exact(2 * inputs).enumerate() {
        let (words, rest) = row.as_chunks::<4>();
        lanes[lane] = words;
        last[lane][..rest.len()].copy_from_slice(rest);
    }
    let (whole, padding) = lines.split_at_mut(inputs / 2);
    if rows.len() == PANEL * 2 * inputs {
        interleave(&lanes, whole);
    } else {
        for (pair, line) in whole.iter_mut().enumerate() {
            for (bytes, words) in line.as_chunks_mut::<4>().0.iter_mut().zip(lanes) {
                *bytes = words.get(pair).copied().unwrap_or_default();
            }
        }
    }
    padding.as_flattened_mut().fill(0);
    if let (1, Some(line)) = (inputs % 2, padding.first_mut()) {
        line.as_chunks_mut::<4>().0.copy_from_slice(&last);
    }
}

/// Word `n` of every lane to line `n`: 16 words of a lane at a time, which is one line of its cache.
fn interleave(lanes: &[&[[u8; 4]]; PANEL], lines: &mut [[u8; LINE]]) {
    const BLOCK: usize = 16;
    let mut first = 0;
    let (blocks, rest) = lines.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for (lane, words) in lanes.iter().enumerate() {
            for (line, word) in block.iter_mut().zip(&words[first..first + BLOCK]) {
                line.as_chunks_mut::<4>().0[lane] = *word;
            }
        }
        first += BLOCK;
    }
    for (n, line) in rest.iter_mut().enumerate() {
        for (bytes, words) in line.as_chunks_mut::<4>().0.iter_mut().zip(lanes) {
            *bytes = words[first + n];
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
            let groups = lines.chunks(GROUP / 4).zip(scales.as_chunks::<{ 2 * PANEL }>().0);
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
