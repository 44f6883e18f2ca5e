//! The immutable versions of a tenant's adapters, and the files that they are made of.

use std::time::Duration;

use domain::{Digest, Slug, TenantId, VersionState};
use serde_json::Value;
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alias, TenantScope, adapters, aliases, lifecycle};
use crate::{
    BlobLease, Page, PageOf, Resource, StoreError, blobs,
    rows::{ReadRow, bigint},
};

#[derive(Clone, Debug, PartialEq)]
pub struct AdapterVersion {
    pub digest: Digest,
    /// The base that it was judged against.
    pub base_digest: Digest,
    pub size_bytes: u64,
    /// The load receipt; in lists without its `modules`.
    pub receipt: Value,
    pub state: VersionState,
    /// Of its last evaluation; lists leave it out.
    pub report: Option<Value>,
    pub created_at: OffsetDateTime,
}

#[derive(Clone, Debug)]
pub struct NewVersion {
    pub digest: Digest,
    pub base_digest: Digest,
    pub size_bytes: u64,
    /// A JSON object.
    pub receipt: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InsertedVersion {
    pub version: AdapterVersion,
    /// `false` when the adapter had this version already; it is then returned as it was.
    pub is_new: bool,
    /// The alias that was asked for, as it is now.
    pub alias: Option<Alias>,
}

impl TenantScope {
    /// Before the files of a version are written to the registry: counts them against `bytes_max` and sees to it that they
    /// are cleaned up if the upload is given up. `lease` is how long the writing may take.
    ///
    /// Errors: [`StoreError::QuotaExceeded`]; [`Precondition::FilesBeingDeleted`].
    pub async fn reserve_blob(
        &self,
        digest: Digest,
        size_bytes: u64,
        bytes_max: u64,
        lease: Duration,
    ) -> Result<BlobLease, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let reserved = blobs::reserve(&mut transaction, self.id, digest, size_bytes, bytes_max, lease).await?;
                transaction.commit().await?;
                Ok(reserved)
            })
            .await
    }

    /// Adds a version whose files are written, and moves `alias` to it, in one transaction. Idempotent by digest.
    ///
    /// Errors: [`StoreError::NotFound`] for the adapter; [`Precondition::FilesNotStored`](crate::Precondition) without a
    /// reservation; with an alias as [`TenantScope::move_alias`].
    pub async fn insert_version(
        &self,
        adapter: &Slug,
        new: NewVersion,
        alias: Option<&Slug>,
    ) -> Result<InsertedVersion, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                blobs::mark_stored(&mut transaction, self.id, new.digest).await?;
                let is_new = insert(&mut transaction, self.id, adapter, &new).await?;
                let own = self.versions(adapter);
                if is_new {
                    own.begin(&mut transaction, new.digest).await?;
                }
                let alias = match alias {
                    Some(alias) => Some(aliases::point(&mut transaction, &own, alias, new.digest, None).await?),
                    None => None,
                };
                let version = get(&mut transaction, self.id, adapter, new.digest).await?;
                transaction.commit().await?;
                Ok(InsertedVersion { version, is_new, alias })
            })
            .await
    }

    /// With the whole receipt.
    pub async fn get_version(&self, adapter: &Slug, digest: Digest) -> Result<AdapterVersion, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let version = get(&mut transaction, self.id, adapter, digest).await?;
                transaction.commit().await?;
                Ok(version)
            })
            .await
    }

    /// Newest first, with receipts that lack their `modules`.
    pub async fn list_versions(&self, adapter: &Slug, page: &Page) -> Result<PageOf<AdapterVersion>, StoreError> {
        self.store
            .bounded(async {
                let list = format!("versions of {adapter}");
                let after = page.after(&list)?.map(|key| read_key(&key)).transpose()?;
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let rows = sqlx::query(
                    "select v.digest, v.base_digest, v.size_bytes, v.receipt - 'modules' as receipt, v.created_at, s.state,
                            null::jsonb as report
                       from adapter_versions v
                       join version_states s using (tenant_id, adapter_id, digest)
                      where v.tenant_id = $1 and v.adapter_id = $2
                        and ($3::timestamptz is null or (v.created_at, v.digest) < ($3, $4))
                      order by v.created_at desc, v.digest desc
                      limit $5",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(after.map(|(created_at, _)| created_at))
                .bind(after.map(|(_, digest)| digest.as_bytes().to_vec()))
                .bind(page.fetch())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                let versions = rows.iter().map(read).collect::<Result<_, _>>()?;
                Ok(page.cut(&list, versions, write_key))
            })
            .await
    }

    /// Deletes a version that no alias and no pin names. `true` when its files were handed over to deletion with it, because no
    /// other adapter of the tenant has the same content.
    ///
    /// Errors: [`StoreError::NotFound`]; [`Precondition::VersionHasAlias`](crate::Precondition) and
    /// [`Precondition::VersionHasPin`](crate::Precondition).
    pub async fn delete_version(&self, adapter: &Slug, digest: Digest) -> Result<bool, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                self.versions(adapter).end(&mut transaction, digest).await?;
                sqlx::query("delete from adapter_versions where tenant_id = $1 and adapter_id = $2 and digest = $3")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .bind(digest.as_bytes().as_slice())
                    .execute(&mut *transaction)
                    .await?;
                let abandoned = blobs::abandon(&mut transaction, self.id, &[digest]).await?;
                transaction.commit().await?;
                Ok(!abandoned.is_empty())
            })
            .await
    }
}

async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    new: &NewVersion,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "insert into adapter_versions (tenant_id, adapter_id, digest, base_digest, size_bytes, receipt)
         values ($1, $2, $3, $4, $5, $6)
         on conflict on constraint adapter_versions_pkey do nothing",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(new.digest.as_bytes().as_slice())
    .bind(new.base_digest.as_bytes().as_slice())
    .bind(bigint(new.size_bytes))
    .bind(&new.receipt)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn get(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    digest: Digest,
) -> Result<AdapterVersion, StoreError> {
    let row = sqlx::query(
        "select v.digest, v.base_digest, v.size_bytes, v.receipt, v.created_at, s.state, s.report
           from adapter_versions v
           join version_states s using (tenant_id, adapter_id, digest)
          where v.tenant_id = $1 and v.adapter_id = $2 and v.digest = $3",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(digest.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::AdapterVersion, digest))?)
}

fn read(row: &PgRow) -> Result<AdapterVersion, StoreError> {
    Ok(AdapterVersion {
        digest: row.digest("digest")?,
        base_digest: row.digest("base_digest")?,
        size_bytes: row.count("size_bytes")?,
        receipt: row.try_get("receipt")?,
        state: lifecycle::state(row, "state")?,
        report: row.try_get("report")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Microseconds since 1970, which is all that PostgreSQL keeps of a time, and the digest.
fn write_key(version: &AdapterVersion) -> String {
    format!("{} {}", version.created_at.unix_timestamp_nanos() / 1_000, version.digest.hex())
}

fn read_key(key: &str) -> Result<(OffsetDateTime, Digest), StoreError> {
    let fields = key.split_once(' ').and_then(|(microseconds, digest)| {
        let nanoseconds = microseconds.parse::<i64>().ok().map(|value| i128::from(value) * 1_000)?;
        Some((OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?, Digest::from_hex(digest).ok()?))
    });
    fields.ok_or(StoreError::InvalidPageToken)
}
