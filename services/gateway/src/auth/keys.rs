//! What is known of keys: remembered, asked for, and asked for again before it is too old, so that a key in use never
//! waits for the database. The keys in use are asked for all together, in one question at a time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{Fault, Reason};
use store::{Change, ChangeKind, KnownKey, Store, StoreError};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    cache::{Cache, Remembered},
    running::Running,
    uses::Uses,
};
use crate::{
    changes::Listener,
    config::{AuthConfig, ms},
    store_fault::StoreFault as _,
};

/// When to come back when too many wait for the database.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub struct Keys {
    store: Store,
    config: AuthConfig,
    cache: Cache,
    pub running: Running,
    pub uses: Uses,
    /// Places for questions, and for those who wait for one.
    asking: Semaphore,
    waiting: Semaphore,
    /// The one place while the database does not answer: the others need not wait to find that out.
    trying: Semaphore,
    changed: Notify,
}

impl Keys {
    pub fn new(store: Store, config: &AuthConfig) -> Self {
        Self {
            store,
            cache: Cache::new(config),
            running: Running::default(),
            uses: Uses::new(config.cache_max),
            asking: Semaphore::new(config.lookups_max),
            waiting: Semaphore::new(config.lookups_max + config.lookups_waiting_max),
            trying: Semaphore::new(1),
            changed: Notify::new(),
            config: config.clone(),
        }
    }

    /// Keeps what is known of the keys in use young, ends the calls of revoked ones and writes when keys were used, until
    /// the stop.
    pub fn keep(self: &Arc<Self>, stop: CancellationToken) -> JoinHandle<()> {
        let keys = Arc::clone(self);
        tokio::spawn(async move {
            let mut written = Instant::now();
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = keys.changed.notified() => {}
                    () = tokio::time::sleep(ms(keys.config.refresh_ms)) => {}
                }
                keys.refresh().await;
                if written.elapsed() >= ms(keys.config.uses_ms) {
                    keys.uses.write(&keys.store).await;
                    written = Instant::now();
                }
            }
            keys.uses.write(&keys.store).await;
        })
    }

    /// The key, if it may be used now.
    pub async fn find(&self, public_id: &str) -> Result<Option<Arc<KnownKey>>, Fault> {
        let known = match self.remembered(public_id) {
            Some(known) => known,
            None => self.ask(public_id).await?,
        };
        Ok(known.filter(|known| may_be_used(known)))
    }

    fn remembered(&self, public_id: &str) -> Option<Option<Arc<KnownKey>>> {
        match self.cache.get(public_id, Instant::now()) {
            Remembered::Known(known) => Some(Some(known)),
            Remembered::Unknown => Some(None),
            Remembered::Nothing => None,
        }
    }

    async fn ask(&self, public_id: &str) -> Result<Option<Arc<KnownKey>>, Fault> {
        let unavailable = |words| Fault::new(Reason::BackendUnavailable, words).retry_after(RETRY_AFTER);
        let busy = |_| unavailable("too many keys are being looked up");
        let silent = || unavailable("the database does not answer");
        let _waiting = self.waiting.try_acquire().map_err(busy)?;
        let _asking = self.asking.acquire().await.map_err(|_| Fault::internal())?;
        // Somebody else may have asked meanwhile.
        if let Some(known) = self.remembered(public_id) {
            return Ok(known);
        }
        let _trying = match self.cache.is_unanswered() {
            true => Some(self.trying.try_acquire().map_err(|_| silent())?),
            false => None,
        };
        match self.look_up(&[public_id]).await {
            Ok(mut found) => Ok(found.remove(public_id)),
            // If the database does not answer, what was known may still count.
            Err(error) => match self.remembered(public_id) {
                Some(known) => Ok(known),
                None => Err(error.fault("API key")),
            },
        }
    }

    /// Asks the database, and remembers the answer as of now. Those that may be used, by public id.
    async fn look_up(&self, public_ids: &[&str]) -> Result<HashMap<String, Arc<KnownKey>>, StoreError> {
        // As old as the question, not as the answer: a revocation in between is seen in time.
        let asked_at = Instant::now();
        let timeout = ms(self.config.lookup_timeout_ms);
        let answer = tokio::time::timeout(timeout, self.store.find_api_keys(public_ids)).await;
        let found = match answer {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    self.cache.unanswered();
                }
                return Err(error);
            }
            Err(elapsed) => {
                self.cache.unanswered();
                return Err(StoreError::Unavailable(Box::new(elapsed)));
            }
        };
        let good = found.into_iter().filter(may_be_used).map(Arc::new);
        let good: HashMap<_, _> = good.map(|known| (known.public_id.clone(), known)).collect();
        for public_id in public_ids {
            match good.get(*public_id) {
                Some(known) => self.cache.put(Arc::clone(known), asked_at),
                None => self.cache.put_unknown(public_id, asked_at),
            }
        }
        Ok(good)
    }

    async fn refresh(&self) {
        let running = self.running.keys_in_use();
        let asked: BTreeSet<String> = self.cache.take_used().into_iter().chain(running.iter().cloned()).collect();
        if asked.is_empty() {
            return;
        }
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        match self.look_up(&asked).await {
            Ok(good) => running.iter().filter(|key| !good.contains_key(*key)).for_each(|key| self.running.end(key)),
            Err(error) => tracing::warn!(%error, keys = asked.len(), "the keys in use cannot be looked up again"),
        }
    }
}

impl Listener for Keys {
    fn changed(&self, change: &Change) {
        match (change.kind, change.tenant) {
            (ChangeKind::ApiKey, _) => self.cache.forget_key(&change.subject),
            (ChangeKind::Tenant, Some(tenant)) => self.cache.forget_tenant(tenant),
            // Whose limits it fills in is not known here.
            (ChangeKind::Tenant | ChangeKind::Plan, _) => self.cache.forget_all(),
            (ChangeKind::Adapter | ChangeKind::Alias | ChangeKind::Price | ChangeKind::Other, _) => return,
        }
        self.changed.notify_one();
    }

    fn forget_all(&self) {
        self.cache.forget_all();
        self.changed.notify_one();
    }
}

fn may_be_used(known: &KnownKey) -> bool {
    known.revoked_at.is_none() && known.expires_at.is_none_or(|at| at > OffsetDateTime::now_utc())
}
