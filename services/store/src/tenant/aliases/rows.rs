//! Aliases as rows.

use std::collections::HashMap;

use domain::{BasisPoints, Digest, Part, Slug, Targets, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::Alias;
use crate::{StoreError, rows::ReadRow, tenant::lifecycle::Versions};

pub async fn of_adapters(
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
pub async fn insert(
    connection: &mut PgConnection,
    own: &Versions<'_>,
    alias: &Slug,
    digest: Digest,
) -> Result<Option<Alias>, StoreError> {
    own.lock_to_name(connection, digest).await?;
    let row = sqlx::query(
        "insert into aliases (tenant_id, adapter_id, name, digest, revision) values ($1, $2, $3, $4, $5)
         on conflict on constraint aliases_pkey do nothing
         returning *",
    )
    .bind(own.tenant.uuid())
    .bind(own.adapter)
    .bind(alias.as_str())
    .bind(digest.as_bytes().as_slice())
    .bind(Uuid::now_v7())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let locked = own.lock(connection, [digest]).await?;
    own.settle(connection, &locked, &format!("alias `{alias}`: made")).await?;
    Ok(Some(read(&row)?))
}

/// The alias as the last change left it; until the end of the transaction nobody else changes it.
pub async fn lock(
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

/// Another etag: something else about the alias has changed.
pub async fn touch(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
) -> Result<(), StoreError> {
    sqlx::query(
        "update aliases set revision = $4, updated_at = now() where tenant_id = $1 and adapter_id = $2 and name = $3",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(Uuid::now_v7())
    .execute(connection)
    .await?;
    Ok(())
}

/// A version beside the stable one, from two columns that are null together.
pub fn part(row: &PgRow, digest: &str, share: &str) -> Result<Option<Part>, StoreError> {
    let share: Option<i32> = row.try_get(share)?;
    let (Some(digest), Some(share)) = (row.optional_digest(digest)?, share) else { return Ok(None) };
    Ok(Some(Part { digest, share: basis_points(share)? }))
}

pub fn basis_points(value: i32) -> Result<BasisPoints, StoreError> {
    let value = u32::try_from(value).map_err(StoreError::unreadable)?;
    BasisPoints::new(value).map_err(StoreError::unreadable)
}

pub fn read(row: &PgRow) -> Result<Alias, StoreError> {
    Ok(Alias {
        name: row.slug("name")?,
        targets: Targets {
            stable: row.digest("digest")?,
            previous: row.optional_digest("previous_digest")?,
            canary: part(row, "canary_digest", "canary_weight")?,
            shadow: part(row, "shadow_digest", "shadow_rate")?,
        },
        etag: row.etag()?,
        updated_at: row.try_get("updated_at")?,
        revision: row.try_get("revision")?,
    })
}
