//! Keys and values of one layer in blocks of 16 tokens. Who holds which block is decided elsewhere.

/// Tokens in one block: one vector of scores.
pub const BLOCK_TOKENS: usize = crate::LANES;

/// Index of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Keys and values of one layer, f32.
pub struct KvBlocks {
    kv_heads: usize,
    head_dim: usize,
    /// `[block][kv head][head_dim][BLOCK_TOKENS]`: one dimension of 16 tokens side by side, so scores of a block are one vector.
    keys: Vec<f32>,
    /// `[block][kv head][BLOCK_TOKENS][head_dim]`.
    values: Vec<f32>,
}

impl KvBlocks {
    /// Zeroed memory for `blocks` blocks. The operating system hands out the pages when they are first written.
    pub fn new(blocks: usize, kv_heads: usize, head_dim: usize) -> Self {
        let size = blocks * kv_heads * head_dim * BLOCK_TOKENS;
        KvBlocks { kv_heads, head_dim, keys: vec![0.0; size], values: vec![0.0; size] }
    }

    /// Puts one token's `key` and `value`, each `[kv_heads, head_dim]`, into place `slot` of `block`.
    pub fn write(&mut self, block: BlockId, slot: usize, key: &[f32], value: &[f32]) {
        assert!(slot < BLOCK_TOKENS, "slot {slot} of a block");
        assert!(key.len() == self.kv_heads * self.head_dim && value.len() == key.len(), "one token's key and value");
        for head in 0..self.kv_heads {
            let at = self.offset(block, head);
            let part = head * self.head_dim..(head + 1) * self.head_dim;
            let keys = &mut self.keys[at..][..self.head_dim * BLOCK_TOKENS];
            for (lanes, key) in keys.chunks_exact_mut(BLOCK_TOKENS).zip(&key[part.clone()]) {
                lanes[slot] = *key;
            }
            self.values[at + slot * self.head_dim..][..self.head_dim].copy_from_slice(&value[part]);
        }
    }

    /// `[head_dim, BLOCK_TOKENS]`
    pub(crate) fn keys(&self, block: BlockId, head: usize) -> &[f32] {
        &self.keys[self.offset(block, head)..][..self.head_dim * BLOCK_TOKENS]
    }

    /// `[BLOCK_TOKENS, head_dim]`
    pub(crate) fn values(&self, block: BlockId, head: usize) -> &[f32] {
        &self.values[self.offset(block, head)..][..self.head_dim * BLOCK_TOKENS]
    }

    pub(crate) fn fits(&self, kv_heads: usize, head_dim: usize) -> bool {
        self.kv_heads == kv_heads && self.head_dim == head_dim
    }

    fn offset(&self, block: BlockId, head: usize) -> usize {
        (block.0 as usize * self.kv_heads + head) * self.head_dim * BLOCK_TOKENS
    }
}
