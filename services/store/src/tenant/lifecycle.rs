//! Where versions stand in their life, and every step that they took there. What an alias names is locked here before it
//! is named, so that nothing is retired while it is being pointed at.

mod steps;

use domain::{Digest, Slug, VersionState};
use serde_json::Value;
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AdapterVersion, TenantScope, adapters, versions};
use crate::{Page, PageOf, Precondition, Resource, StoreError};
pub(super) use steps::Versions;

/// One step of a version's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionStep {
    id: Uuid,
    /// `None` for the first one.
    pub from: Option<VersionState>,
    /// `None`: it was deleted.
    pub to: Option<VersionState>,
    pub reason: String,
    /// Who did it.
    pub actor: String,
    pub at: OffsetDateTime,
}

impl TenantScope {
    /// Puts a report to a version; one that is not live is `evaluated` from then on. A later report takes the place of an
    /// earlier one.
    ///
    /// Errors: [`StoreError::NotFound`], [`Precondition::VersionRetired`].
    pub async fn evaluate_version(
        &self,
        adapter: &Slug,
        digest: Digest,
        report: &Value,
        reason: &str,
    ) -> Result<AdapterVersion, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let own = self.versions(adapter);
                let found = own.lock_one(&mut transaction, digest).await?;
                let next = if found == VersionState::Live { found } else { VersionState::Evaluated };
                if !found.may_become(next) {
                    return Err(StoreError::FailedPrecondition(match found {
                        VersionState::Retired => Precondition::VersionRetired,
                        _ => Precondition::VersionNotChecked,
                    }));
                }
                sqlx::query(
                    "update version_states set report = $4 where tenant_id = $1 and adapter_id = $2 and digest = $3",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(digest.as_bytes().as_slice())
                .bind(report)
                .execute(&mut *transaction)
                .await?;
                own.step(&mut transaction, digest, found, next, reason).await?;
                let version = versions::get(&mut transaction, self.id, adapter, digest).await?;
                transaction.commit().await?;
                Ok(version)
            })
            .await
    }

    /// Takes a version out of use for good. Running answers finish. Idempotent.
    ///
    /// Errors: [`StoreError::NotFound`], [`Precondition::VersionHasAlias`], [`Precondition::VersionHasPin`].
    pub async fn retire_version(
        &self,
        adapter: &Slug,
        digest: Digest,
        reason: &str,
    ) -> Result<AdapterVersion, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let own = self.versions(adapter);
                let found = own.lock_one(&mut transaction, digest).await?;
                // Whoever points at it has locked it before: what is seen now stays.
                own.expect_unnamed(&mut transaction, digest).await?;
                if found != VersionState::Retired {
                    own.step(&mut transaction, digest, found, VersionState::Retired, reason).await?;
                }
                let version = versions::get(&mut transaction, self.id, adapter, digest).await?;
                transaction.commit().await?;
                Ok(version)
            })
            .await
    }

    /// Every step of a version, newest first; also of one that was deleted.
    pub async fn version_history(
        &self,
        adapter: &Slug,
        digest: Digest,
        page: &Page,
    ) -> Result<PageOf<VersionStep>, StoreError> {
        self.store
            .bounded(async {
                let list = format!("history of {adapter} {digest}");
                let before = page.after(&list)?.map(|key| Uuid::parse_str(&key)).transpose();
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let rows = sqlx::query(
                    "select id, from_state, to_state, reason, actor, created_at
                       from version_history
                      where tenant_id = $1 and adapter_id = $2 and digest = $3 and ($4::uuid is null or id < $4)
                      order by id desc
                      limit $5",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(digest.as_bytes().as_slice())
                .bind(before.map_err(|_| StoreError::InvalidPageToken)?)
                .bind(page.fetch())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                if rows.is_empty() && page.token.is_empty() {
                    return Err(StoreError::not_found(Resource::AdapterVersion, digest));
                }
                let steps = rows.iter().map(read).collect::<Result<_, _>>()?;
                Ok(page.cut(&list, steps, |step: &VersionStep| step.id.to_string()))
            })
            .await
    }

    pub(super) fn versions(&self, adapter: Uuid) -> Versions<'_> {
        Versions { tenant: self.id, adapter, actor: self.actor() }
    }
}

pub(super) fn state(row: &PgRow, column: &str) -> Result<VersionState, StoreError> {
    row.try_get::<String, _>(column)?.parse().map_err(StoreError::unreadable)
}

fn read(row: &PgRow) -> Result<VersionStep, StoreError> {
    let from: Option<String> = row.try_get("from_state")?;
    let to: String = row.try_get("to_state")?;
    Ok(VersionStep {
        id: row.try_get("id")?,
        from: from.map(|state| state.parse()).transpose().map_err(StoreError::unreadable)?,
        to: if to == "deleted" { None } else { Some(to.parse().map_err(StoreError::unreadable)?) },
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        at: row.try_get("created_at")?,
    })
}
