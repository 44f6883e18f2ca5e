//! Changes of an alias that take effect at a time. Whoever comes first makes them, in one transaction with crossing them
//! off, and always with the alias locked before the planned change: so each happens once, in its turn. A change that finds
//! the alias changed by somebody else since it was planned fails; changes that were planned together hand on what they
//! leave.

use domain::{AliasChange, Digest, Part, Slug, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alias, TenantScope, adapters, aliases};
use crate::{Platform, Precondition, Resource, Stock, StoreError, connection::Scope, rows::ReadRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub id: Uuid,
    pub change: AliasChange,
    pub due_at: OffsetDateTime,
    pub state: ScheduleState,
    /// Why it failed; else empty.
    pub outcome: String,
    /// Who planned it.
    pub actor: String,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleState {
    Pending,
    Done,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Not a shadow's.
    pub change: AliasChange,
    pub due_at: OffsetDateTime,
}

/// Changes that are over and that are kept, for each alias.
const OVER_MAX: i64 = 20;

impl TenantScope {
    /// Plans a change of an alias as it is now. With an `etag` only if the alias still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for adapter, alias and version, [`StoreError::Conflict`] for the etag,
    /// [`Precondition::VersionRetired`], [`StoreError::QuotaExceeded`] beyond `pending_max` of the alias,
    /// [`StoreError::InvalidValue`] for a change that cannot be planned.
    pub async fn create_schedule(
        &self,
        adapter: &Slug,
        alias: &Slug,
        new: NewSchedule,
        pending_max: u32,
        etag: Option<&str>,
    ) -> Result<Schedule, StoreError> {
        let (action, digest, weight) = columns(new.change)?;
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let found = aliases::expect(&mut transaction, self.id, adapter, alias, etag).await?;
                if let Some(digest) = digest {
                    self.versions(adapter).lock_to_name(&mut transaction, digest).await?;
                }
                let (used, max) = (pending(&mut transaction, self.id, adapter, alias).await?, u64::from(pending_max));
                if used >= max {
                    return Err(StoreError::QuotaExceeded { stock: Stock::Schedules, max, used, wanted: 1 });
                }
                let row = sqlx::query(
                    "insert into alias_schedules (tenant_id, id, adapter_id, alias, action, digest, weight, due_at,
                                                  expected_revision, actor)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                     returning *",
                )
                .bind(self.id.uuid())
                .bind(Uuid::now_v7())
                .bind(adapter)
                .bind(alias.as_str())
                .bind(action)
                .bind(digest.map(|digest| digest.as_bytes().to_vec()))
                .bind(weight)
                .bind(new.due_at)
                .bind(found.revision)
                .bind(self.actor())
                .fetch_one(&mut *transaction)
                .await?;
                forget_old(&mut transaction, self.id, adapter, alias).await?;
                transaction.commit().await?;
                read(&row)
            })
            .await
    }

    /// Of an alias: what is planned, in its order, and then what is over, the last ones first.
    pub async fn list_schedules(&self, adapter: &Slug, alias: &Slug) -> Result<Vec<Schedule>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let rows = sqlx::query(
                    "(select * from alias_schedules
                       where tenant_id = $1 and adapter_id = $2 and alias = $3 and state = 'pending'
                       order by due_at, id)
                     union all
                     (select * from alias_schedules
                       where tenant_id = $1 and adapter_id = $2 and alias = $3 and state <> 'pending'
                       order by finished_at desc, id desc)",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(alias.as_str())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                rows.iter().map(read).collect()
            })
            .await
    }

    /// Errors: [`StoreError::NotFound`], [`Precondition::ScheduleIsOver`].
    pub async fn cancel_schedule(&self, adapter: &Slug, alias: &Slug, id: Uuid) -> Result<Schedule, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                aliases::lock(&mut transaction, self.id, adapter, alias).await?;
                let found = get(&mut transaction, self.id, id).await?;
                let found = found.filter(|found| found.adapter == adapter && found.alias == *alias);
                let found = found.ok_or_else(|| StoreError::not_found(Resource::Schedule, id))?;
                if found.schedule.state != ScheduleState::Pending {
                    return Err(StoreError::FailedPrecondition(Precondition::ScheduleIsOver));
                }
                let cancelled = finish(&mut transaction, self.id, id, ScheduleState::Cancelled, "").await?;
                transaction.commit().await?;
                Ok(cancelled)
            })
            .await
    }

    /// Makes a planned change that is due. `None` when there is nothing to do any more. A change that cannot be made is
    /// crossed off as failed; while the database fails, it stays planned.
    pub async fn run_schedule(&self, id: Uuid) -> Result<Option<(Slug, Schedule)>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let Some(planned) = get(&mut transaction, self.id, id).await? else { return Ok(None) };
                let alias = aliases::lock(&mut transaction, self.id, planned.adapter, &planned.alias).await?;
                // As it is now that nobody else can run it.
                let Some(planned) = get(&mut transaction, self.id, id).await? else { return Ok(None) };
                if planned.schedule.state != ScheduleState::Pending || !planned.is_due {
                    return Ok(None);
                }
                let slug = adapters::slug_of(&mut transaction, self.id, planned.adapter).await?;
                let scope = self.clone().by(&planned.schedule.actor);
                let failed = match scope.make(&mut transaction, &planned, alias.as_ref()).await {
                    Ok(()) => None,
                    Err(StoreError::Conflict { .. }) => {
                        Some("the alias was changed by somebody else since this was planned".to_owned())
                    }
                    Err(StoreError::FailedPrecondition(why)) => Some(why.to_string()),
                    Err(error @ StoreError::NotFound { .. }) => Some(error.to_string()),
                    Err(error) => return Err(error),
                };
                let state = if failed.is_some() { ScheduleState::Failed } else { ScheduleState::Done };
                let finished = finish(&mut transaction, self.id, id, state, &failed.unwrap_or_default()).await?;
                transaction.commit().await?;
                Ok(Some((slug, finished)))
            })
            .await
    }

    async fn make(
        &self,
        connection: &mut PgConnection,
        planned: &Planned,
        alias: Option<&Alias>,
    ) -> Result<(), StoreError> {
        let alias = alias.ok_or_else(|| StoreError::not_found(Resource::Alias, &planned.alias))?;
        if alias.revision != planned.expected_revision {
            return Err(StoreError::conflict(Resource::Alias, &alias.name));
        }
        let own = self.versions(planned.adapter);
        let changed = aliases::apply(connection, &own, alias, planned.schedule.change).await?;
        sqlx::query(
            "update alias_schedules set expected_revision = $5
              where tenant_id = $1 and adapter_id = $2 and alias = $3 and state = 'pending' and expected_revision = $4",
        )
        .bind(self.id.uuid())
        .bind(planned.adapter)
        .bind(alias.name.as_str())
        .bind(alias.revision)
        .bind(changed.revision)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Platform {
    /// Planned changes whose time has come, in their order.
    pub async fn due_schedules(&self, limit: u16) -> Result<Vec<(TenantId, Uuid)>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
                    "select tenant_id, id from alias_schedules
                      where state = 'pending' and due_at <= now() order by due_at, id limit $1",
                )
                .bind(i64::from(limit))
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                Ok(rows.into_iter().map(|(tenant, id)| (TenantId::new(tenant), id)).collect())
            })
            .await
    }
}

/// A planned change, and what it is held to.
struct Planned {
    adapter: Uuid,
    alias: Slug,
    expected_revision: Uuid,
    is_due: bool,
    schedule: Schedule,
}

impl ScheduleState {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        [Self::Pending, Self::Done, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| StoreError::unreadable(format!("`{text}` is no state of a planned change")))
    }
}

/// Crosses off everything that is planned for an alias.
pub(super) async fn fail_all(
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

async fn pending(
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

async fn forget_old(
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

async fn get(connection: &mut PgConnection, tenant: TenantId, id: Uuid) -> Result<Option<Planned>, StoreError> {
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

async fn finish(
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

fn columns(change: AliasChange) -> Result<(&'static str, Option<Digest>, Option<i32>), StoreError> {
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

fn read(row: &PgRow) -> Result<Schedule, StoreError> {
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
