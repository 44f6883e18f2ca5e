//! Tenants: the rows, and how they are read. Who may do what with them stands in `platform` and `tenant`.

use domain::{Slug, TenantId, TenantLimits};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, PageOf, Resource, StoreError,
    error::Violations,
    rows::{ReadRow, bigint},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub slug: Slug,
    pub fields: TenantFields,
    /// Tenants of one group may share KV prefixes; its own id unless somebody decides otherwise.
    pub share_group: Uuid,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What may be changed of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantFields {
    /// At most 256 characters.
    pub display_name: String,
    /// Present ones are above zero.
    pub limits: TenantLimits,
}

#[derive(Clone, Debug)]
pub struct NewTenant {
    pub slug: Slug,
    pub fields: TenantFields,
}

const LIST: &str = "tenants";

pub(crate) async fn create(connection: &mut PgConnection, new: &NewTenant) -> Result<Tenant, StoreError> {
    let TenantFields { display_name, limits } = &new.fields;
    let row = sqlx::query(
        "insert into tenants (id, slug, display_name, share_group, requests_per_minute, tokens_per_minute,
                              concurrent_requests, adapters_max, adapter_bytes_max, adapter_rank_max)
         values ($1, $2, $3, $1, $4, $5, $6, $7, $8, $9)
         returning *",
    )
    .bind(Uuid::now_v7())
    .bind(new.slug.as_str())
    .bind(display_name)
    .bind(limits.requests_per_minute.map(i64::from))
    .bind(limits.tokens_per_minute.map(i64::from))
    .bind(limits.concurrent_requests.map(i64::from))
    .bind(limits.adapters_max.map(i64::from))
    .bind(limits.adapter_bytes_max.map(bigint))
    .bind(limits.adapter_rank_max.map(i64::from))
    .fetch_one(connection)
    .await
    .violations(|constraint| match constraint {
        "tenants_slug_key" => Some(StoreError::AlreadyExists { what: Resource::Tenant, name: new.slug.to_string() }),
        _ => None,
    })?;
    read(&row)
}

pub(crate) async fn by_slug(connection: &mut PgConnection, slug: &Slug) -> Result<Tenant, StoreError> {
    let row =
        sqlx::query("select * from tenants where slug = $1").bind(slug.as_str()).fetch_optional(connection).await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::Tenant, slug))?)
}

pub(crate) async fn by_slug_for_update(connection: &mut PgConnection, slug: &Slug) -> Result<Tenant, StoreError> {
    let row = sqlx::query("select * from tenants where slug = $1 for update")
        .bind(slug.as_str())
        .fetch_optional(connection)
        .await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::Tenant, slug))?)
}

pub(crate) async fn by_id(connection: &mut PgConnection, id: TenantId) -> Result<Tenant, StoreError> {
    let row = sqlx::query("select * from tenants where id = $1").bind(id.uuid()).fetch_optional(connection).await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::Tenant, id))?)
}

/// By slug.
pub(crate) async fn list(connection: &mut PgConnection, page: &Page) -> Result<PageOf<Tenant>, StoreError> {
    let rows = sqlx::query("select * from tenants where ($1::text is null or slug > $1) order by slug limit $2")
        .bind(page.after(LIST)?)
        .bind(page.fetch())
        .fetch_all(connection)
        .await?;
    let tenants = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, tenants, |tenant: &Tenant| tenant.slug.to_string()))
}

pub(crate) async fn update(
    connection: &mut PgConnection,
    id: TenantId,
    fields: &TenantFields,
) -> Result<Tenant, StoreError> {
    let TenantFields { display_name, limits } = fields;
    let row = sqlx::query(
        "update tenants
            set display_name = $2, requests_per_minute = $3, tokens_per_minute = $4, concurrent_requests = $5,
                adapters_max = $6, adapter_bytes_max = $7, adapter_rank_max = $8, updated_at = now()
          where id = $1
         returning *",
    )
    .bind(id.uuid())
    .bind(display_name)
    .bind(limits.requests_per_minute.map(i64::from))
    .bind(limits.tokens_per_minute.map(i64::from))
    .bind(limits.concurrent_requests.map(i64::from))
    .bind(limits.adapters_max.map(i64::from))
    .bind(limits.adapter_bytes_max.map(bigint))
    .bind(limits.adapter_rank_max.map(i64::from))
    .fetch_one(connection)
    .await?;
    read(&row)
}

fn read(row: &PgRow) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: TenantId::new(row.try_get("id")?),
        slug: row.slug("slug")?,
        fields: TenantFields { display_name: row.try_get("display_name")?, limits: row.limits()? },
        share_group: row.try_get("share_group")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
