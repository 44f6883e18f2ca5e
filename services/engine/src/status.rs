//! How the engine is doing, for reports and for whoever waits for something to come true.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use domain::TenantId;
use tokio_sync::sync::watch;

use crate::residents::{ReadyKeys, ResidentStatus};

/// A look at the engine after its latest step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// False after too many crashed steps: the engine refuses work and should be restarted.
    pub healthy: bool,
    pub running: usize,
    pub waiting: usize,
    pub waiting_max: usize,
    pub kv_blocks_total: usize,
    pub kv_blocks_free: usize,
    /// Held by the prefix cache alone and free to be reclaimed.
    pub kv_blocks_cached: usize,
    /// Adapters in memory; [`crate::EngineHandle::residents`] lists them.
    pub adapters_ready: usize,
    /// Of those, in use.
    pub adapters_leased: usize,
    /// Asked for and not yet ready.
    pub adapters_coming: usize,
    /// Of adapters that are ready.
    pub adapter_bytes: u64,
    pub adapter_bytes_max: u64,
    pub totals: Totals,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub steps: u64,
    pub failed_steps: u64,
    pub completion_tokens: u64,
    /// That answers began with: generated elsewhere.
    pub taken_over_tokens: u64,
    pub adapter_loads: u64,
    pub adapter_evictions: u64,
    /// Guessed by prompt look-up and computed.
    pub drafted_tokens: u64,
    /// Of those, the ones that the answer really had: steps saved.
    pub accepted_tokens: u64,
    /// Times that a step was over before it was known which tokens a grammar allows next.
    pub late_masks: u64,
    pub scheduler: SchedulerTotals,
}

/// Counted by the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerTotals {
    /// Of requests that began to run.
    pub prompt_tokens: u64,
    /// Of those, found in the prefix cache.
    pub cached_prompt_tokens: u64,
    /// Sequences put back into the queue for want of KV blocks.
    pub preemptions: u64,
    /// Sequences put back to let in another tenant or class, or while they waited for a grant.
    pub displacements: u64,
    /// Rows of all steps without guesses that were wrong: tokens of prompts and answers, those computed again included.
    pub computed_tokens: u64,
}

/// What one tenant has here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantStatus {
    pub tenant: TenantId,
    pub waiting: usize,
    pub running: usize,
    pub kv_blocks: usize,
    /// Its counter: the cost of what it has had, over its weight.
    pub service: u64,
}

/// Where the engine's thread hangs out its status.
pub(crate) struct StatusBoard {
    status: Mutex<Status>,
    changed: Condvar,
    pub roster: Roster,
    tenants: Mutex<Arc<[TenantStatus]>>,
    pub ready: ReadyKeys,
}

impl StatusBoard {
    /// The board, and the engine's end of its roster.
    pub fn new(ready: ReadyKeys) -> (StatusBoard, RosterSender) {
        let (sender, roster) = Roster::new();
        (
            StatusBoard { status: Mutex::default(), changed: Condvar::new(), roster, tenants: Mutex::default(), ready },
            sender,
        )
    }

    pub fn read(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn write(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.changed.notify_all();
    }

    /// As the engine listed them when somebody last asked for its residents.
    pub fn tenants(&self) -> Arc<[TenantStatus]> {
        Arc::clone(&self.tenants.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn write_tenants(&self, tenants: Vec<TenantStatus>) {
        *self.tenants.lock().unwrap_or_else(PoisonError::into_inner) = tenants.into();
    }

    /// Waits until a status fulfils `condition`; false if none did in time.
    pub fn wait(&self, timeout: Duration, condition: impl Fn(&Status) -> bool) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(status, timeout, |status| !condition(status));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// The list of residents for whoever asks. The engine makes it once for all who ask meanwhile, and never unasked.
pub(crate) struct Roster {
    wanted: AtomicBool,
    latest: watch::Receiver<Arc<[ResidentStatus]>>,
}

/// The engine's end of a [`Roster`]; when it is dropped, nobody waits any more.
pub(crate) type RosterSender = watch::Sender<Arc<[ResidentStatus]>>;

impl Roster {
    fn new() -> (RosterSender, Self) {
        let (sender, latest) = watch::channel(Arc::default());
        (sender, Self { wanted: AtomicBool::new(false), latest })
    }

    /// The engine asks whether anybody does.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// The list that was made last, for whoever asked then; empty before the first.
    pub fn latest(&self) -> Arc<[ResidentStatus]> {
        Arc::clone(&self.latest.borrow())
    }

    /// Asks, has the engine woken by `wake`, and waits for its answer; an engine that has ended has no residents.
    pub async fn read(&self, wake: impl FnOnce()) -> Arc<[ResidentStatus]> {
        let mut latest = self.latest.clone();
        latest.mark_unchanged();
        self.wanted.store(true, Ordering::Release);
        wake();
        match latest.changed().await {
            Ok(()) => Arc::clone(&latest.borrow()),
            Err(_) => Arc::default(),
        }
    }
}
