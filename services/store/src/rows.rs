//! Reading our own types out of rows. A value that does not fit its type is a fault of ours or of whoever wrote the
//! database by hand: it is reported, never guessed at.

use domain::{Digest, Outage, Share, Slug};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::StoreError;

pub(crate) trait ReadRow {
    fn slug(&self, column: &str) -> Result<Slug, StoreError>;
    fn digest(&self, column: &str) -> Result<Digest, StoreError>;
    fn optional_digest(&self, column: &str) -> Result<Option<Digest>, StoreError>;
    /// A count or size, which the schema keeps from being negative.
    fn count(&self, column: &str) -> Result<u64, StoreError>;
    /// A plan's part in the workers.
    fn share(&self) -> Result<Share, StoreError>;
    fn outage(&self) -> Result<Outage, StoreError>;
    /// The text of column `revision`.
    fn etag(&self) -> Result<String, StoreError>;
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

    fn share(&self) -> Result<Share, StoreError> {
        let part = |column| u32::try_from(self.try_get::<i64, _>(column)?).map_err(StoreError::unreadable);
        Ok(Share {
            weight: part("weight")?,
            priority: part("priority")?,
            kv_blocks_max: part("kv_blocks_max")?,
            resident_adapters_max: part("resident_adapters_max")?,
            waiting_requests_max: part("waiting_requests_max")?,
        })
    }

    fn outage(&self) -> Result<Outage, StoreError> {
        self.try_get::<String, _>("limits_outage")?.parse().map_err(StoreError::unreadable)
    }

    fn etag(&self) -> Result<String, StoreError> {
        Ok(self.try_get::<Uuid, _>("revision")?.simple().to_string())
    }
}

/// For a `bigint` column. What does not fit would be more than the world stores, and is kept as the most that fits.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
