//! How a model is held in memory and computed: element types, threads, and where its packed weights are kept.

use std::path::PathBuf;

use kernels::{CpuConfig, KvStorage, Storage};
use serde::{Deserialize, Serialize};

/// In which type weights are held: those of the base, those that adapters bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Everything in f32: the reference.
    F32,
    /// Weights and what enters a product in bf16; sums in f32.
    Bf16,
    /// Weights and what enters their products in int8, in groups of 64 with a scale each.
    Int8,
}

/// In which type keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    F32,
    Bf16,
}

/// How a [`super::Model`] is loaded.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    pub dtype: Dtype,
    /// Of the weights that adapters bring. None: that of the base.
    pub adapter_dtype: Option<Dtype>,
    /// None: f32 for an f32 base, else bf16.
    pub kv_dtype: Option<KvDtype>,
    pub cpu: CpuConfig,
    /// Folder for packed weights: the first load writes them there, the next one maps them. None: packed at every load.
    pub packed_dir: Option<PathBuf>,
}

impl ModelOptions {
    /// All threads, the best instructions, no packed weights on disk.
    pub fn new(dtype: Dtype) -> ModelOptions {
        ModelOptions { dtype, adapter_dtype: None, kv_dtype: None, cpu: CpuConfig::default(), packed_dir: None }
    }

    pub(crate) fn adapter_storage(&self) -> Storage {
        self.adapter_dtype.unwrap_or(self.dtype).storage()
    }

    pub(crate) fn kv_storage(&self) -> KvStorage {
        match (self.kv_dtype, self.dtype) {
            (Some(KvDtype::F32), _) | (None, Dtype::F32) => KvStorage::F32,
            (Some(KvDtype::Bf16), _) | (None, _) => KvStorage::Bf16,
        }
    }
}

impl Dtype {
    /// As it is written in configs and file names.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::Int8 => "int8",
        }
    }

    pub(crate) fn storage(self) -> Storage {
        match self {
            Dtype::F32 => Storage::F32,
            Dtype::Bf16 => Storage::Bf16,
            Dtype::Int8 => Storage::Int8,
        }
    }
}
