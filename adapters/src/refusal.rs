//! Why an adapter is not served: a closed set of codes and a sentence that tells the user what to do.
//! It does not say how a refusal travels (that is the gateway's business).

use std::fmt;

use serde::{Deserialize, Serialize};

/// One reason why an adapter is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    /// What the refusal is about: a file, a config field, a tensor or a module. Bounded in length.
    pub subject: String,
    /// What is wrong and what the user should do about it.
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, subject: impl AsRef<str>, message: impl Into<String>) -> Self {
        Refusal { code, subject: clip(subject.as_ref(), 256), message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.subject, self.message)
    }
}

impl std::error::Error for Refusal {}

/// Text of the user's, cut to `max` characters and freed of control characters, so that it can be shown.
pub(crate) fn clip(text: &str, max: usize) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut clipped: String = text.chars().take(max).map(printable).collect();
    if text.chars().nth(max).is_some() {
        clipped.push('…');
    }
    clipped
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// The closed list of refusal codes. The text form (`E_…`) is part of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant),+
        }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),+];

            /// The stable text form, such as `E_SHAPE`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),+ }
            }
        }
    };
}

codes! {
    /// A file is missing, has a name that we do not take, or lies where it must not.
    Files = "E_FILES",
    /// Weights in a pickle format, which runs code when it is read.
    Pickle = "E_PICKLE",
    /// A whole model (or a sharded one) instead of an adapter.
    FullModel = "E_FULL_MODEL",
    /// The safetensors file is malformed.
    Container = "E_CONTAINER",
    /// A tensor has an element type that adapters do not use.
    Dtype = "E_DTYPE",
    /// A tensor holds NaN or infinity.
    NonFinite = "E_NONFINITE",
    /// A bound of [`crate::Limits`] is exceeded.
    Quota = "E_QUOTA",
    /// `adapter_config.json` is not strict JSON, or a field has a wrong type or an impossible value.
    Config = "E_CONFIG",
    /// Another method than LoRA.
    PeftType = "E_PEFT_TYPE",
    /// A task other than causal language modelling.
    TaskType = "E_TASK_TYPE",
    /// A known feature of PEFT that is not served.
    Unsupported = "E_UNSUPPORTED",
    /// A field that we do not know, with a value that is not neutral.
    UnknownSemantics = "E_UNKNOWN_SEMANTICS",
    /// The adapter was trained against a base that its initialisation changed.
    BaseMutating = "E_BASE_MUTATING",
    /// A full replacement of a module that we do not keep privately.
    FullModule = "E_FULL_MODULE",
    /// The adapter was made for another base.
    BaseMismatch = "E_BASE_MISMATCH",
    /// A pattern cannot be compiled, or takes too long.
    Pattern = "E_PATTERN",
    /// Two keys of a pattern map fit one module and disagree.
    PatternAmbiguous = "E_PATTERN_AMBIGUOUS",
    /// The targets match no module of the base.
    NoTarget = "E_NO_TARGET",
    /// A tensor whose name no rule takes.
    UnknownTensor = "E_UNKNOWN_TENSOR",
    /// The same tensor under two spellings.
    DuplicateTensor = "E_DUPLICATE_TENSOR",
    /// Only one half of an A/B pair.
    Unpaired = "E_UNPAIRED",
    /// A tensor does not fit the module of the base.
    Shape = "E_SHAPE",
    /// The rank of the tensors and that of the config differ.
    RankConflict = "E_RANK_CONFLICT",
    /// A tensor for a module that the config does not target.
    Untargeted = "E_UNTARGETED",
    /// A targeted module, or a declared part of one, has no tensor.
    Missing = "E_MISSING",
    /// A tensor for a part (magnitude, bias) that the config does not declare.
    Undeclared = "E_UNDECLARED",
    /// The vocabulary or the embedding differs from that of the base.
    VocabChanged = "E_VOCAB_CHANGED",
    /// The adapter changes nothing.
    Noop = "E_NOOP",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
