//! Working memory of passes, kept from pass to pass so that none waits for fresh pages.

use kernels::{KvBlocks, KvStorage};

use crate::model::ModelConfig;

/// Buffers that are free, and the keys and values of one layer.
#[derive(Default)]
pub(super) struct Memory {
    free: Vec<Vec<f32>>,
    cache: Option<KvBlocks>,
    blocks: usize,
}

impl Memory {
    /// A buffer of `len` numbers, whatever they are.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        let fits = self.free.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= len);
        let mut buffer = match fits.min_by_key(|(_, buffer)| buffer.capacity()).map(|(index, _)| index) {
            Some(index) => self.free.swap_remove(index),
            None => Vec::with_capacity(len),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    /// A buffer that holds `values`.
    pub fn copy(&mut self, values: &[f32]) -> Vec<f32> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    pub fn give(&mut self, buffer: Vec<f32>) {
        self.free.push(buffer);
    }

    /// Room for keys and values of one layer in `blocks` blocks.
    pub fn cache(&mut self, config: &ModelConfig, blocks: usize) -> &mut KvBlocks {
        if self.blocks < blocks {
            (self.cache, self.blocks) = (None, blocks);
        }
        let blocks = self.blocks;
        self.cache.get_or_insert_with(|| KvBlocks::new(blocks, config.kv_heads, config.head_dim, KvStorage::F32))
    }
}
