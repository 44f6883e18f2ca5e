//! Tenants: the rows, and how they are read. Who may do what with them stands in `platform` and `tenant`.

use domain::{Slug, TenantId, TenantLimits};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    DEFAULT_PLAN, Page, PageOf, Resource, StoreError,
    error::Violations,
    limits::{ReadLimits, bind_tenant_limits},
    rows::ReadRow,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub slug: Slug,
    pub fields: TenantFields,
    /// Tenants of one group may share KV prefixes; its own id unless somebody decides otherwise.
    pub share_group: Uuid,
    /// Another one after every change.
    pub etag: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What may be changed of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantFields {
    /// At most 256 characters.
    pub display_name: String,
    /// What holds where the tenant's own limits say nothing.
    pub plan: Slug,
    /// Its own, above the plan's. Present ones are above zero.
    pub limits: TenantLimits,
}

impl Default for TenantFields {
    fn default() -> Self {
        let plan = DEFAULT_PLAN.parse().expect("the default plan's name is a slug");
        Self { display_name: String::new(), plan, limits: TenantLimits::default() }
    }
}

#[derive(Clone, Debug)]
pub struct NewTenant {
    pub slug: Slug,
    pub fields: TenantFields,
}

const LIST: &str = "tenants";

pub(crate) async fn create(connection: &mut PgConnection, new: &NewTenant) -> Result<Tenant, StoreError> {
    let TenantFields { display_name, plan, limits } = &new.fields;
    let query = sqlx::query(
        "insert into tenants (id, slug, display_name, share_group, plan, revision, requests_per_minute,
                              input_tokens_per_minute, output_tokens_per_minute, concurrent_requests, budget_day_micros,
                              budget_month_micros, adapters_max, adapter_bytes_max, adapter_rank_max)
         values ($1, $2, $3, $1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         returning *",
    )
    .bind(Uuid::now_v7())
    .bind(new.slug.as_str())
    .bind(display_name)
    .bind(plan.as_str())
    .bind(Uuid::now_v7());
    let row =
        bind_tenant_limits(query, limits).fetch_one(connection).await.violations(|constraint| match constraint {
            "tenants_slug_key" => {
                Some(StoreError::AlreadyExists { what: Resource::Tenant, name: new.slug.to_string() })
            }
            other => no_such_plan(other, plan),
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
    let TenantFields { display_name, plan, limits } = fields;
    let query = sqlx::query(
        "update tenants
            set display_name = $2, plan = $3, revision = $4, requests_per_minute = $5, input_tokens_per_minute = $6,
                output_tokens_per_minute = $7, concurrent_requests = $8, budget_day_micros = $9,
                budget_month_micros = $10, adapters_max = $11, adapter_bytes_max = $12, adapter_rank_max = $13,
                updated_at = now()
          where id = $1
         returning *",
    )
    .bind(id.uuid())
    .bind(display_name)
    .bind(plan.as_str())
    .bind(Uuid::now_v7());
    let row = bind_tenant_limits(query, limits)
        .fetch_one(connection)
        .await
        .violations(|constraint| no_such_plan(constraint, plan))?;
    read(&row)
}

fn no_such_plan(constraint: &str, plan: &Slug) -> Option<StoreError> {
    (constraint == "tenants_plan_fkey").then(|| StoreError::not_found(Resource::Plan, plan))
}

fn read(row: &PgRow) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: TenantId::new(row.try_get("id")?),
        slug: row.slug("slug")?,
        fields: TenantFields {
            display_name: row.try_get("display_name")?,
            plan: row.slug("plan")?,
            limits: row.tenant_limits()?,
        },
        share_group: row.try_get("share_group")?,
        etag: row.etag()?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
