//! The tenant-scoped handle. Every query names the tenant, and row-level security checks the same thing again.

mod adapters;
mod aliases;
pub(crate) mod client_requests;
mod lifecycle;
mod models;
mod pins;
mod schedules;
mod shadow_reports;
mod versions;

use std::{sync::Arc, time::Duration};

use domain::{ApiKeyId, RequestId, TenantId};
use sqlx::{Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    ApiKey, ApiKeyFields, GroupBy, ListedEntry, ListedPrice, NewApiKey, Page, PageOf, PastRequest, Store, StoreError,
    Tenant, UsageGroup, UsageRecord, api_keys, blobs, connection::Scope, ledger, past_requests, prices, tenants, usage,
};

pub use adapters::Adapter;
pub use aliases::Alias;
pub use client_requests::{Claimed, ClientRequest, Full, FullOf, MostKept, NewRun};
pub use lifecycle::VersionStep;
pub use models::{Model, Route, RoutePart, RoutePin, RouteVersion};
pub use pins::{NewPin, Pin, Pinned};
pub use schedules::{NewSchedule, Schedule, ScheduleState};
pub use shadow_reports::{ShadowPair, ShadowReport, ShadowTally};
pub use versions::{AdapterVersion, InsertedVersion, NewVersion};

/// Who changes what nobody asked for just now.
const PLATFORM: &str = "platform";

/// One tenant's rows. Another tenant's are as if they did not exist.
#[derive(Clone, Debug)]
pub struct TenantScope {
    pub(crate) store: Store,
    pub(crate) id: TenantId,
    actor: Arc<str>,
}

/// What of a tenant's stocks is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedStock {
    pub adapters: u64,
    /// Bytes of all versions together; equal content counts once.
    pub adapter_bytes: u64,
}

impl TenantScope {
    pub(crate) fn new(store: Store, id: TenantId) -> Self {
        Self { store, id, actor: Arc::from(PLATFORM) }
    }

    /// Changes are written down as this one's; by default they are the platform's own.
    #[must_use]
    pub fn by(self, actor: &str) -> Self {
        Self { actor: Arc::from(actor), ..self }
    }

    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    pub fn id(&self) -> TenantId {
        self.id
    }

    pub async fn get(&self) -> Result<Tenant, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let tenant = tenants::by_id(&mut transaction, self.id).await?;
                transaction.commit().await?;
                Ok(tenant)
            })
            .await
    }

    pub async fn used_stock(&self) -> Result<UsedStock, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapters = adapters::count(&mut transaction, self.id).await?;
                let adapter_bytes = blobs::bytes(&mut transaction, self.id).await?;
                transaction.commit().await?;
                Ok(UsedStock { adapters, adapter_bytes })
            })
            .await
    }

    /// Errors: [`StoreError::AlreadyExists`] when the public id is taken (by any tenant), [`StoreError::NotFound`] when
    /// the tenant is gone.
    pub async fn create_api_key(&self, new: NewApiKey) -> Result<ApiKey, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let key = api_keys::create(&mut transaction, self.id, &new).await?;
                transaction.commit().await?;
                Ok(key)
            })
            .await
    }

    pub async fn get_api_key(&self, public_id: &str) -> Result<ApiKey, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let key = api_keys::get(&mut transaction, self.id, public_id).await?;
                transaction.commit().await?;
                Ok(key)
            })
            .await
    }

    /// Oldest first; revoked ones too.
    pub async fn list_api_keys(&self, page: &Page) -> Result<PageOf<ApiKey>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let keys = api_keys::list(&mut transaction, self.id, page).await?;
                transaction.commit().await?;
                Ok(keys)
            })
            .await
    }

    /// Idempotent: a key keeps the time of its first revocation.
    pub async fn revoke_api_key(&self, public_id: &str) -> Result<ApiKey, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let key = api_keys::revoke(&mut transaction, self.id, public_id).await?;
                transaction.commit().await?;
                Ok(key)
            })
            .await
    }

    /// Changes what `change` changes, against every other update in turn. With an `etag` only if the key still has it.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::Conflict`] for the etag, [`Precondition::KeyIsRevoked`].
    ///
    /// [`Precondition::KeyIsRevoked`]: crate::Precondition::KeyIsRevoked
    pub async fn update_api_key(
        &self,
        public_id: &str,
        etag: Option<&str>,
        change: impl FnOnce(&mut ApiKeyFields) + Send,
    ) -> Result<ApiKey, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let found = api_keys::lock(&mut transaction, self.id, public_id, etag).await?;
                found.expect_not_revoked()?;
                let mut fields = found.fields;
                change(&mut fields);
                let key = api_keys::update(&mut transaction, self.id, public_id, &fields).await?;
                transaction.commit().await?;
                Ok(key)
            })
            .await
    }

    /// Gives the key another secret. The one that it has is good for `overlap` longer; one from an earlier rotation ends
    /// now.
    ///
    /// Errors: as [`TenantScope::update_api_key`].
    pub async fn rotate_api_key(
        &self,
        public_id: &str,
        etag: Option<&str>,
        secret_hash: &[u8; 32],
        overlap: Duration,
    ) -> Result<ApiKey, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let found = api_keys::lock(&mut transaction, self.id, public_id, etag).await?;
                found.expect_not_revoked()?;
                let key = api_keys::rotate(&mut transaction, self.id, public_id, secret_hash, overlap).await?;
                transaction.commit().await?;
                Ok(key)
            })
            .await
    }

    /// Micro-units that requests let through in `[from, to)` have cost: what was charged, and what is held for those
    /// that are not at their end. Of one key, or of all; without the requests in `except`.
    pub async fn spent(
        &self,
        key: Option<ApiKeyId>,
        from: OffsetDateTime,
        to: OffsetDateTime,
        except: &[RequestId],
    ) -> Result<u64, StoreError> {
        let spent = self.spent_by_process(key, from, to, except).await?;
        Ok(spent.iter().map(|(_, micros)| micros).sum())
    }

    /// As [`TenantScope::spent`], by the process that let the requests through.
    pub async fn spent_by_process(
        &self,
        key: Option<ApiKeyId>,
        from: OffsetDateTime,
        to: OffsetDateTime,
        except: &[RequestId],
    ) -> Result<Vec<(Uuid, u64)>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let spent = ledger::spent(&mut transaction, self.id, key, from, to, except).await?;
                transaction.commit().await?;
                Ok(spent)
            })
            .await
    }

    /// Posted entries of requests let through in `[from, to)`, summed.
    ///
    /// Errors: [`StoreError::InvalidValue`] when there are too many groups.
    pub async fn usage_summary(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
        by: &[GroupBy],
    ) -> Result<Vec<UsageGroup>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let groups = ledger::summary(&mut transaction, self.id, from, to, by).await?;
                transaction.commit().await?;
                Ok(groups)
            })
            .await
    }

    /// The newest request first.
    pub async fn list_entries(&self, page: &Page) -> Result<PageOf<ListedEntry>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let entries = ledger::list(&mut transaction, self.id, page).await?;
                transaction.commit().await?;
                Ok(entries)
            })
            .await
    }

    /// The tenant's own price list with its history, newest first.
    pub async fn list_prices(&self, page: &Page) -> Result<PageOf<ListedPrice>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let prices = prices::list(&mut transaction, Some(self.id), page).await?;
                transaction.commit().await?;
                Ok(prices)
            })
            .await
    }

    /// The platform's price list, which holds where the tenant's own says nothing; newest first.
    pub async fn list_platform_prices(&self, page: &Page) -> Result<PageOf<ListedPrice>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let prices = prices::list(&mut transaction, None, page).await?;
                transaction.commit().await?;
                Ok(prices)
            })
            .await
    }

    /// The newest `most` requests on record that arrived at `from` or later, oldest first.
    pub async fn past_requests(&self, from: OffsetDateTime, most: u32) -> Result<Vec<PastRequest>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let past = past_requests::since(&mut transaction, self.id, from, most).await?;
                transaction.commit().await?;
                Ok(past)
            })
            .await
    }

    /// Newest first.
    pub async fn list_usage(&self, page: &Page) -> Result<PageOf<UsageRecord>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let records = usage::list(&mut transaction, self.id, page).await?;
                transaction.commit().await?;
                Ok(records)
            })
            .await
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.store.begin(Scope::Tenant(self.id)).await
    }
}
