//! Keys and values of one layer in blocks of 16 tokens. Who holds which block is decided elsewhere.
//!
//! What a block held before stays in it: readers mask the tokens that they must not see.

mod memory;

use std::ops::Range;

use half::bf16;
use pulp::bytemuck::Pod;
use serde::{Deserialize, Serialize};

use crate::LANES;
use crate::cpu::Cpu;
use crate::split::Split;
use memory::Memory;

/// Tokens in one block: one vector of scores.
pub const BLOCK_TOKENS: usize = LANES;
/// Elements of keys and values from which on rows are written by several threads.
const PARALLEL_ELEMENTS: usize = 4096;

/// Index of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvStorage {
    F32,
    /// Rounded to nearest even.
    Bf16,
}

/// Keys and values of one layer.
pub struct KvBlocks {
    kv_heads: usize,
    head_dim: usize,
    pub(crate) data: Data,
}

/// Per block and key-value head: keys dimension by dimension with 16 tokens side by side, so that the scores of a block are
/// one vector, and values token by token. Dimensions of keys are rounded up to pairs and those of values to whole vectors;
/// the padding is never written and stays zero.
pub(crate) enum Data {
    /// Keys `[dimension][token]`, values `[token][dimension]`.
    F32(Blocks<f32>),
    /// Two neighbours in a word, the even one in its low half. Keys `[dimension / 2][token]` of pairs of dimensions, values
    /// `[token / 2][dimension]` of pairs of tokens: the operands of products of bf16.
    Bf16(Blocks<u32>),
}

pub(crate) struct Blocks<T> {
    kv_heads: usize,
    /// Elements of one block and head.
    key_size: usize,
    value_size: usize,
    /// `[block][kv head]` of keys, then values: side by side, they share a page.
    data: Memory<T>,
}

impl KvBlocks {
    /// Zeroed memory for `blocks` blocks. The operating system hands out the pages when they are first written.
    pub fn new(blocks: usize, kv_heads: usize, head_dim: usize, storage: KvStorage) -> Self {
        assert!(kv_heads > 0 && head_dim > 0, "heads of a cache");
        let keys = head_dim.next_multiple_of(2) * BLOCK_TOKENS;
        let values = padded(head_dim) * BLOCK_TOKENS;
        let data = match storage {
            KvStorage::F32 => Data::F32(Blocks::new(blocks, kv_heads, keys, values)),
            KvStorage::Bf16 => Data::Bf16(Blocks::new(blocks, kv_heads, keys / 2, values / 2)),
        };
        KvBlocks { kv_heads, head_dim, data }
    }

    pub fn storage(&self) -> KvStorage {
        match self.data {
            Data::F32(_) => KvStorage::F32,
            Data::Bf16(_) => KvStorage::Bf16,
        }
    }

    /// Memory of one block of one layer in such a cache.
    pub fn bytes_per_block(kv_heads: usize, head_dim: usize, storage: KvStorage) -> usize {
        let element = match storage {
            KvStorage::F32 => 4,
            KvStorage::Bf16 => 2,
        };
        kv_heads * (head_dim.next_multiple_of(2) + padded(head_dim)) * BLOCK_TOKENS * element
    }

    /// Puts row `r` of `keys` and `values`, both `[rows, kv_heads, head_dim]`, into block and slot `places[r]`.
    /// Of two rows for one place the later one stays.
    pub fn write_rows(&mut self, cpu: &Cpu, keys: &[f32], values: &[f32], places: &[(BlockId, usize)]) {
        let width = self.kv_heads * self.head_dim;
        assert!(keys.len() == places.len() * width && values.len() == keys.len(), "one key and value for each place");
        assert!(places.iter().all(|(_, slot)| *slot < BLOCK_TOKENS), "slots of a block");
        let rows = Rows { head_dim: self.head_dim, width, keys, values, places };
        match &mut self.data {
            Data::F32(blocks) => blocks.write(cpu, &rows, write_f32),
            Data::Bf16(blocks) => blocks.write(cpu, &rows, write_bf16),
        }
    }

    pub(crate) fn fits(&self, kv_heads: usize, head_dim: usize) -> bool {
        self.kv_heads == kv_heads && self.head_dim == head_dim
    }
}

/// Dimensions of a value with its padding.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

struct Rows<'a> {
    head_dim: usize,
    width: usize,
    keys: &'a [f32],
    values: &'a [f32],
    places: &'a [(BlockId, usize)],
}

/// Writes key and value of one head of one token to a slot of a block, `(slot, key, value, keys, values)`.
type WriteToken<T> = fn(usize, &[f32], &[f32], &mut [T], &mut [T]);

impl<T: Pod + Send> Blocks<T> {
    fn new(blocks: usize, kv_heads: usize, key_size: usize, value_size: usize) -> Self {
        let data = Memory::zeroed(blocks * kv_heads * (key_size + value_size));
        Blocks { kv_heads, key_size, value_size, data }
    }

    /// Keys of one block and head.
    pub fn keys(&self, block: BlockId, head: usize) -> &[T] {
        &self.data[self.start(block, head)..][..self.key_size]
    }

    /// Values of one block and head.
    pub fn values(&self, block: BlockId, head: usize) -> &[T] {
        &self.data[self.start(block, head) + self.key_size..][..self.value_size]
    }

    fn start(&self, block: BlockId, head: usize) -> usize {
        (block.0 as usize * self.kv_heads + head) * (self.key_size + self.value_size)
    }

    /// A run of rows of one block is one task.
    fn write(&mut self, cpu: &Cpu, rows: &Rows<'_>, token: WriteToken<T>) {
        let runs: Vec<_> = rows.places.chunk_by(|a, b| a.0 == b.0).collect();
        let mut starts = Vec::with_capacity(runs.len());
        let mut start = 0;
        for run in &runs {
            starts.push(start..start + run.len());
            start += run.len();
        }
        let mut blocks: Vec<_> = runs.iter().map(|run| run[0].0).collect();
        blocks.sort_unstable();
        let apart = blocks.windows(2).all(|pair| pair[0] != pair[1]);
        let (kv_heads, key_size) = (self.kv_heads, self.key_size);
        let size = key_size + self.value_size;
        let data = Split::new(&mut self.data);
        let write = |run: usize| {
            let first = runs[run][0].0.0 as usize * kv_heads;
            for head in 0..kv_heads {
                // SAFETY: a block belongs to one run, or the runs go one after the other.
                let data = unsafe { data.part((first + head) * size..(first + head + 1) * size) };
                let (keys, values) = data.split_at_mut(key_size);
                for row in starts[run].clone() {
                    let part = rows.part(row, head);
                    token(rows.places[row].1, &rows.keys[part.clone()], &rows.values[part], keys, values);
                }
            }
        };
        if apart && rows.keys.len() + rows.values.len() >= PARALLEL_ELEMENTS {
            cpu.each(runs.len(), write);
        } else {
            (0..runs.len()).for_each(write);
        }
    }
}

impl Rows<'_> {
    fn part(&self, row: usize, head: usize) -> Range<usize> {
        let first = row * self.width + head * self.head_dim;
        first..first + self.head_dim
    }
}

fn write_f32(slot: usize, key: &[f32], value: &[f32], keys: &mut [f32], values: &mut [f32]) {
    for (lanes, key) in keys.chunks_exact_mut(BLOCK_TOKENS).zip(key) {
        lanes[slot] = *key;
    }
    values[slot * padded(value.len())..][..value.len()].copy_from_slice(value);
}

fn write_bf16(slot: usize, key: &[f32], value: &[f32], keys: &mut [u32], values: &mut [u32]) {
    let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    for (lanes, pair) in keys.chunks_exact_mut(BLOCK_TOKENS).zip(key.chunks(2)) {
        lanes[slot] = bits(pair[0]) | bits(pair.get(1).copied().unwrap_or(0.0)) << 16;
    }
    let shift = slot % 2 * 16;
    let row = &mut values[slot / 2 * padded(value.len())..][..value.len()];
    for (word, value) in row.iter_mut().zip(value) {
        *word = *word & !(0xffff << shift) | bits(*value) << shift;
    }
}

#[cfg(test)]
mod tests;
