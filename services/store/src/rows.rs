//! Reading our own types out of rows. A value that does not fit its type is a fault of ours or of whoever wrote the
//! database by hand: it is reported, never guessed at.

use domain::{Digest, Slug, TenantLimits};
use sqlx::{Row, postgres::PgRow};

use crate::StoreError;

pub(crate) trait ReadRow {
    fn slug(&self, column: &str) -> Result<Slug, StoreError>;
    fn digest(&self, column: &str) -> Result<Digest, StoreError>;
    fn optional_digest(&self, column: &str) -> Result<Option<Digest>, StoreError>;
    /// A count or size, which the schema keeps from being negative.
    fn count(&self, column: &str) -> Result<u64, StoreError>;
    fn limits(&self) -> Result<TenantLimits, StoreError>;
}

impl ReadRow for PgRow {
    fn slug(&self, column: &str) -> Result<Slug, StoreError> {
        self.try_get::<String, _>(column)?.parse().map_err(StoreError::unreadable)
    }

    fn digest(&self, column: &str) -> Result<Digest, StoreError> {
        Digest::try_from(self.try_get::<&[u8], _>(column)?).map_err(StoreError::unreadable)
    }

    fn optional_digest(&self, column: &str) -> Result<Option<Digest>, StoreError> {
        let bytes: Option<&[u8]> = self.try_get(column)?;
        bytes.map(Digest::try_from).transpose().map_err(StoreError::unreadable)
    }

    fn count(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.try_get::<i64, _>(column)?).map_err(StoreError::unreadable)
    }

    fn limits(&self) -> Result<TenantLimits, StoreError> {
        Ok(TenantLimits {
            requests_per_minute: limit(self, "requests_per_minute")?,
            tokens_per_minute: limit(self, "tokens_per_minute")?,
            concurrent_requests: limit(self, "concurrent_requests")?,
            adapters_max: limit(self, "adapters_max")?,
            adapter_bytes_max: limit(self, "adapter_bytes_max")?,
            adapter_rank_max: limit(self, "adapter_rank_max")?,
        })
    }
}

fn limit<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<Option<T>, StoreError>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let value: Option<i64> = row.try_get(column)?;
    value.map(T::try_from).transpose().map_err(StoreError::unreadable)
}

/// For a `bigint` column. What does not fit would be more than the world stores, and is kept as the most that fits.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
