//! What lies in the adapter registry under each digest of a tenant, kept in step with the rows that name it. The row comes
//! before the first byte is written and goes after the last one is deleted:
//!
//! ```text
//! reserve ──► uploading ──insert version──► stored ──last version deleted──► deleting ──► (gone)
//!                  └────────lease over─────────────────────────────────────────┘
//! ```
//!
//! This module moves the states; writing and deleting files is the registry's matter.

use std::time::Duration;

use domain::{Digest, TenantId};
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Precondition, Stock, StoreError,
    rows::{ReadRow, bigint},
};

/// The right to write the files of a digest to the registry, until it is turned into a version or the lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobLease {
    /// Write them, then insert the version before this time.
    Write { until: OffsetDateTime },
    /// They are there already: insert the version. When that is refused with [`Precondition::FilesNotStored`], somebody
    /// deleted the last version meanwhile: reserve again.
    Stored,
}

/// Files to be deleted from the registry, claimed by this caller until `until`. It must have stopped deleting by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDeletion {
    pub tenant: TenantId,
    pub digest: Digest,
    pub until: OffsetDateTime,
    pub(crate) claim: Uuid,
}

pub(crate) async fn reserve(
    connection: &mut PgConnection,
    tenant: TenantId,
    digest: Digest,
    size_bytes: u64,
    bytes_max: u64,
    lease: Duration,
) -> Result<BlobLease, StoreError> {
    lock_stock(connection, tenant).await?;
    let known: Option<String> =
        sqlx::query_scalar("select state from adapter_blobs where tenant_id = $1 and digest = $2 for update")
            .bind(tenant.uuid())
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(&mut *connection)
            .await?;
    match known.as_deref() {
        Some("stored") => return Ok(BlobLease::Stored),
        Some("deleting") => return Err(StoreError::FailedPrecondition(Precondition::FilesBeingDeleted)),
        // Another upload of the same content, under way or given up: both write the same bytes.
        Some(_) => {}
        None => {
            let used = bytes(connection, tenant).await?;
            if used.saturating_add(size_bytes) > bytes_max {
                let stock = Stock::AdapterBytes;
                return Err(StoreError::QuotaExceeded { stock, max: bytes_max, used, wanted: size_bytes });
            }
        }
    }
    let until = sqlx::query_scalar(
        "insert into adapter_blobs (tenant_id, digest, state, size_bytes, lease_until)
         values ($1, $2, 'uploading', $3, now() + $4 * interval '1 millisecond')
         on conflict on constraint adapter_blobs_pkey
         do update set lease_until = greatest(adapter_blobs.lease_until, excluded.lease_until), updated_at = now()
         returning lease_until",
    )
    .bind(tenant.uuid())
    .bind(digest.as_bytes().as_slice())
    .bind(bigint(size_bytes))
    .bind(milliseconds(lease))
    .fetch_one(connection)
    .await?;
    Ok(BlobLease::Write { until })
}

/// Marks a reserved digest as stored; refuses one that was not reserved, or whose reservation has been swept up.
pub(crate) async fn mark_stored(
    connection: &mut PgConnection,
    tenant: TenantId,
    digest: Digest,
) -> Result<(), StoreError> {
    let updated = sqlx::query(
        "update adapter_blobs set state = 'stored', lease_until = null, updated_at = now()
          where tenant_id = $1 and digest = $2 and state in ('uploading', 'stored')",
    )
    .bind(tenant.uuid())
    .bind(digest.as_bytes().as_slice())
    .execute(connection)
    .await?;
    if updated.rows_affected() == 0 {
        return Err(StoreError::FailedPrecondition(Precondition::FilesNotStored));
    }
    Ok(())
}

/// Hands those of these digests that no version names any more over to deletion, and says which.
pub(crate) async fn abandon(
    connection: &mut PgConnection,
    tenant: TenantId,
    digests: &[Digest],
) -> Result<Vec<Digest>, StoreError> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.as_bytes().to_vec()).collect();
    // Locked by a statement of its own: the next one then sees a version that another transaction has just inserted.
    sqlx::query("select from adapter_blobs where tenant_id = $1 and digest = any($2) order by digest for update")
        .bind(tenant.uuid())
        .bind(&digests)
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query(
        "update adapter_blobs b set state = 'deleting', lease_until = null, updated_at = now()
          where b.tenant_id = $1 and b.digest = any($2) and b.state = 'stored'
            and not exists (select from adapter_versions v where v.tenant_id = b.tenant_id and v.digest = b.digest)
         returning b.digest",
    )
    .bind(tenant.uuid())
    .bind(digests)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.digest("digest")).collect()
}

/// Claims deletions that nobody holds, abandoned uploads among them.
pub(crate) async fn claim_deletions(
    connection: &mut PgConnection,
    limit: u16,
    lease: Duration,
) -> Result<Vec<BlobDeletion>, StoreError> {
    let claim = Uuid::now_v7();
    let rows = sqlx::query(
        "update adapter_blobs b
            set state = 'deleting', claim = $1, lease_until = now() + $2 * interval '1 millisecond', updated_at = now()
           from (select tenant_id, digest from adapter_blobs
                  where (state = 'deleting' and lease_until is null) or (state <> 'stored' and lease_until < now())
                  order by updated_at
                  limit $3
                  for update skip locked) due
          where b.tenant_id = due.tenant_id and b.digest = due.digest
         returning b.tenant_id, b.digest, b.lease_until",
    )
    .bind(claim)
    .bind(milliseconds(lease))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(BlobDeletion {
                tenant: TenantId::new(row.try_get("tenant_id")?),
                digest: row.digest("digest")?,
                until: row.try_get("lease_until")?,
                claim,
            })
        })
        .collect()
}

/// Forgets a digest whose files are gone. `false` when the claim was no longer this caller's.
pub(crate) async fn finish_deletion(
    connection: &mut PgConnection,
    deletion: &BlobDeletion,
) -> Result<bool, StoreError> {
    let deleted = sqlx::query(
        "delete from adapter_blobs where tenant_id = $1 and digest = $2 and state = 'deleting' and claim = $3",
    )
    .bind(deletion.tenant.uuid())
    .bind(deletion.digest.as_bytes().as_slice())
    .bind(deletion.claim)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Bytes that count against the tenant's limit: stored and being written; each digest once, however many adapters name it.
pub(crate) async fn bytes(connection: &mut PgConnection, tenant: TenantId) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "select coalesce(sum(size_bytes), 0)::bigint as bytes
           from adapter_blobs where tenant_id = $1 and state <> 'deleting'",
    )
    .bind(tenant.uuid())
    .fetch_one(connection)
    .await?;
    row.count("bytes")
}

/// Until the end of the transaction, nobody else adds to this tenant's stocks: count, compare and add are one step.
pub(crate) async fn lock_stock(connection: &mut PgConnection, tenant: TenantId) -> Result<(), StoreError> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('stock ' || $1::text, 0))")
        .bind(tenant.uuid())
        .execute(connection)
        .await?;
    Ok(())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
