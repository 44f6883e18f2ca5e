//! `config.json` of a checkpoint, read strictly: what we do not implement is refused, never guessed.

use std::path::{Path, PathBuf};

/// In which type the base weights are held. Activations, KV cache and adapters are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
}

/// The shape of a model and the constants of its mathematics.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions that the model may be asked for (`max_position_embeddings`).
    pub context_length: usize,
    pub bos_token_id: Option<u32>,
    /// From `generation_config.json` where it says so, else from `config.json`.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// The widest look-back of any layer in tokens; `None` if a layer looks back without limit.
    pub sliding_window: Option<usize>,
}

/// Why a `config.json` is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{file}: {message}")]
    Refused { file: String, message: String },
}

impl ModelConfig {
    /// Reads `config.json` and, if present, `generation_config.json` of `dir`.
    pub fn read(dir: &Path) -> Result<ModelConfig, ConfigError> {
        let path = dir.join("config.json");
        std::fs::read(&path).map_err(|source| ConfigError::Io { path, source })?;
        Err(ConfigError::Refused {
            file: "config.json".into(),
            message: String::new(),
        })
    }
}
