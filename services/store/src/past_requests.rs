//! Requests of the last while, as they came and went: what changed limits are tried on. Requests that were refused have
//! used nothing and are not on record.

use std::time::Duration;

use domain::{ApiKeyId, RequestId, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{StoreError, rows::ReadRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRequest {
    pub request: RequestId,
    pub api_key: ApiKeyId,
    /// As its id says.
    pub arrived_at: OffsetDateTime,
    pub duration: Duration,
    /// As the request named it.
    pub model: String,
    pub prompt_tokens: u64,
    /// Of those, the ones from the prefix cache.
    pub cached_prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// The newest `most` that arrived at `from` or later, oldest first.
pub(crate) async fn since(
    connection: &mut PgConnection,
    tenant: TenantId,
    from: OffsetDateTime,
    most: u32,
) -> Result<Vec<PastRequest>, StoreError> {
    let rows = sqlx::query(
        "select id, api_key_id, model, prompt_tokens, cached_prompt_tokens, completion_tokens, duration_ms
           from usage_records
          where tenant_id = $1 and id >= $2
          order by id desc
          limit $3",
    )
    .bind(tenant.uuid())
    .bind(first_id(from))
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    rows.iter().rev().map(read).collect()
}

/// The smallest id of version 7 that a request of this moment can have.
fn first_id(at: OffsetDateTime) -> Uuid {
    let ms = u128::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(ms << 80)
}

fn read(row: &PgRow) -> Result<PastRequest, StoreError> {
    let id: Uuid = row.try_get("id")?;
    Ok(PastRequest {
        request: RequestId::new(id),
        api_key: ApiKeyId::new(row.try_get("api_key_id")?),
        arrived_at: arrival(id)?,
        duration: Duration::from_millis(row.count("duration_ms")?),
        model: row.try_get("model")?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_prompt_tokens: row.count("cached_prompt_tokens")?,
        completion_tokens: row.count("completion_tokens")?,
    })
}

fn arrival(id: Uuid) -> Result<OffsetDateTime, StoreError> {
    let ms = i128::try_from(id.as_u128() >> 80).map_err(StoreError::unreadable)?;
    OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).map_err(StoreError::unreadable)
}
