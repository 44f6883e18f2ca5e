//! Where versions stand in their life, and every step that they took there. What an alias names is locked here before it
//! is named, so that nothing is retired while it is being pointed at.

use std::collections::BTreeMap;

use domain::{Digest, Slug, TenantId, VersionState};
use serde_json::Value;
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AdapterVersion, TenantScope, adapters, versions};
use crate::{Page, PageOf, Precondition, Resource, StoreError, rows::ReadRow};

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

/// Of the adapter whose versions are meant, in one transaction.
pub(super) struct Versions<'a> {
    pub tenant: TenantId,
    pub adapter: Uuid,
    pub actor: &'a str,
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

impl Versions<'_> {
    /// Of a version that was inserted just now: uploaded, and checked before that.
    pub async fn begin(&self, connection: &mut PgConnection, digest: Digest) -> Result<(), StoreError> {
        sqlx::query("insert into version_states (tenant_id, adapter_id, digest, state) values ($1, $2, $3, $4)")
            .bind(self.tenant.uuid())
            .bind(self.adapter)
            .bind(digest.as_bytes().as_slice())
            .bind(VersionState::Uploaded.as_str())
            .execute(&mut *connection)
            .await?;
        let uploaded = VersionState::Uploaded;
        self.record(connection, digest, None, uploaded.as_str(), "its files are in the registry").await?;
        let why = "judged, loaded by a worker and probed: see its receipt";
        self.step(connection, digest, uploaded, VersionState::Checked, why).await
    }

    /// The states of these versions, which stay until the end of the transaction. In the order of their digests, so that
    /// two who lock several do not wait for each other.
    pub async fn lock(
        &self,
        connection: &mut PgConnection,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<BTreeMap<Digest, VersionState>, StoreError> {
        let digests: Vec<Vec<u8>> = digests.into_iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let rows = sqlx::query(
            "select digest, state from version_states
              where tenant_id = $1 and adapter_id = $2 and digest = any($3)
              order by digest
                for update",
        )
        .bind(self.tenant.uuid())
        .bind(self.adapter)
        .bind(digests)
        .fetch_all(connection)
        .await?;
        rows.iter().map(|row| Ok((row.digest("digest")?, state(row, "state")?))).collect()
    }

    async fn lock_one(&self, connection: &mut PgConnection, digest: Digest) -> Result<VersionState, StoreError> {
        let found = self.lock(connection, [digest]).await?;
        found.get(&digest).copied().ok_or_else(|| StoreError::not_found(Resource::AdapterVersion, digest))
    }

    /// Locks a version that is about to be pointed at.
    pub async fn lock_to_name(&self, connection: &mut PgConnection, digest: Digest) -> Result<(), StoreError> {
        match self.lock_one(connection, digest).await? {
            VersionState::Retired => Err(StoreError::FailedPrecondition(Precondition::VersionRetired)),
            VersionState::Uploaded => Err(StoreError::FailedPrecondition(Precondition::VersionNotChecked)),
            VersionState::Checked | VersionState::Evaluated | VersionState::Live => Ok(()),
        }
    }

    /// After aliases have changed: versions (locked) that answer now are live, and those that do not any more are what
    /// they were before.
    pub async fn settle(
        &self,
        connection: &mut PgConnection,
        locked: &BTreeMap<Digest, VersionState>,
        reason: &str,
    ) -> Result<(), StoreError> {
        for (digest, found) in locked {
            let row = sqlx::query(
                "select s.report is not null as evaluated,
                        exists (select from aliases l
                                 where l.tenant_id = $1 and l.adapter_id = $2 and $3 in (l.digest, l.canary_digest))
                          as answers
                   from version_states s where s.tenant_id = $1 and s.adapter_id = $2 and s.digest = $3",
            )
            .bind(self.tenant.uuid())
            .bind(self.adapter)
            .bind(digest.as_bytes().as_slice())
            .fetch_one(&mut *connection)
            .await?;
            let next = match (row.try_get("answers")?, row.try_get("evaluated")?, found) {
                (true, _, _) => VersionState::Live,
                (false, true, VersionState::Live) => VersionState::Evaluated,
                (false, false, VersionState::Live) => VersionState::Checked,
                _ => *found,
            };
            if next != *found {
                self.step(connection, *digest, *found, next, reason).await?;
            }
        }
        Ok(())
    }

    /// Of a version that is being deleted.
    pub async fn end(&self, connection: &mut PgConnection, digest: Digest) -> Result<(), StoreError> {
        let found = self.lock_one(connection, digest).await?;
        self.expect_unnamed(connection, digest).await?;
        // Those that are over.
        sqlx::query("delete from alias_pins where tenant_id = $1 and adapter_id = $2 and digest = $3")
            .bind(self.tenant.uuid())
            .bind(self.adapter)
            .bind(digest.as_bytes().as_slice())
            .execute(&mut *connection)
            .await?;
        self.record(connection, digest, Some(found), "deleted", "deleted").await
    }

    async fn expect_unnamed(&self, connection: &mut PgConnection, digest: Digest) -> Result<(), StoreError> {
        let row = sqlx::query(
            "select exists (select from aliases
                             where tenant_id = $1 and adapter_id = $2
                               and $3 in (digest, canary_digest, shadow_digest)) as aliases,
                    exists (select from alias_pins
                             where tenant_id = $1 and adapter_id = $2 and digest = $3 and expires_at > now()) as pins",
        )
        .bind(self.tenant.uuid())
        .bind(self.adapter)
        .bind(digest.as_bytes().as_slice())
        .fetch_one(connection)
        .await?;
        if row.try_get("aliases")? {
            return Err(StoreError::FailedPrecondition(Precondition::VersionHasAlias));
        }
        if row.try_get("pins")? {
            return Err(StoreError::FailedPrecondition(Precondition::VersionHasPin));
        }
        Ok(())
    }

    async fn step(
        &self,
        connection: &mut PgConnection,
        digest: Digest,
        from: VersionState,
        to: VersionState,
        reason: &str,
    ) -> Result<(), StoreError> {
        debug_assert!(from.may_become(to), "{from} to {to}");
        sqlx::query(
            "update version_states set state = $4, updated_at = now()
              where tenant_id = $1 and adapter_id = $2 and digest = $3",
        )
        .bind(self.tenant.uuid())
        .bind(self.adapter)
        .bind(digest.as_bytes().as_slice())
        .bind(to.as_str())
        .execute(&mut *connection)
        .await?;
        self.record(connection, digest, Some(from), to.as_str(), reason).await
    }

    async fn record(
        &self,
        connection: &mut PgConnection,
        digest: Digest,
        from: Option<VersionState>,
        to: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "insert into version_history (tenant_id, id, adapter_id, digest, from_state, to_state, reason, actor)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.tenant.uuid())
        .bind(Uuid::now_v7())
        .bind(self.adapter)
        .bind(digest.as_bytes().as_slice())
        .bind(from.map(VersionState::as_str))
        .bind(to)
        .bind(reason)
        .bind(self.actor)
        .execute(connection)
        .await?;
        Ok(())
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
