//! Why something cannot be trained.

use adapters::Refusal;
use domain::Digest;

/// Why a run cannot begin, go on or be resumed. A run is as it was before the call that failed, unless stated otherwise.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("the adapter's config is refused: {}", .0.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join(" "))]
    Refused(Vec<Refusal>),
    #[error("{0} is not trained; plain low-rank changes are")]
    Unsupported(&'static str),
    #[error("{name} is {value}; {expected}")]
    Setting { name: &'static str, value: String, expected: &'static str },
    #[error("the run is for base {run}, this model is {model}")]
    OtherBase { run: Digest, model: Digest },
    /// Which part of the pass, and which of its sequences.
    #[error("part {part}, sequence {sequence}: {message}")]
    Sequence { part: usize, sequence: usize, message: String },
    /// No token of the part has a weight: there would be nothing to learn, and a loss of zero would hide it.
    #[error("part {part} has no token that is trained")]
    NothingTrained { part: usize },
    #[error("{found} tokens in one pass, {limit} are allowed")]
    TooManyTokens { found: usize, limit: usize },
    #[error("nothing was accumulated since step {step}")]
    NothingAccumulated { step: u64 },
    #[error("all {steps} steps of the run are done")]
    Finished { steps: u64 },
    /// The step is not made; what was accumulated for it is dropped.
    #[error("step {step}: the {what} is {value}, no number to go on with; lower the learning rate")]
    NotFinite { step: u64, what: &'static str, value: f64 },
    #[error("the saved run cannot be read: {0}")]
    State(String),
    #[error("no threads to train with: {0}")]
    Cpu(std::io::Error),
}
