//! Aliases: the only thing about a version that ever moves.

use std::collections::HashMap;

use domain::{Digest, Slug, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{TenantScope, adapters};
use crate::{Precondition, Resource, StoreError, error::Violations, rows::ReadRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub name: Slug,
    pub digest: Digest,
    /// Where it pointed before its last move; `None` at first, and when that version is deleted.
    pub previous_digest: Option<Digest>,
    /// Another one after every move, also after the alias was deleted and made again.
    pub etag: String,
    pub updated_at: OffsetDateTime,
}

impl TenantScope {
    /// Points an alias at a version of the same adapter; makes the alias when it is absent. An alias that points there
    /// already is left as it is. With an `etag` only if the alias exists and still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for adapter and version, [`StoreError::Conflict`] for the etag.
    pub async fn move_alias(
        &self,
        adapter: &Slug,
        alias: &Slug,
        digest: Digest,
        etag: Option<&str>,
    ) -> Result<Alias, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let moved = point(&mut transaction, self.id, adapter, alias, digest, etag).await?;
                transaction.commit().await?;
                Ok(moved)
            })
            .await
    }

    /// Points an alias back at where it pointed before its last move. Twice is there and back again.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::Conflict`] for the etag, [`Precondition::NoPreviousVersion`].
    pub async fn rollback_alias(&self, adapter: &Slug, alias: &Slug, etag: Option<&str>) -> Result<Alias, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let found = lock(&mut transaction, self.id, adapter, alias).await?;
                let found = found.ok_or_else(|| StoreError::not_found(Resource::Alias, alias))?;
                found.expect_etag(etag)?;
                let Some(previous) = found.previous_digest else {
                    return Err(StoreError::FailedPrecondition(Precondition::NoPreviousVersion));
                };
                let moved = update(&mut transaction, self.id, adapter, alias, previous).await?;
                transaction.commit().await?;
                Ok(moved)
            })
            .await
    }

    /// Errors: [`StoreError::NotFound`].
    pub async fn delete_alias(&self, adapter: &Slug, alias: &Slug) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let deleted = sqlx::query("delete from aliases where tenant_id = $1 and adapter_id = $2 and name = $3")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .bind(alias.as_str())
                    .execute(&mut *transaction)
                    .await?;
                if deleted.rows_affected() == 0 {
                    return Err(StoreError::not_found(Resource::Alias, alias));
                }
                transaction.commit().await?;
                Ok(())
            })
            .await
    }
}

impl Alias {
    fn expect_etag(&self, etag: Option<&str>) -> Result<(), StoreError> {
        match etag {
            Some(etag) if etag != self.etag => Err(StoreError::conflict(Resource::Alias, &self.name)),
            _ => Ok(()),
        }
    }
}

/// See [`TenantScope::move_alias`].
pub(super) async fn point(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    digest: Digest,
    etag: Option<&str>,
) -> Result<Alias, StoreError> {
    if etag.is_none()
        && let Some(made) = insert(connection, tenant, adapter, alias, digest).await?
    {
        return Ok(made);
    }
    let Some(found) = lock(connection, tenant, adapter, alias).await? else {
        // With an etag: it has been deleted since. Without: between the insert above and now.
        return Err(StoreError::conflict(Resource::Alias, alias));
    };
    found.expect_etag(etag)?;
    if found.digest == digest {
        return Ok(found);
    }
    update(connection, tenant, adapter, alias, digest).await
}

pub(super) async fn of_adapters(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapters: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Alias>>, StoreError> {
    let rows = sqlx::query("select * from aliases where tenant_id = $1 and adapter_id = any($2) order by name")
        .bind(tenant.uuid())
        .bind(adapters)
        .fetch_all(connection)
        .await?;
    let mut aliases: HashMap<Uuid, Vec<Alias>> = HashMap::new();
    for row in &rows {
        aliases.entry(row.try_get("adapter_id")?).or_default().push(read(row)?);
    }
    Ok(aliases)
}

/// `None` when there is one already.
async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    digest: Digest,
) -> Result<Option<Alias>, StoreError> {
    let row = sqlx::query(
        "insert into aliases (tenant_id, adapter_id, name, digest, revision) values ($1, $2, $3, $4, $5)
         on conflict on constraint aliases_pkey do nothing
         returning *",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(digest.as_bytes().as_slice())
    .bind(Uuid::now_v7())
    .fetch_optional(connection)
    .await
    .violations(|constraint| no_such_version(constraint, digest))?;
    row.as_ref().map(read).transpose()
}

/// The alias as the last move left it; until the end of the transaction nobody else moves it.
async fn lock(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
) -> Result<Option<Alias>, StoreError> {
    let row = sqlx::query("select * from aliases where tenant_id = $1 and adapter_id = $2 and name = $3 for update")
        .bind(tenant.uuid())
        .bind(adapter)
        .bind(alias.as_str())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

async fn update(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    digest: Digest,
) -> Result<Alias, StoreError> {
    let row = sqlx::query(
        "update aliases set digest = $4, previous_digest = digest, revision = $5, updated_at = now()
          where tenant_id = $1 and adapter_id = $2 and name = $3
         returning *",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(digest.as_bytes().as_slice())
    .bind(Uuid::now_v7())
    .fetch_one(connection)
    .await
    .violations(|constraint| no_such_version(constraint, digest))?;
    read(&row)
}

fn no_such_version(constraint: &str, digest: Digest) -> Option<StoreError> {
    (constraint == "aliases_version_fkey").then(|| StoreError::not_found(Resource::AdapterVersion, digest))
}

fn read(row: &PgRow) -> Result<Alias, StoreError> {
    Ok(Alias {
        name: row.slug("name")?,
        digest: row.digest("digest")?,
        previous_digest: row.optional_digest("previous_digest")?,
        etag: row.etag()?,
        updated_at: row.try_get("updated_at")?,
    })
}
