//! Limits as the verbs of plans and tenants give and show them.

use proto::v1::TenantLimits;

use crate::{cli::LimitArgs, output::Table};

pub fn wire(limits: &LimitArgs) -> TenantLimits {
    TenantLimits {
        requests_per_minute: limits.requests_per_minute.unwrap_or(0),
        input_tokens_per_minute: limits.input_tokens_per_minute.unwrap_or(0),
        output_tokens_per_minute: limits.output_tokens_per_minute.unwrap_or(0),
        concurrent_requests: limits.concurrent_requests.unwrap_or(0),
        budget_day: limits.budget_day.unwrap_or(0),
        budget_month: limits.budget_month.unwrap_or(0),
        adapters_max: limits.adapters_max.unwrap_or(0),
        adapter_bytes_max: limits.adapter_bytes_max.unwrap_or(0),
        adapter_rank_max: limits.adapter_rank_max.unwrap_or(0),
    }
}

/// The paths of those that were given.
pub fn changed(limits: &LimitArgs) -> Vec<String> {
    let given = [
        ("limits.requests_per_minute", limits.requests_per_minute.is_some()),
        ("limits.input_tokens_per_minute", limits.input_tokens_per_minute.is_some()),
        ("limits.output_tokens_per_minute", limits.output_tokens_per_minute.is_some()),
        ("limits.concurrent_requests", limits.concurrent_requests.is_some()),
        ("limits.budget_day", limits.budget_day.is_some()),
        ("limits.budget_month", limits.budget_month.is_some()),
        ("limits.adapters_max", limits.adapters_max.is_some()),
        ("limits.adapter_bytes_max", limits.adapter_bytes_max.is_some()),
        ("limits.adapter_rank_max", limits.adapter_rank_max.is_some()),
    ];
    paths(&given)
}

/// The paths that are marked.
pub fn paths(marked: &[(&str, bool)]) -> Vec<String> {
    marked.iter().filter(|(_, marked)| *marked).map(|(path, _)| (*path).to_owned()).collect()
}

/// One row for each; 0 is said as `behind`.
pub fn rows(table: &mut Table, limits: TenantLimits, behind: &str) {
    let number = |value: u64| if value == 0 { behind.to_owned() } else { value.to_string() };
    table.row(["requests per minute".into(), number(limits.requests_per_minute.into())]);
    table.row(["input tokens per minute".into(), number(limits.input_tokens_per_minute.into())]);
    table.row(["output tokens per minute".into(), number(limits.output_tokens_per_minute.into())]);
    table.row(["concurrent requests".into(), number(limits.concurrent_requests.into())]);
    // No platform has a default budget.
    let money = |value: u64| if value == 0 { "none".to_owned() } else { format!("{value} micro-units") };
    table.row(["budget per day".into(), money(limits.budget_day)]);
    table.row(["budget per month".into(), money(limits.budget_month)]);
    table.row(["adapters".into(), number(limits.adapters_max.into())]);
    table.row(["adapter bytes".into(), number(limits.adapter_bytes_max)]);
    table.row(["adapter rank".into(), number(limits.adapter_rank_max.into())]);
}
