//! The proof that an adapter fits a base: which tensor changes which module, with what scale. A plan exists
//! only if every tensor of the file is used. It holds names and numbers, not weights.

use std::collections::BTreeSet;
use std::ops::Range;

use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::base::ModuleKind;

/// How one adapter version acts on one base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Names the version: config, tensors and base.
    pub digest: Digest,
    pub base_digest: Digest,
    /// At most one for each module of the base, ordered by module path.
    pub modules: Vec<ModulePlan>,
    /// Modules that the tenant brings whole; ordered by module path.
    pub private: Vec<PrivateModule>,
    /// Biases that replace those of the base; ordered by module path.
    pub biases: Vec<BiasReplacement>,
    /// What the user should know though the adapter is accepted.
    pub notes: Vec<Note>,
    /// Bytes of all tensors that the plan uses.
    pub bytes: u64,
}

impl Plan {
    /// Names of all tensors that are used, each once.
    pub fn tensors(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        for ModulePlan { a, b, magnitude, lora_bias, .. } in &self.modules {
            names.extend([a, b].into_iter().chain(magnitude).chain(lora_bias).map(|tensor| tensor.name.as_str()));
        }
        names.extend(self.private.iter().map(|module| module.weight.name.as_str()));
        names.extend(self.biases.iter().map(|bias| bias.bias.name.as_str()));
        names
    }
}

/// A low-rank change of one module.
///
/// Linear: `y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ [+ scale · lora_bias]`, with `magnitude` (DoRA):
/// `y = (m/n) ⊙ (x Wᵀ + scale · x Aᵀ Bᵀ) + b`, where `n` is the norm of each row of `W + scale · B A`.
/// Embedding: `y = E[x] + scale · (Aᵀ[x]) Bᵀ`, with `magnitude`: `y = (m/n) ⊙ (…)`, `n` by column of `E`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModulePlan {
    /// Path in the base, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// The module of the base, with its sizes.
    pub kind: ModuleKind,
    pub rank: usize,
    pub alpha: f64,
    /// `alpha / rank`, or `alpha / √rank` with rsLoRA. Computed from the rank before any padding.
    pub scale: f64,
    /// `[rank, in]`; for an embedding `[rank, vocab]`.
    pub a: TensorRef,
    /// `[out, rank]`; for an embedding `[dim, rank]`.
    pub b: TensorRef,
    /// DoRA: `[out]`; for an embedding `[dim]`.
    pub magnitude: Option<TensorRef>,
    /// Bias of B: `[out]`, scaled like the rest.
    pub lora_bias: Option<TensorRef>,
}

/// A module that replaces that of the base for this adapter alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivateModule {
    /// Path in the base: `lm_head` or `model.embed_tokens`.
    pub module: String,
    pub kind: ModuleKind,
    /// Same shape as the module's weight.
    pub weight: TensorRef,
    pub bytes: u64,
}

/// A bias that replaces that of the base for this adapter alone (`bias: all` or `lora_only`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiasReplacement {
    /// Path of the linear module in the base.
    pub module: String,
    /// `[out]`.
    pub bias: TensorRef,
}

/// A tensor of the file, or a block of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRef {
    /// Name in the safetensors file.
    pub name: String,
    /// Rows (first axis) to take, when one tensor of a fused adapter serves several modules; `None` is all.
    pub rows: Option<Range<usize>>,
}

impl TensorRef {
    /// The whole tensor `name`.
    pub fn whole(name: impl Into<String>) -> Self {
        TensorRef { name: name.into(), rows: None }
    }
}

/// Something about an accepted adapter that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub code: NoteCode,
    pub subject: String,
    pub message: String,
}

macro_rules! note_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// The closed list of note codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum NoteCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant),+
        }

        impl NoteCode {
            /// The stable text form, such as `W_TARGET_ABSENT`.
            pub fn as_str(self) -> &'static str {
                match self { $(NoteCode::$variant => $name),+ }
            }
        }
    };
}

note_codes! {
    /// The config names no base; the shapes fit.
    BaseUnstated = "W_BASE_UNSTATED",
    /// The config names a base by a name that cannot be compared; the shapes fit.
    BaseUnverified = "W_BASE_UNVERIFIED",
    /// A target matches no module while others do.
    TargetAbsent = "W_TARGET_ABSENT",
    /// An unknown field with a neutral value.
    UnknownField = "W_UNKNOWN_FIELD",
    /// A known field that has no effect on serving.
    IgnoredField = "W_IGNORED_FIELD",
    /// A file of the folder that is not read.
    IgnoredFile = "W_IGNORED_FILE",
    /// Tensor names were brought to canonical form.
    RenamedTensors = "W_RENAMED_TENSORS",
    /// One tensor of a fused adapter serves several modules.
    FusedSplit = "W_FUSED_SPLIT",
    /// A tensor equals that of the base and is not kept.
    EqualToBase = "W_EQUAL_TO_BASE",
    /// A module whose change is zero.
    ZeroDelta = "W_ZERO_DELTA",
    /// The base ties its output layer to the embedding; the adapter separates them for itself.
    PrivateUntie = "W_PRIVATE_UNTIE",
    /// A pattern key matches no module.
    PatternUnused = "W_PATTERN_UNUSED",
}
