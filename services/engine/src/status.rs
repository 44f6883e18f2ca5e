//! How the engine is doing, for reports and for whoever waits for something to come true.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::residents::ResidentStatus;

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
    /// Of adapters that are ready.
    pub adapter_bytes: u64,
    pub adapter_bytes_max: u64,
    pub residents: Vec<ResidentStatus>,
    pub totals: Totals,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub steps: u64,
    pub failed_steps: u64,
    pub completion_tokens: u64,
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
}

/// Where the engine's thread hangs out its status.
#[derive(Default)]
pub(crate) struct StatusBoard {
    status: Mutex<Status>,
    changed: Condvar,
}

impl StatusBoard {
    pub fn read(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn write(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.changed.notify_all();
    }

    /// Waits until a status fulfils `condition`; false if none did in time.
    pub fn wait(&self, timeout: Duration, condition: impl Fn(&Status) -> bool) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(status, timeout, |status| !condition(status));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
