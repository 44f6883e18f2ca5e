//! What tokens cost a tenant now: price lists, kept in memory and read again ahead of time, so that no request waits for
//! them but a tenant's first. A change takes effect within `prices.refresh_ms` and the time of one query. While the database
//! does not answer, the last known prices hold for `prices.stale_max_ms`: nobody can have changed them there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{Fault, ModelName, Price, TenantId};
use store::{PriceList, Store, StoreError};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{PricesConfig, ms},
    store_fault::StoreFault as _,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Prices {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    tenants_max: usize,
    stale_max: Duration,
    /// Not asked for in so long a time, a list is forgotten.
    idle: Duration,
    lists: Mutex<HashMap<TenantId, Known>>,
}

struct Known {
    list: PriceList,
    /// When the question was asked that it answers.
    asked_at: Instant,
    used_at: Instant,
}

/// Lists that nobody asks for are forgotten after so many refreshes.
const IDLE_REFRESHES: u32 = 120;

impl Prices {
    /// The task refreshes until `stop`.
    pub fn start(store: Store, config: &PricesConfig, stop: CancellationToken) -> (Self, JoinHandle<()>) {
        let refresh = ms(config.refresh_ms);
        let inner = Arc::new(Inner {
            store,
            tenants_max: config.tenants_max,
            stale_max: ms(config.stale_max_ms),
            idle: refresh * IDLE_REFRESHES,
            lists: Mutex::default(),
        });
        let keeper = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(refresh) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    refreshed = keeper.refresh() => if let Err(error) = refreshed {
                        tracing::warn!(%error, "price lists are not refreshed");
                    }
                }
            }
        });
        (Self { inner }, task)
    }

    /// What the model costs the tenant at this moment.
    pub async fn of(&self, tenant: TenantId, model: &ModelName) -> Result<Price, Fault> {
        let asked_at = Instant::now();
        if let Some(price) = self.inner.known(tenant, model, asked_at) {
            return Ok(price);
        }
        let lists = self.inner.store.platform().price_lists(&[tenant]).await;
        let lists = lists.map_err(|error| error.fault("prices"))?;
        let list = lists.into_iter().next().unwrap_or_default();
        let price = list.of(model, OffsetDateTime::now_utc());
        self.inner.keep(tenant, list, asked_at);
        Ok(price)
    }
}

impl Inner {
    fn known(&self, tenant: TenantId, model: &ModelName, now: Instant) -> Option<Price> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lists.get_mut(&tenant).filter(|known| now.duration_since(known.asked_at) < self.stale_max)?;
        known.used_at = now;
        Some(known.list.of(model, OffsetDateTime::now_utc()))
    }

    /// When there is no room, the next request asks again.
    fn keep(&self, tenant: TenantId, list: PriceList, asked_at: Instant) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() < self.tenants_max || lists.contains_key(&tenant) {
            lists.insert(tenant, Known { list, asked_at, used_at: asked_at });
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let tenants: Vec<_> = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.retain(|_, known| asked_at.duration_since(known.used_at) < self.idle);
            lists.keys().copied().collect()
        };
        if tenants.is_empty() {
            return Ok(());
        }
        let fresh = self.store.platform().price_lists(&tenants).await?;
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for (tenant, list) in tenants.into_iter().zip(fresh) {
            if let Some(known) = lists.get_mut(&tenant).filter(|known| known.asked_at < asked_at) {
                known.list = list;
                known.asked_at = asked_at;
            }
        }
        Ok(())
    }
}
