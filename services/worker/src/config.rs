//! What a worker may be told. `defaults.toml` documents every setting.

use std::{collections::BTreeMap, path::PathBuf};

use chassis::{
    config::{Secret, Validate},
    server::ListenConfig,
    telemetry::TelemetryConfig,
};
use engine::{
    EngineConfig,
    model::{CpuConfig, Dtype, KvDtype, ModelOptions},
};
use serde::{Deserialize, Serialize};

/// The compiled-in defaults; also the documentation of every key.
pub const DEFAULTS: &str = include_str!("../defaults.toml");
/// Environment variables that override begin with this.
pub const ENV_PREFIX: &str = "BANYAN_WORKER_";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    pub name: String,
    pub base: PathBuf,
    pub base_names: Vec<String>,
    pub dtype: Dtype,
    pub adapter_dtype: Option<Dtype>,
    pub kv_dtype: Option<KvDtype>,
    pub packed_dir: PathBuf,
    pub registry: String,
    pub cluster_token: Secret,
    pub fetch_timeout_ms: u64,
    pub message_bytes_max: usize,
    pub tokenize_concurrent_max: usize,
    pub health_interval_ms: u64,
    pub grant_wait_ms: u64,
    pub early_refusal_factor: u32,
    pub early_refusal_window_ms: u64,
    pub status_residents_max: usize,
    pub status_wait_ms: u64,
    pub usage_kept_max: usize,
    pub usage_kept_ms: u64,
    pub listen: ListenConfig,
    pub cpu: CpuConfig,
    pub engine: EngineConfig,
    pub registry_options: BTreeMap<String, Secret>,
    pub telemetry: TelemetryConfig,
}

impl WorkerConfig {
    /// How the base is to be loaded.
    pub fn model_options(&self) -> ModelOptions {
        ModelOptions {
            dtype: self.dtype,
            adapter_dtype: self.adapter_dtype,
            kv_dtype: self.kv_dtype,
            cpu: self.cpu.clone(),
            packed_dir: (!self.packed_dir.as_os_str().is_empty()).then(|| self.packed_dir.clone()),
        }
    }
}

impl Validate for WorkerConfig {
    fn faults(&self) -> Vec<String> {
        let rules = [
            (!self.base.as_os_str().is_empty(), "base: must name the folder of the base checkpoint"),
            (!self.registry.is_empty(), "registry: must say where adapters are kept"),
            (!self.cluster_token.is_empty(), "cluster_token: must be set, and the same as the gateway's"),
            (self.fetch_timeout_ms > 0, "fetch_timeout_ms: must be at least 1"),
            (self.message_bytes_max >= 1 << 16, "message_bytes_max: must be at least 65536"),
            (self.tokenize_concurrent_max > 0, "tokenize_concurrent_max: must be at least 1"),
            (self.grant_wait_ms > 0, "grant_wait_ms: must be at least 1"),
            (self.early_refusal_window_ms > 0, "early_refusal_window_ms: must be at least 1"),
            (self.usage_kept_max > 0, "usage_kept_max: must be at least 1"),
            (self.usage_kept_ms > 0, "usage_kept_ms: must be at least 1"),
            (self.health_interval_ms > 0, "health_interval_ms: must be at least 1"),
        ];
        let mut faults: Vec<_> =
            rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault.to_owned()).collect();
        faults.extend(self.engine.check().err().map(|fault| format!("engine: {fault}")));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(overrides: &str) -> Result<WorkerConfig, chassis::config::ConfigError> {
        let table = overrides.parse().expect("toml");
        chassis::config::load(DEFAULTS, None, "BANYAN_WORKER_TEST_NONE_", &table)
    }

    #[test]
    fn the_defaults_need_only_what_nobody_else_can_know() {
        let faults = load("").expect_err("incomplete").faults;
        assert_eq!(faults.len(), 3, "{faults:?}");
        let config = load("base = 'b'\nregistry = 'r'\ncluster_token = 't'").expect("complete");
        assert_eq!(config.engine, EngineConfig::default(), "defaults.toml and the engine agree");
        assert_eq!(config.cpu, CpuConfig::default(), "defaults.toml and the kernels agree");
    }

    #[test]
    fn impossible_limits_are_named() {
        let fault =
            load("base = 'b'\nregistry = 'r'\ncluster_token = 't'\n[engine]\nwaiting_max = 0").expect_err("zero");
        assert!(fault.to_string().contains("waiting_max"), "{fault}");
    }
}
