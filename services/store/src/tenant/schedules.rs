//! Changes of an alias that take effect at a time. Whoever comes first makes them, in one transaction with crossing them
//! off, and always with the alias locked before the planned change: so each happens once, in its turn. A change that finds
//! the alias changed by somebody else since it was planned fails; changes that were planned together hand on what they
//! leave.

mod rows;

use domain::{AliasChange, Slug, TenantId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alias, TenantScope, adapters, aliases};
use crate::{Platform, Precondition, Resource, Stock, StoreError, connection::Scope};
use rows::Planned;
pub(super) use rows::fail_all;

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
        let (action, digest, weight) = rows::columns(new.change)?;
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let found = aliases::expect(&mut transaction, self.id, adapter, alias, etag).await?;
                if let Some(digest) = digest {
                    self.versions(adapter).lock_to_name(&mut transaction, digest).await?;
                }
                let (used, max) =
                    (rows::pending(&mut transaction, self.id, adapter, alias).await?, u64::from(pending_max));
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
                rows::forget_old(&mut transaction, self.id, adapter, alias).await?;
                transaction.commit().await?;
                rows::read(&row)
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
                rows.iter().map(rows::read).collect()
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
                let found = rows::get(&mut transaction, self.id, id).await?;
                let found = found.filter(|found| found.adapter == adapter && found.alias == *alias);
                let found = found.ok_or_else(|| StoreError::not_found(Resource::Schedule, id))?;
                if found.schedule.state != ScheduleState::Pending {
                    return Err(StoreError::FailedPrecondition(Precondition::ScheduleIsOver));
                }
                let cancelled = rows::finish(&mut transaction, self.id, id, ScheduleState::Cancelled, "").await?;
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
                let Some(planned) = rows::get(&mut transaction, self.id, id).await? else { return Ok(None) };
                let alias = aliases::lock(&mut transaction, self.id, planned.adapter, &planned.alias).await?;
                // As it is now that nobody else can run it.
                let Some(planned) = rows::get(&mut transaction, self.id, id).await? else { return Ok(None) };
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
                let finished = rows::finish(&mut transaction, self.id, id, state, &failed.unwrap_or_default()).await?;
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
