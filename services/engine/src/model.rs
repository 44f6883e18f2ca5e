//! The decoder of the Llama, Mistral, Qwen2 and Qwen3 families: one step over any mix of sequences and adapters.
//! It knows no scheduling, no sampling and no text: token ids and KV blocks in, logits out.

pub(crate) mod config;
mod error;
mod forward;
mod groups;
mod options;
mod positions;
mod random;
mod rope;
mod scratch;
mod weights;

pub use crate::kv::{BLOCK_TOKENS, BlockId, KvCache};
pub use crate::lora::{Adapter, AdapterLoadError};
pub use config::{Biases, ConfigError, ModelConfig};
pub use error::LoadError;
pub use kernels::{CpuConfig, Isa};
pub use options::{Dtype, KvDtype, ModelOptions};
pub(crate) use scratch::Scratch;
pub(crate) use weights::{Layer, Slot, TensorSource, Weights};

use std::ops::Range;
use std::path::Path;

use kernels::{Cpu, KvStorage, Matrix, Storage};

use crate::packed_base;

/// A loaded base model. Immutable; share it by `Arc`.
pub struct Model {
    config: ModelConfig,
    base: adapters::Base,
    weights: Weights,
    dtype: Dtype,
    adapter_storage: Storage,
    kv_storage: KvStorage,
    cpu: Cpu,
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
    /// The last n rows, or all where there are fewer.
    LastN(usize),
    All,
}

impl Model {
    /// Reads a checkpoint directory in Hugging Face layout: `config.json`, `generation_config.json` if present, one or
    /// many `.safetensors` files in f32, f16 or bf16, and the tokenizer (for the base's digest).
    pub fn load(dir: &Path, options: &ModelOptions) -> Result<Model, LoadError> {
        let cpu = Cpu::new(&options.cpu).map_err(LoadError::Cpu)?;
        let config = ModelConfig::read(dir)?;
        let (base, weights) = packed_base::load(dir, &config, options, &cpu)?;
        let (adapter_storage, kv_storage) = (options.adapter_storage(), options.kv_storage());
        Ok(Model { config, base, weights, dtype: options.dtype, adapter_storage, kv_storage, cpu })
    }

    /// Threads and instructions of its steps.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How the matrices that adapters bring are held.
    pub(crate) fn adapter_storage(&self) -> Storage {
        self.adapter_storage
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
        let c = &self.config;
        KvCache::new(blocks, c.layers, c.kv_heads, c.head_dim, self.kv_storage)
    }

    /// Bytes of one KV block over all layers.
    pub fn block_bytes(&self) -> usize {
        let c = &self.config;
        c.layers * kernels::KvBlocks::bytes_per_block(c.kv_heads, c.head_dim, self.kv_storage)
    }

    /// Bytes of the base weights in memory.
    pub fn bytes(&self) -> usize {
        let layers = self.weights.layers.iter().flat_map(|layer| &layer.linears).map(|linear| linear.weight.bytes());
        layers.sum::<usize>() + self.weights.embed.bytes() + self.weights.head.as_ref().map_or(0, Matrix::bytes)
    }

    /// Sequences whose keys differ share no KV blocks. 0 for every model and length but a `dynamic` one beyond its original context.
    pub fn rope_key(&self, rope_length: usize) -> usize {
        self.config.ropes.iter().map(|rope| rope.key(rope_length)).max().unwrap_or(0)
    }

    /// One step over any mix of sequences. `logits` is called with the requested rows in ascending order, some at a time,
    /// and their `[rows, vocab]` values (memory is bounded: rows are done in tiles).
    ///
    /// A row's bits do not depend on who else is in the batch, nor on how its sequence was cut into steps.
    ///
    /// # Panics
    /// If a token id is out of the vocabulary, rows overlap, blocks are too few or out of range, or an adapter was loaded for another base:
    /// all are errors of the caller.
    pub fn forward(&self, batch: &Batch<'_>, kv: &mut KvCache, logits: &mut dyn FnMut(&[usize], &[f32])) {
        forward::forward(self, batch, kv, logits);
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The weight of a linear layer by its path in the checkpoint, `lm_head` included.
    pub(crate) fn linear_weight(&self, path: &str) -> Option<&Matrix> {
        if path == "lm_head" {
            return Some(self.weights.head());
        }
        let (layer, slot) = crate::lora::parse_path(path)?;
        Some(&self.weights.layers.get(layer)?.linear(slot).weight)
    }
}
