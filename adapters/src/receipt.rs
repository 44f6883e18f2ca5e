//! What was loaded, in numbers: the record kept with each version, which `inspect` prints.

use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::plan::Note;

/// The load receipt of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub digest: Digest,
    pub base_digest: Digest,
    /// PEFT release that wrote the config, where it says so.
    pub peft_version: Option<String>,
    pub rank_max: usize,
    /// Numbers in all tensors that are used.
    pub parameters: u64,
    /// Bytes of all tensors that are used.
    pub bytes: u64,
    /// Frobenius norm of all changes together.
    pub delta_norm: f64,
    pub modules: Vec<ModuleReceipt>,
    pub private: Vec<PrivateReceipt>,
    /// Modules whose bias is replaced.
    pub biases: Vec<String>,
    pub notes: Vec<Note>,
}

/// One low-rank change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleReceipt {
    pub module: String,
    /// `lora` or `dora`.
    pub variant: Variant,
    pub rank: usize,
    pub alpha: f64,
    pub scale: f64,
    pub dtype: Dtype,
    /// Whether B has a bias.
    pub lora_bias: bool,
    /// Frobenius norm of `scale · B A`.
    pub delta_norm: f64,
}

/// The arithmetic of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    Lora,
    Dora,
}

/// One private module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivateReceipt {
    pub module: String,
    pub dtype: Dtype,
    pub bytes: u64,
}
