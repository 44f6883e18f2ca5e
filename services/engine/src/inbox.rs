//! What reaches the engine's thread from others: new requests, finished loads, wake-ups. It never makes anybody wait but
//! the engine's thread, and it is bounded: requests by the queue limit, loads by the number of loaders.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::loader::Loaded;
use crate::sequence::Sequence;

pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    waiting_max: usize,
}

#[derive(Default)]
struct State {
    submitted: Vec<Sequence>,
    loaded: Vec<Loaded>,
    woken: bool,
    stopping: bool,
    /// The engine knows of `stopping`.
    stop_seen: bool,
    refusing: bool,
    /// Length of the engine's own queue.
    waiting: usize,
}

/// What came since the last look.
pub(crate) struct Arrivals {
    pub submitted: Vec<Sequence>,
    pub loaded: Vec<Loaded>,
    pub stopping: bool,
}

/// Why a request is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Stopping,
    Unhealthy,
}

impl Inbox {
    pub fn new(waiting_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), waiting_max }
    }

    /// Puts a request into the queue, or refuses it at once.
    pub fn submit(&self, sequence: Sequence) -> Result<(), NotTaken> {
        let mut state = self.lock();
        if state.stopping {
            return Err(NotTaken::Stopping);
        }
        if state.refusing {
            return Err(NotTaken::Unhealthy);
        }
        if state.waiting + state.submitted.len() >= self.waiting_max {
            return Err(NotTaken::Full);
        }
        state.submitted.push(sequence);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    pub fn loaded(&self, loaded: Loaded) {
        self.lock().loaded.push(loaded);
        self.arrived.notify_one();
    }

    /// Something outside changed (a client is gone): have a look.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.arrived.notify_one();
    }

    /// No new requests; the engine ends when those it has are done.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// No new requests: the engine is not healthy.
    pub fn refuse(&self) {
        self.lock().refusing = true;
    }

    /// Requests that wait, seen by the engine or not.
    pub fn waiting(&self) -> usize {
        let state = self.lock();
        state.waiting + state.submitted.len()
    }

    /// The engine's queue has this length now.
    pub fn set_waiting(&self, waiting: usize) {
        self.lock().waiting = waiting;
    }

    /// Takes what has come; what is submitted is from now on part of the engine's queue. `idle`: the engine has nothing
    /// to do, so wait.
    pub fn take(&self, idle: bool) -> Arrivals {
        let mut state = self.lock();
        let nothing = |state: &mut State| {
            let stop = state.stopping && !state.stop_seen;
            state.submitted.is_empty() && state.loaded.is_empty() && !state.woken && !stop
        };
        if idle {
            state = self.arrived.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
        }
        state.woken = false;
        state.stop_seen = state.stopping;
        let submitted = std::mem::take(&mut state.submitted);
        state.waiting += submitted.len();
        Arrivals { submitted, loaded: std::mem::take(&mut state.loaded), stopping: state.stopping }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
