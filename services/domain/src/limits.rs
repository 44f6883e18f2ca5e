//! What a tenant, and each of its API keys, may use. All amounts are integers; money is in millionths of the currency.

use serde::{Deserialize, Serialize};

/// The largest budget, in micro-units: counted exactly everywhere, also where numbers are doubles.
pub const BUDGET_MAX: u64 = (1 << 53) - 1;

/// A tenant's or a plan's own limits; `None` means what stands behind it: the tenant's plan, then the platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    pub requests_per_minute: Option<u32>,
    pub input_tokens_per_minute: Option<u32>,
    pub output_tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
    /// Micro-units of currency.
    pub budget_day: Option<u64>,
    /// Micro-units of currency.
    pub budget_month: Option<u64>,
    pub adapters_max: Option<u32>,
    pub adapter_bytes_max: Option<u64>,
    pub adapter_rank_max: Option<u32>,
}

/// A key's own limits, beside those of its tenant, which hold for all of its keys together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyLimits {
    pub requests_per_minute: Option<u32>,
    pub input_tokens_per_minute: Option<u32>,
    pub output_tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
    /// Micro-units of currency.
    pub budget_day: Option<u64>,
    /// Micro-units of currency.
    pub budget_month: Option<u64>,
}

/// Limits with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub requests_per_minute: u32,
    /// Of prompts.
    pub input_tokens_per_minute: u32,
    /// Of answers.
    pub output_tokens_per_minute: u32,
    pub concurrent_requests: u32,
    /// Micro-units of currency for a day of UTC; `None`: no budget.
    #[serde(skip)]
    pub budget_day: Option<u64>,
    /// Micro-units of currency for a month of UTC; `None`: no budget.
    #[serde(skip)]
    pub budget_month: Option<u64>,
    pub adapters_max: u32,
    /// Bytes of all stored versions together.
    pub adapter_bytes_max: u64,
    pub adapter_rank_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: 600,
            input_tokens_per_minute: 1_000_000,
            output_tokens_per_minute: 1_000_000,
            concurrent_requests: 64,
            budget_day: None,
            budget_month: None,
            adapters_max: 1_000,
            adapter_bytes_max: 16 << 30,
            adapter_rank_max: 256,
        }
    }
}

impl TenantLimits {
    /// These, and what they lack from `behind`.
    #[must_use]
    pub fn or(self, behind: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(behind.requests_per_minute),
            input_tokens_per_minute: self.input_tokens_per_minute.or(behind.input_tokens_per_minute),
            output_tokens_per_minute: self.output_tokens_per_minute.or(behind.output_tokens_per_minute),
            concurrent_requests: self.concurrent_requests.or(behind.concurrent_requests),
            budget_day: self.budget_day.or(behind.budget_day),
            budget_month: self.budget_month.or(behind.budget_month),
            adapters_max: self.adapters_max.or(behind.adapters_max),
            adapter_bytes_max: self.adapter_bytes_max.or(behind.adapter_bytes_max),
            adapter_rank_max: self.adapter_rank_max.or(behind.adapter_rank_max),
        }
    }
}

impl Limits {
    /// These limits, with a tenant's own put over them.
    #[must_use]
    pub fn with(self, own: TenantLimits) -> Self {
        Self {
            requests_per_minute: own.requests_per_minute.unwrap_or(self.requests_per_minute),
            input_tokens_per_minute: own.input_tokens_per_minute.unwrap_or(self.input_tokens_per_minute),
            output_tokens_per_minute: own.output_tokens_per_minute.unwrap_or(self.output_tokens_per_minute),
            concurrent_requests: own.concurrent_requests.unwrap_or(self.concurrent_requests),
            budget_day: own.budget_day.or(self.budget_day),
            budget_month: own.budget_month.or(self.budget_month),
            adapters_max: own.adapters_max.unwrap_or(self.adapters_max),
            adapter_bytes_max: own.adapter_bytes_max.unwrap_or(self.adapter_bytes_max),
            adapter_rank_max: own.adapter_rank_max.unwrap_or(self.adapter_rank_max),
        }
    }
}
