//! The paged KV cache of one model: keys and values in blocks of [`BLOCK_TOKENS`] tokens, per layer.
//! It owns memory only. Who holds which block, prefix sharing and eviction are decided elsewhere.

pub use kernels::{BLOCK_TOKENS, BlockId};

/// Keys and values of all layers, f32.
pub struct KvCache {
    blocks: usize,
    pub(crate) layers: Vec<kernels::KvBlocks>,
}

impl KvCache {
    /// Zeroed memory for `blocks` blocks of `layers` layers. The operating system hands out the pages when they are first written.
    pub fn new(blocks: usize, layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        let layer = || kernels::KvBlocks::new(blocks, kv_heads, head_dim);
        Self { blocks, layers: (0..layers).map(|_| layer()).collect() }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}
