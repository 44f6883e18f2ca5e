//! The order of loads: those that this machine's disk can answer wait for one another and not for the registry, which
//! may be slow or not there at all. Within a lane, whose turn it is goes first, but the one that has waited for longest
//! is passed over so often and no more.

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
    passes_max: u32,
    lanes: [State; Lane::ALL.len()],
}

#[derive(Default)]
struct State {
    queue: VecDeque<AdapterKey>,
    loading: usize,
    /// Loads that began before that of the first in the queue.
    passes: u32,
}

impl Lanes {
    /// At most `loads_max` loads at a time in each lane; the first of a queue is passed over `passes_max` times at most.
    pub fn new(loads_max: usize, passes_max: u32) -> Self {
        Self { loads_max, passes_max, lanes: Default::default() }
    }

    pub fn loads_max(&self) -> usize {
        self.loads_max
    }

    pub fn push(&mut self, lane: Lane, key: AdapterKey) {
        self.lanes[lane as usize].queue.push_back(key);
    }

    /// The one with the least `turn`, of equals the one asked for first, if another load may begin in this lane. Looks at
    /// all that wait in it; a load takes far longer.
    pub fn pop<R: Ord>(&mut self, lane: Lane, turn: impl Fn(&AdapterKey) -> R) -> Option<AdapterKey> {
        let State { queue, loading, passes } = &mut self.lanes[lane as usize];
        if *loading >= self.loads_max {
            return None;
        }
        let at = if *passes >= self.passes_max {
            0
        } else {
            queue.iter().enumerate().min_by_key(|(at, key)| (turn(key), *at)).map(|(at, _)| at)?
        };
        *passes = if at == 0 { 0 } else { *passes + 1 };
        queue.remove(at)
    }

    pub fn begin(&mut self, lane: Lane) {
        self.lanes[lane as usize].loading += 1;
    }

    pub fn end(&mut self, lane: Lane) {
        self.lanes[lane as usize].loading -= 1;
    }
}
