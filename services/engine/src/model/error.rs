//! Why a checkpoint cannot be loaded.

use std::path::PathBuf;

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    #[error(transparent)]
    Base(#[from] adapters::BaseError),
    #[error("threads: {0}")]
    Cpu(#[source] std::io::Error),
    #[error("{file}: {message}")]
    Checkpoint { file: String, message: String },
}
