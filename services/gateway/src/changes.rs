//! Follows the change feed: reads what has changed in the database, at intervals and when woken, and tells everything in
//! this process that remembers something. Whoever is told has forgotten when the call returns, so the position that is
//! written into the gateway's row after it means: all changes up to here hold in this gateway.
//!
//! A wake-up only makes it faster (`wake`, over Redis); without one a change is seen at the next reading.

mod wake;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Change, Changed, Store, StoreError};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{ChangesConfig, ms};
pub use wake::{Wake, WakeError};

/// Something that remembers what the database said. What it asked the database before it is told, and hears after, it
/// must not remember: count the calls of these methods, and compare.
pub trait Listener: Send + Sync {
    /// In the order of the changes. Must not block.
    fn changed(&self, change: &Change);
    /// Anything may have changed. Must not block.
    fn forget_all(&self);
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ChangeFeed {
    committed: Arc<Signals>,
}

/// Who is to be told of a commit of this process.
#[derive(Default)]
struct Signals {
    read: Arc<Notify>,
    publish: Notify,
}

struct Follower {
    store: Store,
    listeners: Vec<Arc<dyn Listener>>,
    config: ChangesConfig,
    id: Uuid,
    name: String,
    /// All changes up to here hold in this process.
    position: i64,
    /// When the gateway's row was written last, and with which position.
    written: Option<(Instant, i64)>,
    pruned: Instant,
}

impl ChangeFeed {
    /// Follows from now on: `listeners` remember nothing yet. The gateway is listed as `name`.
    pub async fn start(
        store: Store,
        listeners: Vec<Arc<dyn Listener>>,
        wake: Option<Wake>,
        config: ChangesConfig,
        name: String,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let position = store.platform().change_head().await?;
        let signals = Arc::new(Signals::default());
        let id = Uuid::now_v7();
        let pruned = Instant::now();
        let mut follower = Follower { store, listeners, config, id, name, position, written: None, pruned };
        follower.list().await;
        let feed = Self { committed: Arc::clone(&signals) };
        let task = tokio::spawn(async move {
            let waking = async {
                match wake {
                    Some(wake) => tokio::join!(wake.listen(&signals.read), wake.publish(&signals.publish)).0,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.follow(&signals.read) => {}
                () = waking => {}
            }
            follower.leave().await;
        });
        Ok((feed, task))
    }

    /// This process has just committed something: it is read now, here and (through Redis) elsewhere.
    pub fn committed(&self) {
        self.committed.read.notify_one();
        self.committed.publish.notify_one();
    }
}

impl Follower {
    async fn follow(&mut self, read: &Notify) {
        loop {
            tokio::select! {
                () = read.notified() => {}
                () = tokio::time::sleep(ms(self.config.poll_ms)) => {}
            }
            if let Err(error) = self.read().await {
                tracing::warn!(%error, "what has changed cannot be read");
                continue;
            }
            self.list().await;
            self.prune().await;
        }
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        loop {
            let changes = self.store.platform().changes_after(self.position, self.config.batch_max).await?;
            match &changes.what {
                Changed::These(changes) => {
                    for change in changes {
                        self.listeners.iter().for_each(|listener| listener.changed(change));
                    }
                }
                Changed::Anything => {
                    tracing::warn!(from = self.position, to = changes.position, "changes were missed");
                    self.listeners.iter().for_each(|listener| listener.forget_all());
                }
            }
            self.position = changes.position;
            if !changes.more {
                return Ok(());
            }
        }
    }

    /// Writes the gateway's row when it says something new, and at intervals as a sign of life.
    async fn list(&mut self) {
        let due = self
            .written
            .is_none_or(|(at, position)| position != self.position || at.elapsed() >= ms(self.config.heartbeat_ms));
        if !due {
            return;
        }
        match self.store.platform().gateway_seen(self.id, &self.name, self.position).await {
            Ok(()) => self.written = Some((Instant::now(), self.position)),
            Err(error) => tracing::warn!(%error, "the gateway cannot list itself"),
        }
    }

    async fn prune(&mut self) {
        let keep = ms(self.config.keep_ms);
        if self.pruned.elapsed() < keep / 4 {
            return;
        }
        self.pruned = Instant::now();
        let pruned = async {
            let changes = self.store.platform().prune_changes(keep).await?;
            Ok::<_, StoreError>((changes, self.store.platform().prune_gateways(keep).await?))
        };
        match pruned.await {
            Ok((changes, gateways)) => tracing::debug!(changes, gateways, "pruned the change feed"),
            Err(error) => tracing::warn!(%error, "the change feed cannot be pruned"),
        }
    }

    async fn leave(&self) {
        let left = tokio::time::timeout(LEAVE, self.store.platform().gateway_gone(self.id)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::debug!("the gateway's row stays until it is pruned");
        }
    }
}

/// Longest that a stopping gateway tries to take itself off the list.
const LEAVE: Duration = Duration::from_secs(1);
