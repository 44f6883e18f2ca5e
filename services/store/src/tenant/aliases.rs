//! Aliases: the only thing about a version that ever moves. Every change goes through [`TenantScope::change_alias`], with
//! the alias locked; what a change does stands in `domain::Targets`.

mod rows;

use std::collections::BTreeSet;

use domain::{AliasChange, Digest, Slug, Targets, TenantId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{TenantScope, adapters, lifecycle::Versions, schedules};
use crate::{Precondition, Resource, StoreError};
pub(super) use rows::{basis_points, lock, of_adapters, part, touch};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub name: Slug,
    /// The previous version is `None` at first, and when it was deleted.
    pub targets: Targets,
    /// Another one after every change, also after the alias was deleted and made again.
    pub etag: String,
    pub updated_at: OffsetDateTime,
    pub(super) revision: Uuid,
}

impl TenantScope {
    /// Points an alias at a version of the same adapter; makes the alias when it is absent. An alias that points there
    /// already is left as it is. With an `etag` only if the alias exists and still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for adapter and version, [`StoreError::Conflict`] for the etag,
    /// [`Precondition::VersionRetired`].
    pub async fn move_alias(
        &self,
        adapter: &Slug,
        alias: &Slug,
        digest: Digest,
        etag: Option<&str>,
    ) -> Result<Alias, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let moved = point(&mut transaction, &self.versions(adapter), alias, digest, etag).await?;
                transaction.commit().await?;
                Ok(moved)
            })
            .await
    }

    /// Changes what an alias points at, in one transaction. With an `etag` only if the alias still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for adapter, alias and version, [`StoreError::Conflict`] for the etag,
    /// [`Precondition::Rollout`], [`Precondition::VersionRetired`].
    pub async fn change_alias(
        &self,
        adapter: &Slug,
        alias: &Slug,
        change: AliasChange,
        etag: Option<&str>,
    ) -> Result<Alias, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let found = expect(&mut transaction, self.id, adapter, alias, etag).await?;
                let changed = apply(&mut transaction, &self.versions(adapter), &found, change).await?;
                transaction.commit().await?;
                Ok(changed)
            })
            .await
    }

    pub async fn get_alias(&self, adapter: &Slug, alias: &Slug) -> Result<Alias, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let row = sqlx::query("select * from aliases where tenant_id = $1 and adapter_id = $2 and name = $3")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .bind(alias.as_str())
                    .fetch_optional(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                rows::read(&row.ok_or_else(|| StoreError::not_found(Resource::Alias, alias))?)
            })
            .await
    }

    /// Its pins go with it, and what was planned for it fails.
    ///
    /// Errors: [`StoreError::NotFound`].
    pub async fn delete_alias(&self, adapter: &Slug, alias: &Slug) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let found = expect(&mut transaction, self.id, adapter, alias, None).await?;
                let own = self.versions(adapter);
                let locked = own.lock(&mut transaction, found.targets.answering()).await?;
                sqlx::query("delete from aliases where tenant_id = $1 and adapter_id = $2 and name = $3")
                    .bind(self.id.uuid())
                    .bind(adapter)
                    .bind(alias.as_str())
                    .execute(&mut *transaction)
                    .await?;
                schedules::fail_all(&mut transaction, self.id, adapter, alias, "the alias was deleted").await?;
                own.settle(&mut transaction, &locked, &format!("alias `{alias}` was deleted")).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }
}

/// The alias, which nobody else changes until the end of the transaction.
pub(super) async fn expect(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    etag: Option<&str>,
) -> Result<Alias, StoreError> {
    let found = rows::lock(connection, tenant, adapter, alias).await?;
    let found = found.ok_or_else(|| StoreError::not_found(Resource::Alias, alias))?;
    found.expect_etag(etag)?;
    Ok(found)
}

impl Alias {
    fn expect_etag(&self, etag: Option<&str>) -> Result<(), StoreError> {
        match etag {
            Some(etag) if etag != self.etag => Err(StoreError::conflict(Resource::Alias, &self.name)),
            _ => Ok(()),
        }
    }
}

/// See [`TenantScope::move_alias`].
pub(super) async fn point(
    connection: &mut PgConnection,
    own: &Versions<'_>,
    alias: &Slug,
    digest: Digest,
    etag: Option<&str>,
) -> Result<Alias, StoreError> {
    let found = match (rows::lock(connection, own.tenant, own.adapter, alias).await?, etag) {
        (Some(found), _) => found,
        // It has been deleted since.
        (None, Some(_)) => return Err(StoreError::conflict(Resource::Alias, alias)),
        (None, None) => match rows::insert(connection, own, alias, digest).await? {
            Some(made) => return Ok(made),
            // Somebody else has made it meanwhile.
            None => rows::lock(connection, own.tenant, own.adapter, alias)
                .await?
                .ok_or_else(|| StoreError::conflict(Resource::Alias, alias))?,
        },
    };
    found.expect_etag(etag)?;
    apply(connection, own, &found, AliasChange::Move(digest)).await
}

/// Makes the change to an alias that is locked.
pub(super) async fn apply(
    connection: &mut PgConnection,
    own: &Versions<'_>,
    found: &Alias,
    change: AliasChange,
) -> Result<Alias, StoreError> {
    let before = found.targets;
    let after = before.after(change).map_err(|error| StoreError::FailedPrecondition(Precondition::Rollout(error)))?;
    if after == before {
        return Ok(found.clone());
    }
    let old: BTreeSet<_> = before.named().collect();
    let locked = own.lock(connection, old.iter().copied().chain(after.named())).await?;
    for digest in after.named().filter(|digest| !old.contains(digest)) {
        own.lock_to_name(connection, digest).await?;
    }
    let row = sqlx::query(
        "update aliases
            set digest = $4, previous_digest = $5, canary_digest = $6, canary_weight = $7, shadow_digest = $8,
                shadow_rate = $9, revision = $10, updated_at = now()
          where tenant_id = $1 and adapter_id = $2 and name = $3
         returning *",
    )
    .bind(own.tenant.uuid())
    .bind(own.adapter)
    .bind(found.name.as_str())
    .bind(after.stable.as_bytes().as_slice())
    .bind(after.previous.map(|digest| digest.as_bytes().to_vec()))
    .bind(after.canary.map(|part| part.digest.as_bytes().to_vec()))
    .bind(after.canary.map(|part| i32::from(part.share.get())))
    .bind(after.shadow.map(|part| part.digest.as_bytes().to_vec()))
    .bind(after.shadow.map(|part| i32::from(part.share.get())))
    .bind(Uuid::now_v7())
    .fetch_one(&mut *connection)
    .await?;
    let words = format!("alias `{}`: {}", found.name, words(change));
    own.settle(connection, &locked, &words).await?;
    rows::read(&row)
}

const fn words(change: AliasChange) -> &'static str {
    match change {
        AliasChange::Move(_) => "moved",
        AliasChange::Canary(_) => "canary begun",
        AliasChange::Weight(_) => "weight of the canary changed",
        AliasChange::ClearCanary => "canary ended",
        AliasChange::Promote => "canary promoted",
        AliasChange::Rollback => "rolled back",
        AliasChange::Shadow(_) => "shadow set",
        AliasChange::ClearShadow => "shadow ended",
    }
}
