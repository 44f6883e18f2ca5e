//! Plans: the rows, and how they are read. Only the operator changes them; see `platform`.

use domain::{Outage, Share, Slug, TenantLimits};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, PageOf, Precondition, Resource, StoreError,
    error::Violations,
    limits::{ReadLimits, bind_tenant_limits},
    rows::ReadRow,
};

/// The plan of tenants that were given none. Always there.
pub const DEFAULT_PLAN: &str = "default";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub slug: Slug,
    pub fields: PlanFields,
    /// Another one after every change.
    pub etag: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What may be changed of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanFields {
    /// At most 256 characters.
    pub display_name: String,
    /// Present ones are above zero.
    pub limits: TenantLimits,
    pub share: Share,
    pub outage: Outage,
}

#[derive(Clone, Debug)]
pub struct NewPlan {
    pub slug: Slug,
    pub fields: PlanFields,
}

const LIST: &str = "plans";

pub(crate) async fn create(connection: &mut PgConnection, new: &NewPlan) -> Result<Plan, StoreError> {
    let query = sqlx::query(
        "insert into plans (slug, display_name, weight, priority, kv_blocks_max, resident_adapters_max,
                            waiting_requests_max, limits_outage, revision, requests_per_minute,
                            input_tokens_per_minute, output_tokens_per_minute, concurrent_requests, budget_day_micros,
                            budget_month_micros, adapters_max, adapter_bytes_max, adapter_rank_max)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         returning *",
    );
    let row = bind(query, &new.slug, &new.fields).fetch_one(connection).await.violations(|constraint| {
        (constraint == "plans_pkey")
            .then(|| StoreError::AlreadyExists { what: Resource::Plan, name: new.slug.to_string() })
    })?;
    read(&row)
}

pub(crate) async fn get(connection: &mut PgConnection, slug: &Slug) -> Result<Plan, StoreError> {
    let row = sqlx::query("select * from plans where slug = $1").bind(slug.as_str()).fetch_optional(connection).await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::Plan, slug))?)
}

/// As the last change left it; until the end of the transaction nobody else changes it.
pub(crate) async fn lock(connection: &mut PgConnection, slug: &Slug, etag: Option<&str>) -> Result<Plan, StoreError> {
    let row = sqlx::query("select * from plans where slug = $1 for update")
        .bind(slug.as_str())
        .fetch_optional(connection)
        .await?;
    let plan = read(&row.ok_or_else(|| StoreError::not_found(Resource::Plan, slug))?)?;
    match etag {
        Some(etag) if etag != plan.etag => Err(StoreError::conflict(Resource::Plan, slug)),
        _ => Ok(plan),
    }
}

/// By slug.
pub(crate) async fn list(connection: &mut PgConnection, page: &Page) -> Result<PageOf<Plan>, StoreError> {
    let rows = sqlx::query("select * from plans where ($1::text is null or slug > $1) order by slug limit $2")
        .bind(page.after(LIST)?)
        .bind(page.fetch())
        .fetch_all(connection)
        .await?;
    let plans = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, plans, |plan: &Plan| plan.slug.to_string()))
}

pub(crate) async fn update(
    connection: &mut PgConnection,
    slug: &Slug,
    fields: &PlanFields,
) -> Result<Plan, StoreError> {
    let query = sqlx::query(
        "update plans
            set display_name = $2, weight = $3, priority = $4, kv_blocks_max = $5, resident_adapters_max = $6,
                waiting_requests_max = $7, limits_outage = $8, revision = $9, requests_per_minute = $10,
                input_tokens_per_minute = $11, output_tokens_per_minute = $12, concurrent_requests = $13,
                budget_day_micros = $14, budget_month_micros = $15, adapters_max = $16, adapter_bytes_max = $17,
                adapter_rank_max = $18, updated_at = now()
          where slug = $1
         returning *",
    );
    read(&bind(query, slug, fields).fetch_one(connection).await?)
}

/// Errors: [`StoreError::NotFound`], [`Precondition::PlanInUse`], [`Precondition::PlanIsDefault`].
pub(crate) async fn delete(connection: &mut PgConnection, slug: &Slug) -> Result<(), StoreError> {
    let deleted =
        sqlx::query("delete from plans where slug = $1").bind(slug.as_str()).execute(connection).await.violations(
            |constraint| match constraint {
                "tenants_plan_fkey" => Some(StoreError::FailedPrecondition(Precondition::PlanInUse)),
                "plans_default_stays" => Some(StoreError::FailedPrecondition(Precondition::PlanIsDefault)),
                _ => None,
            },
        )?;
    if deleted.rows_affected() == 0 {
        return Err(StoreError::not_found(Resource::Plan, slug));
    }
    Ok(())
}

fn bind<'q>(
    query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
    slug: &'q Slug,
    fields: &'q PlanFields,
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let PlanFields { display_name, limits, share, outage } = fields;
    let query = query
        .bind(slug.as_str())
        .bind(display_name)
        .bind(i64::from(share.weight))
        .bind(i64::from(share.priority))
        .bind(i64::from(share.kv_blocks_max))
        .bind(i64::from(share.resident_adapters_max))
        .bind(i64::from(share.waiting_requests_max))
        .bind(outage.as_str())
        .bind(Uuid::now_v7());
    bind_tenant_limits(query, limits)
}

fn read(row: &PgRow) -> Result<Plan, StoreError> {
    Ok(Plan {
        slug: row.slug("slug")?,
        fields: PlanFields {
            display_name: row.try_get("display_name")?,
            limits: row.tenant_limits()?,
            share: row.share()?,
            outage: row.outage()?,
        },
        etag: row.etag()?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
