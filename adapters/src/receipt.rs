//! What was loaded, in numbers: the record kept with each version, which `inspect` prints.

use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::config::LoraConfig;
use crate::container::Container;
use crate::dtype::Dtype;
use crate::norm::Norms;
use crate::plan::{ModulePlan, Note, Plan, PrivateModule};

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

impl Receipt {
    /// Measures an adapter that was judged. Reads every tensor of a low-rank change.
    pub(crate) fn new(plan: &Plan, config: &LoraConfig, weights: &Container) -> Receipt {
        let dtype = |name: &str| weights.get(name).map_or(Dtype::F32, |view| view.dtype);
        let mut norms = Norms::default();
        let module = |plan: &ModulePlan| ModuleReceipt {
            module: plan.module.clone(),
            variant: if plan.magnitude.is_some() { Variant::Dora } else { Variant::Lora },
            rank: plan.rank,
            alpha: plan.alpha,
            scale: plan.scale,
            dtype: dtype(&plan.b.name),
            lora_bias: plan.lora_bias.is_some(),
            delta_norm: norms.of(plan, weights),
        };
        let modules: Vec<ModuleReceipt> = plan.modules.iter().map(module).collect();
        let private = |module: &PrivateModule| PrivateReceipt {
            module: module.module.clone(),
            dtype: dtype(&module.weight.name),
            bytes: module.bytes,
        };
        Receipt {
            digest: plan.digest,
            base_digest: plan.base_digest,
            peft_version: config.peft_version.clone(),
            rank_max: plan.modules.iter().map(|plan| plan.rank).max().unwrap_or(0),
            parameters: plan.tensors().iter().filter_map(|name| weights.get(name)).map(|it| it.elements() as u64).sum(),
            bytes: plan.bytes,
            delta_norm: modules.iter().map(|module| module.delta_norm.powi(2)).sum::<f64>().sqrt(),
            modules,
            private: plan.private.iter().map(private).collect(),
            biases: plan.biases.iter().map(|bias| bias.module.clone()).collect(),
            notes: plan.notes.clone(),
        }
    }
}
