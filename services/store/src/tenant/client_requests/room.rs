//! How many named requests a tenant may have at the same time, and the bytes of their answers. The totals are kept by
//! triggers (`migrations/0014_client_request_totals.sql`).

use std::time::Duration;

use domain::TenantId;
use sqlx::{PgConnection, Row};

use crate::StoreError;

/// What may be kept of a tenant at the same time.
#[derive(Clone, Copy, Debug)]
pub struct MostKept {
    /// Requests, running and answered.
    pub requests: u32,
    /// Of their answers together.
    pub bytes: u64,
    /// Of one answer: a running request counts as having one of so many bytes.
    pub answer_bytes: u64,
}

/// What stands in the way of one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub kind: FullOf,
    /// When the window of the oldest request is over.
    pub retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullOf {
    Requests,
    Bytes,
}

/// Whether there is room for what is claimed already. Until the transaction ends no other claim of the tenant looks: this
/// one has written its totals.
pub async fn check(
    connection: &mut PgConnection,
    tenant: TenantId,
    most: MostKept,
) -> Result<Result<(), FullOf>, StoreError> {
    let totals = sqlx::query("select running, answered, answer_bytes from client_request_totals where tenant_id = $1")
        .bind(tenant.uuid())
        .fetch_one(connection)
        .await?;
    let number = |column| totals.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let (running, answered, bytes) = (number("running")?, number("answered")?, number("answer_bytes")?);
    if running + answered > most.requests.into() {
        return Ok(Err(FullOf::Requests));
    }
    let bytes = bytes.saturating_add(running.saturating_mul(most.answer_bytes));
    Ok(if bytes > most.bytes { Err(FullOf::Bytes) } else { Ok(()) })
}

/// Those of the tenant whose window is over; says how many that were.
pub async fn delete_expired(connection: &mut PgConnection, tenant: TenantId) -> Result<u64, StoreError> {
    let deleted = sqlx::query("delete from client_requests where tenant_id = $1 and expires_at <= now()")
        .bind(tenant.uuid())
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
}

/// How long the oldest window still lasts.
pub async fn first_expiry(connection: &mut PgConnection, tenant: TenantId) -> Result<Duration, StoreError> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(expires_at) - now())::float8 from client_requests where tenant_id = $1",
    )
    .bind(tenant.uuid())
    .fetch_one(connection)
    .await?;
    Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default())
}
