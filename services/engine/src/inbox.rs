//! What reaches the engine's thread from others: new requests, finished loads, further grants, wake-ups. It never makes
//! anybody wait but the engine's thread, and it is bounded: requests by the limits of the queue and of each tenant's part
//! in it, loads by the number of loaders, all else by the number of streams.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use domain::TenantId;

use crate::grant::Extension;
use crate::loader::Loaded;
use crate::scheduler::LineLength;
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
    /// Sequences that nobody reads any more.
    cancelled: Vec<u64>,
    extended: HashMap<u64, Extension>,
    woken: bool,
    stopping: bool,
    /// What there is ends now.
    ending: bool,
    /// The engine knows of `stopping`.
    stop_seen: bool,
    end_seen: bool,
    refusing: bool,
    /// Length of the engine's own queue.
    waiting: usize,
    tenants: HashMap<TenantId, TenantQueue>,
    arrivals: u64,
    /// Requests that are not granted as a whole, by their ids.
    granted: HashMap<String, u64>,
}

/// A tenant's part of the queue; none where it would be empty.
#[derive(Default)]
struct TenantQueue {
    /// As the engine has it.
    line: LineLength,
    /// Not yet seen by the engine.
    submitted: LineLength,
}

/// What came since the last look.
pub(crate) struct Arrivals {
    pub submitted: Vec<Sequence>,
    pub loaded: Vec<Loaded>,
    pub cancelled: Vec<u64>,
    pub extended: HashMap<u64, Extension>,
    pub stopping: bool,
    /// Whatever runs or waits ends now.
    pub ending: bool,
}

/// Why a request is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    /// So many requests of this tenant wait already.
    TenantFull(u32),
    Stopping,
    Unhealthy,
}

impl Inbox {
    pub fn new(waiting_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), waiting_max }
    }

    /// Puts a request into the queue and gives it its arrival number, or refuses it at once. `extensible`: the id under
    /// which [`Inbox::extend_by_id`] finds it.
    pub fn submit(&self, mut sequence: Sequence, extensible: Option<String>) -> Result<u64, NotTaken> {
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
        let (tenant, most) = (sequence.share.tenant, sequence.share.waiting_max);
        let queue = state.tenants.entry(tenant).or_default();
        if queue.length().requests >= most as usize {
            return Err(NotTaken::TenantFull(most));
        }
        queue.submitted.requests += 1;
        queue.submitted.prompt_tokens += sequence.prompt_tokens;
        state.arrivals += 1;
        let arrival = state.arrivals;
        sequence.arrival = arrival;
        if let Some(id) = extensible {
            state.granted.insert(id, arrival);
        }
        state.submitted.push(sequence);
        drop(state);
        self.arrived.notify_one();
        Ok(arrival)
    }

    pub fn loaded(&self, loaded: Loaded) {
        self.lock().loaded.push(loaded);
        self.arrived.notify_one();
    }

    /// For the sequence that arrived then, if it is still here.
    pub fn extend(&self, arrival: u64, extension: Extension) {
        let mut state = self.lock();
        state.extended.entry(arrival).and_modify(|before| *before = before.and(extension)).or_insert(extension);
        drop(state);
        self.arrived.notify_one();
    }

    /// False if no such request is here that could be extended.
    pub fn extend_by_id(&self, id: &str, extension: Extension) -> bool {
        let arrival = self.lock().granted.get(id).copied();
        arrival.map(|arrival| self.extend(arrival, extension)).is_some()
    }

    /// The reader of a request is gone, perhaps before its end.
    pub fn stream_dropped(&self, arrival: u64, id: Option<&str>, ended: bool) {
        let mut state = self.lock();
        // The id may have come again meanwhile.
        if let Some(id) = id.filter(|id| state.granted.get(*id) == Some(&arrival)) {
            state.granted.remove(id);
        }
        if !ended {
            state.cancelled.push(arrival);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Something outside changed: have a look.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.arrived.notify_one();
    }

    /// No new requests; the engine ends when those it has are done.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// As [`Inbox::stop`], and what the engine has ends at its next turn.
    pub fn end(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.ending = true;
        drop(state);
        self.arrived.notify_one();
    }

    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
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

    /// What waits of one tenant, seen by the engine or not.
    pub fn line(&self, tenant: TenantId) -> LineLength {
        self.lock().tenants.get(&tenant).map(TenantQueue::length).unwrap_or_default()
    }

    /// The engine's queue has this length now, and these lines of tenants have changed.
    pub fn set_waiting(&self, waiting: usize, lines: Vec<(TenantId, LineLength)>) {
        let mut state = self.lock();
        state.waiting = waiting;
        for (tenant, line) in lines {
            let queue = state.tenants.entry(tenant).or_default();
            queue.line = line;
            if queue.length() == LineLength::default() {
                state.tenants.remove(&tenant);
            }
        }
    }

    /// Takes what has come; what is submitted is from now on part of the engine's queue. `idle`: the engine has nothing
    /// to do, so wait.
    pub fn take(&self, idle: bool) -> Arrivals {
        let mut state = self.lock();
        let nothing = |state: &mut State| {
            let stop = state.stopping && !state.stop_seen || state.ending && !state.end_seen;
            let told = state.cancelled.is_empty() && state.extended.is_empty() && !state.woken && !stop;
            state.submitted.is_empty() && state.loaded.is_empty() && told
        };
        if idle {
            state = self.arrived.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
        }
        state.woken = false;
        state.stop_seen = state.stopping;
        state.end_seen = state.ending;
        let submitted = std::mem::take(&mut state.submitted);
        state.waiting += submitted.len();
        for sequence in &submitted {
            if let Some(queue) = state.tenants.get_mut(&sequence.share.tenant) {
                queue.line = queue.length();
                queue.submitted = LineLength::default();
            }
        }
        Arrivals {
            submitted,
            loaded: std::mem::take(&mut state.loaded),
            cancelled: std::mem::take(&mut state.cancelled),
            extended: std::mem::take(&mut state.extended),
            stopping: state.stopping,
            ending: state.ending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantQueue {
    fn length(&self) -> LineLength {
        let (line, submitted) = (self.line, self.submitted);
        LineLength {
            requests: line.requests + submitted.requests,
            prompt_tokens: line.prompt_tokens + submitted.prompt_tokens,
        }
    }
}
