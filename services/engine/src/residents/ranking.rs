//! Which adapter goes first when room is needed: Greedy-Dual-Size-Frequency (L. Cherkasova, "Improving WWW Proxies
//! Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998). Only those that may go are ranked; every
//! operation is O(log n).

use std::collections::BTreeMap;

use super::AdapterKey;

/// `priority = clock + uses × seconds to reload / bytes`; the clock is the priority of what was evicted last, so that
/// what was popular once ages against what is used now.
#[derive(Default)]
pub struct Ranking {
    order: BTreeMap<Rank, (AdapterKey, u64)>,
    bytes: u64,
    clock: f64,
    /// Breaks ties: of equals, the one that has been idle for longest goes first.
    entries: u64,
}

/// A place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Bits of a priority that is not negative: they are ordered as the numbers are.
    priority: u64,
    entry: u64,
}

impl Ranking {
    /// Bytes of all that may go.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From now on `key` may go.
    pub fn insert(&mut self, key: AdapterKey, bytes: u64, uses: u64, reload_seconds: f64) -> Rank {
        let value = uses.max(1) as f64 * reload_seconds / bytes.max(1) as f64;
        self.entries += 1;
        let rank = Rank { priority: (self.clock + value).max(0.0).to_bits(), entry: self.entries };
        self.order.insert(rank, (key, bytes));
        self.bytes += bytes;
        rank
    }

    /// From now on it may not.
    pub fn remove(&mut self, rank: Rank) {
        if let Some((_, bytes)) = self.order.remove(&rank) {
            self.bytes -= bytes;
        }
    }

    /// Gives away the one that is worth least.
    pub fn evict(&mut self) -> Option<AdapterKey> {
        let (rank, (key, bytes)) = self.order.pop_first()?;
        self.bytes -= bytes;
        self.clock = f64::from_bits(rank.priority);
        Some(key)
    }
}
