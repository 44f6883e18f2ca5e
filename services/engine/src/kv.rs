//! The paged KV cache of one model: keys and values in blocks of [`BLOCK_TOKENS`] tokens, per layer, and the working
//! memory of the steps over them. Who holds which block, prefix sharing and eviction are decided elsewhere.

pub use kernels::{BLOCK_TOKENS, BlockId};
use kernels::{KvBlocks, KvStorage};

use crate::model::Scratch;

/// Keys and values of all layers.
pub struct KvCache {
    blocks: usize,
    pub(crate) layers: Vec<KvBlocks>,
    pub(crate) scratch: Scratch,
}

impl KvCache {
    /// Zeroed memory for `blocks` blocks of `layers` layers. The operating system hands out the pages when they are first written.
    pub(crate) fn new(blocks: usize, layers: usize, kv_heads: usize, head_dim: usize, storage: KvStorage) -> Self {
        let layer = || KvBlocks::new(blocks, kv_heads, head_dim, storage);
        Self { blocks, layers: (0..layers).map(|_| layer()).collect(), scratch: Scratch::default() }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}
