//! What requests have used, by their ids: of those that run, and for a while of those that have ended. A gateway that has
//! lost a stream, or that takes over from one that was killed, asks here. Lost with the process, as the requests are.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::Progress;
use tokio::time::Instant;

/// Shared by all calls of a worker.
pub struct Usages {
    state: Mutex<State>,
    ended_max: usize,
    kept: Duration,
}

#[derive(Default)]
struct State {
    /// As many as the engine has, and at most so many that have ended.
    known: HashMap<String, (u64, Progress)>,
    /// Those whose stream has ended, the oldest first.
    ended: VecDeque<(Instant, String, u64)>,
    entries: u64,
}

/// Of one request. Dropped when its stream ends; then the time that its usage is kept begins.
pub struct Kept {
    usages: Arc<Usages>,
    id: String,
    entry: u64,
}

impl Usages {
    /// Of at most `ended_max` requests that have ended, each for `kept`.
    pub fn new(ended_max: usize, kept: Duration) -> Self {
        Self { state: Mutex::default(), ended_max, kept }
    }

    /// An id that comes again, as that of an answer which goes on after a fault, stands for the later request.
    pub fn keep(self: &Arc<Self>, id: &str, progress: Progress) -> Kept {
        let mut state = self.lock();
        state.entries += 1;
        let entry = state.entries;
        state.known.insert(id.to_owned(), (entry, progress));
        Kept { usages: Arc::clone(self), id: id.to_owned(), entry }
    }

    pub fn get(&self, id: &str) -> Option<Progress> {
        let mut state = self.lock();
        state.forget(self.ended_max, self.kept);
        state.known.get(id).map(|(_, progress)| progress.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, ended_max: usize, kept: Duration) {
        while let Some((at, ..)) = self.ended.front()
            && (self.ended.len() > ended_max || at.elapsed() >= kept)
        {
            let Some((_, id, entry)) = self.ended.pop_front() else { return };
            if self.known.get(&id).is_some_and(|(current, _)| *current == entry) {
                self.known.remove(&id);
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.usages.lock();
        state.ended.push_back((Instant::now(), std::mem::take(&mut self.id), self.entry));
        state.forget(self.usages.ended_max, self.usages.kept);
    }
}
