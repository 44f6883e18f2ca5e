//! The order of loads: those that this machine's disk can answer wait for one another and not for the registry, which
//! may be slow or not there at all.

use std::collections::VecDeque;

use super::AdapterKey;

/// Where an adapter is expected to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Disk,
    Registry,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Disk, Lane::Registry];
}

/// What waits in each lane, in the order in which it was asked for, and how many loads are under way.
pub struct Lanes {
    loads_max: usize,
    lanes: [State; Lane::ALL.len()],
}

#[derive(Default)]
struct State {
    queue: VecDeque<AdapterKey>,
    loading: usize,
}

impl Lanes {
    /// At most `loads_max` loads at a time in each lane.
    pub fn new(loads_max: usize) -> Self {
        Self { loads_max, lanes: Default::default() }
    }

    pub fn push(&mut self, lane: Lane, key: AdapterKey) {
        self.lanes[lane as usize].queue.push_back(key);
    }

    /// The next one, if another load may begin in this lane.
    pub fn pop(&mut self, lane: Lane) -> Option<AdapterKey> {
        let State { queue, loading } = &mut self.lanes[lane as usize];
        if *loading < self.loads_max { queue.pop_front() } else { None }
    }

    pub fn begin(&mut self, lane: Lane) {
        self.lanes[lane as usize].loading += 1;
    }

    pub fn end(&mut self, lane: Lane) {
        self.lanes[lane as usize].loading -= 1;
    }
}
