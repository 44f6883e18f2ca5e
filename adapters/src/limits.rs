//! Every bound on what a tenant may hand us, by name. It does not say who the tenant is or what they pay for.

use serde::{Deserialize, Serialize};

/// Bounds that [`crate::judge()`], [`crate::Container`] and [`crate::Files`] hold an adapter to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of `adapter_config.json`.
    pub config_bytes_max: usize,
    /// Nesting of arrays and objects in any JSON that a tenant sends.
    pub json_depth_max: usize,
    /// Bytes of the JSON header of a safetensors file.
    pub header_bytes_max: usize,
    /// Tensors in a safetensors file.
    pub tensors_max: usize,
    /// Dimensions of one tensor.
    pub dimensions_max: usize,
    /// Bytes of `adapter_model.safetensors`, header and data.
    pub weights_bytes_max: u64,
    /// Rank of one module.
    pub rank_max: usize,
    /// Bytes of one pattern (regular expression) in the config.
    pub pattern_bytes_max: usize,
    /// Patterns and names in all lists and maps of the config together.
    pub patterns_max: usize,
    /// Backtracking steps that one match of one pattern may take.
    pub backtrack_max: usize,
    /// Patterns in the config that need backtracking (look-around, back references); the others match in linear time.
    pub backtracking_patterns_max: usize,
    /// Bytes that full private copies of base modules (`modules_to_save`) may take.
    pub private_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            config_bytes_max: 1 << 20,
            json_depth_max: 16,
            header_bytes_max: 16 << 20,
            tensors_max: 65_536,
            dimensions_max: 4,
            weights_bytes_max: 4 << 30,
            rank_max: 1024,
            pattern_bytes_max: 4096,
            patterns_max: 4096,
            backtrack_max: 10_000,
            backtracking_patterns_max: 32,
            private_bytes_max: 2 << 30,
        }
    }
}

impl Limits {
    /// Bounds for a checkpoint that the operator chose: as strict in form, far wider in size.
    pub fn checkpoint() -> Self {
        Limits {
            header_bytes_max: 100_000_000,
            tensors_max: 1_000_000,
            dimensions_max: 8,
            weights_bytes_max: u64::MAX,
            ..Limits::default()
        }
    }
}
