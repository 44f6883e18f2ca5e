//! The columns that hold limits, the same in `plans`, `tenants` and (the first six) `api_keys`.

use domain::{KeyLimits, TenantLimits};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::{StoreError, rows::bigint};

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

pub(crate) trait ReadLimits {
    fn tenant_limits(&self) -> Result<TenantLimits, StoreError>;
    /// From columns whose names begin with `prefix`.
    fn key_limits(&self, prefix: &str) -> Result<KeyLimits, StoreError>;
}

impl ReadLimits for PgRow {
    fn tenant_limits(&self) -> Result<TenantLimits, StoreError> {
        Ok(TenantLimits {
            requests_per_minute: limit(self, "requests_per_minute")?,
            input_tokens_per_minute: limit(self, "input_tokens_per_minute")?,
            output_tokens_per_minute: limit(self, "output_tokens_per_minute")?,
            concurrent_requests: limit(self, "concurrent_requests")?,
            budget_day: limit(self, "budget_day_micros")?,
            budget_month: limit(self, "budget_month_micros")?,
            adapters_max: limit(self, "adapters_max")?,
            adapter_bytes_max: limit(self, "adapter_bytes_max")?,
            adapter_rank_max: limit(self, "adapter_rank_max")?,
        })
    }

    fn key_limits(&self, prefix: &str) -> Result<KeyLimits, StoreError> {
        let column = |name: &str| format!("{prefix}{name}");
        Ok(KeyLimits {
            requests_per_minute: limit(self, &column("requests_per_minute"))?,
            input_tokens_per_minute: limit(self, &column("input_tokens_per_minute"))?,
            output_tokens_per_minute: limit(self, &column("output_tokens_per_minute"))?,
            concurrent_requests: limit(self, &column("concurrent_requests"))?,
            budget_day: limit(self, &column("budget_day_micros"))?,
            budget_month: limit(self, &column("budget_month_micros"))?,
        })
    }
}

/// Binds the nine columns in the order in which [`ReadLimits::tenant_limits`] reads them.
pub(crate) fn bind_tenant_limits<'q>(query: PgQuery<'q>, limits: &TenantLimits) -> PgQuery<'q> {
    query
        .bind(limits.requests_per_minute.map(i64::from))
        .bind(limits.input_tokens_per_minute.map(i64::from))
        .bind(limits.output_tokens_per_minute.map(i64::from))
        .bind(limits.concurrent_requests.map(i64::from))
        .bind(limits.budget_day.map(bigint))
        .bind(limits.budget_month.map(bigint))
        .bind(limits.adapters_max.map(i64::from))
        .bind(limits.adapter_bytes_max.map(bigint))
        .bind(limits.adapter_rank_max.map(i64::from))
}

/// Binds the six columns in the order in which [`ReadLimits::key_limits`] reads them.
pub(crate) fn bind_key_limits<'q>(query: PgQuery<'q>, limits: &KeyLimits) -> PgQuery<'q> {
    query
        .bind(limits.requests_per_minute.map(i64::from))
        .bind(limits.input_tokens_per_minute.map(i64::from))
        .bind(limits.output_tokens_per_minute.map(i64::from))
        .bind(limits.concurrent_requests.map(i64::from))
        .bind(limits.budget_day.map(bigint))
        .bind(limits.budget_month.map(bigint))
}

fn limit<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<Option<T>, StoreError>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let value: Option<i64> = row.try_get(column)?;
    value.map(T::try_from).transpose().map_err(StoreError::unreadable)
}
