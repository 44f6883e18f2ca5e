//! The inventory of a base model: which modules it has, of what sizes, and the digest of its content. It is all that
//! judging an adapter needs, and it travels as JSON to processes that never hold the weights.
//!
//! It does not load weights, and leaves what a config means to the arithmetic (RoPE, norms, windows) to the engine.

mod checkpoint;
mod family;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::container::ContainerError;
use crate::dtype::Dtype;

pub use family::ModelType;

/// The inventory of a base model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    digest: Digest,
    /// Names under which adapters may call this base, as the operator declared them. Not part of the digest.
    #[serde(default)]
    names: Vec<String>,
    model_type: ModelType,
    layers: usize,
    hidden_size: usize,
    vocab_size: usize,
    tied_embeddings: bool,
    modules: BTreeMap<String, Module>,
    /// Values of `model.embed_tokens` and `lm_head`, to recognise unchanged copies of them.
    content: BTreeMap<String, ContentDigests>,
}

/// A module of the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    pub kind: ModuleKind,
    /// Element type in the checkpoint.
    pub dtype: Dtype,
}

/// What a module computes, and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ModuleKind {
    /// Weight `[out_features, in_features]`, and `[out_features]` if it has a bias.
    Linear { in_features: usize, out_features: usize, bias: bool },
    /// Weight `[vocab, dim]`.
    Embedding { vocab: usize, dim: usize },
    /// Weight `[dim]`.
    Norm { dim: usize },
}

/// Digests of the values of one weight in each of the element types of adapters (rounded to nearest even).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentDigests {
    pub f32: Digest,
    pub f16: Digest,
    pub bf16: Digest,
}

/// Path of the input embedding in every supported family.
pub const EMBED_TOKENS: &str = "model.embed_tokens";
/// Path of the output layer in every supported family.
pub const LM_HEAD: &str = "lm_head";

/// Why a folder is not a base model that we serve.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {found} bytes, {limit} are allowed", path.display())]
    TooLarge { path: PathBuf, found: u64, limit: u64 },
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {source}", path.display())]
    Container { path: PathBuf, source: ContainerError },
    #[error("config.json: model_type `{0}` is not supported; llama, mistral, qwen2 and qwen3 are")]
    ModelType(String),
    #[error("config.json: {0}")]
    Config(String),
    #[error("the checkpoint: {0}")]
    Checkpoint(String),
}

impl Base {
    /// Reads a folder in Hugging Face layout: `config.json`, `tokenizer.json`, and `model.safetensors` or its shards
    /// with `model.safetensors.index.json`. Every byte of the weights is read once, to compute the digest.
    ///
    /// The digest covers `config.json` without `_name_or_path` and `transformers_version`, the tokenizer files
    /// (`tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`), and every tensor by name, element type,
    /// shape and bytes; it does not depend on how the tensors are spread over files.
    pub fn read(dir: &Path) -> Result<Base, BaseError> {
        checkpoint::read(dir)
    }

    /// The same base, under which adapters may be filed by one of `names` (as `base_model_name_or_path` states it).
    pub fn with_names(mut self, names: impl IntoIterator<Item = String>) -> Base {
        self.names.extend(names);
        self
    }

    /// Identity of the base by content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn model_type(&self) -> ModelType {
        self.model_type
    }

    pub fn layers(&self) -> usize {
        self.layers
    }

    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether the output layer is the input embedding.
    pub fn tied_embeddings(&self) -> bool {
        self.tied_embeddings
    }

    /// All modules by path, `lm_head` included even where it is tied.
    pub fn modules(&self) -> &BTreeMap<String, Module> {
        &self.modules
    }

    pub fn module(&self, path: &str) -> Option<&Module> {
        self.modules.get(path)
    }

    /// Digests of the weight of `model.embed_tokens` or `lm_head`.
    pub fn content(&self, path: &str) -> Option<&ContentDigests> {
        self.content.get(path)
    }
}

impl ModuleKind {
    /// Shape of the module's weight.
    pub fn weight_shape(self) -> Vec<usize> {
        match self {
            ModuleKind::Linear { in_features, out_features, .. } => vec![out_features, in_features],
            ModuleKind::Embedding { vocab, dim } => vec![vocab, dim],
            ModuleKind::Norm { dim } => vec![dim],
        }
    }
}

impl ContentDigests {
    /// The digest for copies kept as `dtype`; `None` for types that adapters do not use.
    pub fn for_dtype(&self, dtype: Dtype) -> Option<Digest> {
        match dtype {
            Dtype::F32 => Some(self.f32),
            Dtype::F16 => Some(self.f16),
            Dtype::BF16 => Some(self.bf16),
            _ => None,
        }
    }
}
