//! What tokens cost a tenant now: price lists, kept in memory, so that no request waits for them but a tenant's first. A
//! list is forgotten when the change feed tells of a price in it. All of them are read again now and then besides, so that
//! they are young when the database goes away: the last known prices hold for `prices.stale_max_ms` then, for nobody can
//! have changed them there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::{Fault, ModelName, Price, TenantId};
use store::{Change, ChangeKind, PriceList, Store, StoreError};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    changes::Listener,
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lists: HashMap<TenantId, Known>,
    /// How often something was forgotten: an answer that was asked for before is not kept.
    changes: u64,
}

struct Known {
    list: PriceList,
    /// When the question was asked that it answers.
    asked_at: Instant,
    used_at: Instant,
}

/// Lists that nobody asks for are forgotten after so many refreshes.
const IDLE_REFRESHES: u32 = 10;

impl Prices {
    /// The task refreshes until `stop`.
    pub fn start(store: Store, config: &PricesConfig, stop: CancellationToken) -> (Self, JoinHandle<()>) {
        let refresh = ms(config.refresh_ms);
        let inner = Arc::new(Inner {
            store,
            tenants_max: config.tenants_max,
            stale_max: ms(config.stale_max_ms),
            idle: refresh * IDLE_REFRESHES,
            state: Mutex::default(),
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

    /// Hears of prices that are set, here or by other gateways.
    pub fn listener(&self) -> Arc<dyn Listener> {
        Arc::clone(&self.inner) as _
    }

    /// What the model costs the tenant at this moment.
    pub async fn of(&self, tenant: TenantId, model: &ModelName) -> Result<Price, Fault> {
        let asked_at = Instant::now();
        if let Some(price) = self.inner.known(tenant, model, asked_at) {
            return Ok(price);
        }
        let changes = self.inner.state().changes;
        let lists = self.inner.store.platform().price_lists(&[tenant]).await;
        let lists = lists.map_err(|error| error.fault("prices"))?;
        let list = lists.into_iter().next().unwrap_or_default();
        let price = list.of(model, OffsetDateTime::now_utc());
        self.inner.keep(tenant, list, asked_at, changes);
        Ok(price)
    }
}

impl Inner {
    fn known(&self, tenant: TenantId, model: &ModelName, now: Instant) -> Option<Price> {
        let mut state = self.state();
        let known = state.lists.get_mut(&tenant).filter(|known| now.duration_since(known.asked_at) < self.stale_max)?;
        known.used_at = now;
        Some(known.list.of(model, OffsetDateTime::now_utc()))
    }

    /// When there is no room, or something was forgotten meanwhile, the next request asks again.
    fn keep(&self, tenant: TenantId, list: PriceList, asked_at: Instant, changes: u64) {
        let mut state = self.state();
        let room = state.lists.len() < self.tenants_max || state.lists.contains_key(&tenant);
        if room && state.changes == changes {
            state.lists.insert(tenant, Known { list, asked_at, used_at: asked_at });
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let tenants: Vec<_> = {
            let mut state = self.state();
            state.lists.retain(|_, known| asked_at.duration_since(known.used_at) < self.idle);
            state.lists.keys().copied().collect()
        };
        if tenants.is_empty() {
            return Ok(());
        }
        let fresh = self.store.platform().price_lists(&tenants).await?;
        let mut state = self.state();
        for (tenant, list) in tenants.into_iter().zip(fresh) {
            // What was forgotten meanwhile is not there, and what was asked for later is younger.
            if let Some(known) = state.lists.get_mut(&tenant).filter(|known| known.asked_at < asked_at) {
                known.list = list;
                known.asked_at = asked_at;
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Inner {
    fn changed(&self, change: &Change) {
        match (change.kind, change.tenant) {
            (ChangeKind::Price, Some(tenant)) => {
                let mut state = self.state();
                state.changes += 1;
                state.lists.remove(&tenant);
            }
            // The platform's list is behind everybody's.
            (ChangeKind::Price, None) => self.forget_all(),
            _ => {}
        }
    }

    fn forget_all(&self) {
        let mut state = self.state();
        state.changes += 1;
        state.lists.clear();
    }
}
