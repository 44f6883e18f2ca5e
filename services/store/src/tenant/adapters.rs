//! A tenant's adapters.

use std::collections::HashMap;

use domain::{Digest, Slug, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alias, TenantScope, aliases};
use crate::{Page, PageOf, Resource, Stock, StoreError, blobs, error::Violations, rows::ReadRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    pub slug: Slug,
    pub display_name: String,
    /// By name.
    pub aliases: Vec<Alias>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

const LIST: &str = "adapters";

impl TenantScope {
    /// Errors: [`StoreError::AlreadyExists`]; [`StoreError::QuotaExceeded`] when the tenant has `adapters_max` already;
    /// [`StoreError::NotFound`] when the tenant is gone.
    pub async fn create_adapter(
        &self,
        slug: &Slug,
        display_name: &str,
        adapters_max: u32,
    ) -> Result<Adapter, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                blobs::lock_stock(&mut transaction, self.id).await?;
                let adapter = insert(&mut transaction, self.id, slug, display_name).await?;
                // Counted after the insert, so that a name that is taken is called taken even when the stock is used up.
                let used = count(&mut transaction, self.id).await?;
                let max = u64::from(adapters_max);
                if used > max {
                    return Err(StoreError::QuotaExceeded { stock: Stock::Adapters, max, used: used - 1, wanted: 1 });
                }
                transaction.commit().await?;
                Ok(adapter)
            })
            .await
    }

    pub async fn get_adapter(&self, slug: &Slug) -> Result<Adapter, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let row = sqlx::query(
                    "select id, slug, display_name, created_at, updated_at
                       from adapters where tenant_id = $1 and slug = $2",
                )
                .bind(self.id.uuid())
                .bind(slug.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
                let row = row.ok_or_else(|| StoreError::not_found(Resource::Adapter, slug))?;
                let adapters = with_aliases(&mut transaction, self.id, &[row]).await?;
                transaction.commit().await?;
                adapters.into_iter().next().ok_or_else(|| StoreError::not_found(Resource::Adapter, slug))
            })
            .await
    }

    /// By slug.
    pub async fn list_adapters(&self, page: &Page) -> Result<PageOf<Adapter>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let rows = sqlx::query(
                    "select id, slug, display_name, created_at, updated_at
                       from adapters
                      where tenant_id = $1 and ($2::text is null or slug > $2)
                      order by slug
                      limit $3",
                )
                .bind(self.id.uuid())
                .bind(page.after(LIST)?)
                .bind(page.fetch())
                .fetch_all(&mut *transaction)
                .await?;
                let adapters = with_aliases(&mut transaction, self.id, &rows).await?;
                transaction.commit().await?;
                Ok(page.cut(LIST, adapters, |adapter| adapter.slug.to_string()))
            })
            .await
    }

    /// Deletes the adapter, its aliases and its versions, and hands files that no other version needs over to deletion:
    /// the digests returned. Running answers keep what they have loaded.
    pub async fn delete_adapter(&self, slug: &Slug) -> Result<Vec<Digest>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = lock(&mut transaction, self.id, slug).await?;
                sqlx::query("delete from aliases where tenant_id = $1 and adapter_id = $2")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(
                    "insert into version_history (tenant_id, id, adapter_id, digest, from_state, to_state, reason, actor)
                     select tenant_id, gen_random_uuid(), adapter_id, digest, state, 'deleted', 'deleted with its adapter', $3
                       from version_states where tenant_id = $1 and adapter_id = $2",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(self.actor())
                .execute(&mut *transaction)
                .await?;
                let rows = sqlx::query(
                    "delete from adapter_versions where tenant_id = $1 and adapter_id = $2 returning digest",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .fetch_all(&mut *transaction)
                .await?;
                let digests = rows.iter().map(|row| row.digest("digest")).collect::<Result<Vec<_>, _>>()?;
                let abandoned = blobs::abandon(&mut transaction, self.id, &digests).await?;
                sqlx::query("delete from adapters where tenant_id = $1 and id = $2")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                Ok(abandoned)
            })
            .await
    }
}

/// The adapter's id. Until the end of the transaction it is not deleted, while others may add versions too.
pub(super) async fn hold(connection: &mut PgConnection, tenant: TenantId, slug: &Slug) -> Result<Uuid, StoreError> {
    sqlx::query_scalar("select id from adapters where tenant_id = $1 and slug = $2 for key share")
        .bind(tenant.uuid())
        .bind(slug.as_str())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::not_found(Resource::Adapter, slug))
}

pub(super) async fn slug_of(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
) -> Result<Slug, StoreError> {
    let row = sqlx::query("select slug from adapters where tenant_id = $1 and id = $2")
        .bind(tenant.uuid())
        .bind(adapter)
        .fetch_optional(connection)
        .await?;
    row.ok_or_else(|| StoreError::not_found(Resource::Adapter, adapter))?.slug("slug")
}

/// The adapter's id. Until the end of the transaction nobody adds versions or aliases to it.
async fn lock(connection: &mut PgConnection, tenant: TenantId, slug: &Slug) -> Result<Uuid, StoreError> {
    sqlx::query_scalar("select id from adapters where tenant_id = $1 and slug = $2 for update")
        .bind(tenant.uuid())
        .bind(slug.as_str())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::not_found(Resource::Adapter, slug))
}

pub(super) async fn count(connection: &mut PgConnection, tenant: TenantId) -> Result<u64, StoreError> {
    let row = sqlx::query("select count(*) as adapters from adapters where tenant_id = $1")
        .bind(tenant.uuid())
        .fetch_one(connection)
        .await?;
    row.count("adapters")
}

async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    slug: &Slug,
    display_name: &str,
) -> Result<Adapter, StoreError> {
    let row = sqlx::query(
        "insert into adapters (tenant_id, id, slug, display_name) values ($1, $2, $3, $4)
         returning id, slug, display_name, created_at, updated_at",
    )
    .bind(tenant.uuid())
    .bind(Uuid::now_v7())
    .bind(slug.as_str())
    .bind(display_name)
    .fetch_one(connection)
    .await
    .violations(|constraint| match constraint {
        "adapters_slug_key" => Some(StoreError::AlreadyExists { what: Resource::Adapter, name: slug.to_string() }),
        "adapters_tenant_fkey" => Some(StoreError::not_found(Resource::Tenant, tenant)),
        _ => None,
    })?;
    read(&row, Vec::new())
}

async fn with_aliases(
    connection: &mut PgConnection,
    tenant: TenantId,
    rows: &[PgRow],
) -> Result<Vec<Adapter>, StoreError> {
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<Result<Vec<Uuid>, _>>()?;
    let mut aliases: HashMap<Uuid, Vec<Alias>> = aliases::of_adapters(connection, tenant, &ids).await?;
    rows.iter().zip(&ids).map(|(row, id)| read(row, aliases.remove(id).unwrap_or_default())).collect()
}

fn read(row: &PgRow, aliases: Vec<Alias>) -> Result<Adapter, StoreError> {
    Ok(Adapter {
        slug: row.slug("slug")?,
        display_name: row.try_get("display_name")?,
        aliases,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
