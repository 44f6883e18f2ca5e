//! What a tenant may use.

use serde::{Deserialize, Serialize};

/// A tenant's own limits; `None` means the platform's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
    pub adapters_max: Option<u32>,
    pub adapter_bytes_max: Option<u64>,
    pub adapter_rank_max: Option<u32>,
}

/// Limits with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub requests_per_minute: u32,
    /// Prompt tokens and the most tokens that the answer may have, together.
    pub tokens_per_minute: u32,
    pub concurrent_requests: u32,
    pub adapters_max: u32,
    /// Bytes of all stored versions together.
    pub adapter_bytes_max: u64,
    pub adapter_rank_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: 600,
            tokens_per_minute: 1_000_000,
            concurrent_requests: 64,
            adapters_max: 1_000,
            adapter_bytes_max: 16 << 30,
            adapter_rank_max: 256,
        }
    }
}

impl Limits {
    /// These limits, with a tenant's own put over them.
    pub fn with(self, own: TenantLimits) -> Self {
        Self {
            requests_per_minute: own.requests_per_minute.unwrap_or(self.requests_per_minute),
            tokens_per_minute: own.tokens_per_minute.unwrap_or(self.tokens_per_minute),
            concurrent_requests: own.concurrent_requests.unwrap_or(self.concurrent_requests),
            adapters_max: own.adapters_max.unwrap_or(self.adapters_max),
            adapter_bytes_max: own.adapter_bytes_max.unwrap_or(self.adapter_bytes_max),
            adapter_rank_max: own.adapter_rank_max.unwrap_or(self.adapter_rank_max),
        }
    }
}
