//! Steps in the life of an adapter's versions, which are locked for them.

use std::collections::BTreeMap;

use domain::{Digest, TenantId, VersionState};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::state;
use crate::{Precondition, Resource, StoreError, rows::ReadRow};

/// Of the adapter whose versions are meant, in one transaction.
pub struct Versions<'a> {
    pub tenant: TenantId,
    pub adapter: Uuid,
    pub actor: &'a str,
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

    pub async fn lock_one(&self, connection: &mut PgConnection, digest: Digest) -> Result<VersionState, StoreError> {
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

    pub async fn expect_unnamed(&self, connection: &mut PgConnection, digest: Digest) -> Result<(), StoreError> {
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

    pub async fn step(
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
