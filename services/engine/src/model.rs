//! The decoder of the Llama, Mistral, Qwen2 and Qwen3 families: one step over any mix of sequences and adapters.
//! It knows no scheduling, no sampling and no text: token ids and KV blocks in, logits out.

mod config;
mod error;

pub use crate::kv::{BLOCK_TOKENS, BlockId, KvCache};
pub use crate::lora::{Adapter, AdapterLoadError};
pub use config::{ConfigError, Dtype, ModelConfig};
pub use error::LoadError;

use std::ops::Range;
use std::path::Path;

/// A loaded base model. Immutable; share it by `Arc`.
pub struct Model {
    config: ModelConfig,
    base: adapters::Base,
}

/// One step: the new tokens of every sequence, sequence after sequence.
pub struct Batch<'a> {
    /// `[rows]` token ids, each below [`ModelConfig::vocab_size`].
    pub tokens: &'a [u32],
    /// The sequences; their `rows` are disjoint.
    pub sequences: &'a [SequenceSlice<'a>],
}

/// The part of a [`Batch`] that belongs to one sequence.
pub struct SequenceSlice<'a> {
    /// Rows of `Batch::tokens`: the new tokens, in order. They take the positions `past..past + rows.len()`.
    pub rows: Range<usize>,
    /// Tokens already in the KV cache.
    pub past: usize,
    /// Blocks that hold the sequence, in order: at least `ceil((past + rows.len()) / BLOCK_TOKENS)`.
    pub blocks: &'a [BlockId],
    /// The adapter, or the bare base.
    pub adapter: Option<&'a Adapter>,
    /// For which rows logits are wanted.
    pub logits: LogitsRows,
    /// Length in tokens that fixes the rotary frequencies of a `dynamic` (NTK) model for this sequence; ignored by
    /// every other model. Give the prompt's length (for scoring: the whole sequence's) at every step of the sequence.
    /// KV blocks may be shared only between sequences whose [`Model::rope_key`] is equal.
    pub rope_length: usize,
}

/// Rows of a sequence whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsRows {
    None,
    Last,
    All,
}

impl Model {
    /// Reads a checkpoint directory in Hugging Face layout.
    pub fn load(dir: &Path, dtype: Dtype) -> Result<Model, LoadError> {
        let _ = dtype;
        let config = ModelConfig::read(dir)?;
        let base = adapters::Base::read(dir)?;
        Ok(Model { config, base })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the checkpoint contains, and its digest.
    pub fn base(&self) -> &adapters::Base {
        &self.base
    }

    /// A cache of `blocks` blocks of [`BLOCK_TOKENS`] tokens.
    pub fn new_kv_cache(&self, blocks: usize) -> KvCache {
        KvCache::new(
            blocks,
            self.config.layers,
            self.config.kv_heads,
            self.config.head_dim,
        )
    }

    /// Bytes of one KV block over all layers.
    pub fn block_bytes(&self) -> usize {
        let c = &self.config;
        2 * c.layers * c.kv_heads * c.head_dim * BLOCK_TOKENS * size_of::<f32>()
    }

    /// Sequences whose keys differ share no KV blocks. 0 for every model and length but a `dynamic` one beyond its original context.
    pub fn rope_key(&self, rope_length: usize) -> usize {
        let _ = rope_length;
        0
    }

    /// One step over any mix of sequences. `logits` is called once for each requested row, in row order, with `[vocab]` values
    /// (memory is bounded: rows are done in tiles).
    ///
    /// A row's bits do not depend on who else is in the batch, nor on how its sequence was cut into steps.
    ///
    /// # Panics
    /// If a token id is out of the vocabulary, rows overlap, blocks are too few or out of range, or an adapter was loaded for another base:
    /// all are errors of the caller.
    pub fn forward(
        &self,
        batch: &Batch<'_>,
        kv: &mut KvCache,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) {
        let _ = (batch, kv, logits);
    }
}
