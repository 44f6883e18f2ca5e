//! The files of an adapter as they arrive: from a folder on this machine, or uploaded one by one.

use bytes::Bytes;

/// Name of the config file.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the weights file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// The two files that make an adapter.
#[derive(Clone, Debug)]
pub struct Files {
    pub config: Bytes,
    pub weights: Bytes,
}
