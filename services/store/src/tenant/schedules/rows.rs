//! Planned changes as rows.

use domain::{AliasChange, Digest, Part, Slug, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Schedule, ScheduleState};
use crate::{StoreError, rows::ReadRow, tenant::aliases};

/// Changes that are over and that are kept, for each alias.
const OVER_MAX: i64 = 20;

/// A planned change, and what it is held to.
pub struct Planned {
    pub adapter: Uuid,
    pub alias: Slug,
    pub expected_revision: Uuid,
    pub is_due: bool,
    pub schedule: Schedule,
}

/// Crosses off everything that is planned for an alias.
pub async fn fail_all(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    why: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "update alias_schedules set state = 'failed', outcome = $4, finished_at = now()
          where tenant_id = $1 and adapter_id = $2 and alias = $3 and state = 'pending'",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn pending(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "select count(*) as pending from alias_schedules
          where tenant_id = $1 and adapter_id = $2 and alias = $3 and state = 'pending'",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .fetch_one(connection)
    .await?;
    row.count("pending")
}

pub async fn forget_old(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
) -> Result<(), StoreError> {
    sqlx::query(
        "delete from alias_schedules
          where tenant_id = $1 and id in (
            select id from alias_schedules
             where tenant_id = $1 and adapter_id = $2 and alias = $3 and state <> 'pending'
             order by finished_at desc, id desc offset $4)",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(OVER_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn get(connection: &mut PgConnection, tenant: TenantId, id: Uuid) -> Result<Option<Planned>, StoreError> {
    let row = sqlx::query("select *, due_at <= now() as is_due from alias_schedules where tenant_id = $1 and id = $2")
        .bind(tenant.uuid())
        .bind(id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Planned {
        adapter: row.try_get("adapter_id")?,
        alias: row.slug("alias")?,
        expected_revision: row.try_get("expected_revision")?,
        is_due: row.try_get("is_due")?,
        schedule: read(&row)?,
    }))
}

pub async fn finish(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: Uuid,
    state: ScheduleState,
    outcome: &str,
) -> Result<Schedule, StoreError> {
    let row = sqlx::query(
        "update alias_schedules set state = $3, outcome = $4, finished_at = now()
          where tenant_id = $1 and id = $2
         returning *",
    )
    .bind(tenant.uuid())
    .bind(id)
    .bind(state.as_str())
    .bind(outcome)
    .fetch_one(connection)
    .await?;
    read(&row)
}

pub fn columns(change: AliasChange) -> Result<(&'static str, Option<Digest>, Option<i32>), StoreError> {
    Ok(match change {
        AliasChange::Move(digest) => ("move", Some(digest), None),
        AliasChange::Canary(Part { digest, share }) => ("canary", Some(digest), Some(i32::from(share.get()))),
        AliasChange::Weight(share) => ("weight", None, Some(i32::from(share.get()))),
        AliasChange::ClearCanary => ("clear_canary", None, None),
        AliasChange::Promote => ("promote", None, None),
        AliasChange::Rollback => ("rollback", None, None),
        AliasChange::Shadow(_) | AliasChange::ClearShadow => {
            return Err(StoreError::InvalidValue { field: "change", rule: "not be one of a shadow" });
        }
    })
}

pub fn read(row: &PgRow) -> Result<Schedule, StoreError> {
    let digest = || row.digest("digest");
    let share = || aliases::basis_points(row.try_get("weight")?);
    let change = match row.try_get::<&str, _>("action")? {
        "move" => AliasChange::Move(digest()?),
        "canary" => AliasChange::Canary(Part { digest: digest()?, share: share()? }),
        "weight" => AliasChange::Weight(share()?),
        "clear_canary" => AliasChange::ClearCanary,
        "promote" => AliasChange::Promote,
        "rollback" => AliasChange::Rollback,
        other => return Err(StoreError::unreadable(format!("`{other}` is no planned change"))),
    };
    Ok(Schedule {
        id: row.try_get("id")?,
        change,
        due_at: row.try_get("due_at")?,
        state: ScheduleState::read(row.try_get("state")?)?,
        outcome: row.try_get("outcome")?,
        actor: row.try_get("actor")?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}
