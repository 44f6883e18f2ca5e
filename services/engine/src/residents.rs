//! Adapters in memory: which are loaded, which are on their way, who uses them. An adapter in use is never evicted, and
//! memory stays within a byte budget. This is bookkeeping only: [`crate::loader`] does the loading.
//!
//! No operation of a step depends on how many adapters are resident, but for the O(log n) of the eviction order; the
//! full list is made only when somebody asks for it.
//!
//! Why there are no rank pages here: S-LoRA cuts one pool into pages so that adapters of any rank share it. Here each
//! adapter is one buffer of exactly its own size ([`crate::model::Adapter::bytes`]), nothing is padded to a largest rank,
//! and an eviction gives a whole buffer back. A page table would add an indirection to every kernel and save what the
//! allocator wastes. That is next to nothing where large buffers are mapped each on its own, as pages of the machine, and
//! up to half as much again where they are cut from a heap; the churn test in `residents/tests.rs` measures it.

mod lanes;
mod owners;
mod ranking;
mod reload_cost;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Digest, TenantId};
use serde::{Deserialize, Serialize};

use crate::loader::AdapterFault;
use lanes::Lanes;
use owners::Owners;
use ranking::{Rank, Ranking};
use reload_cost::ReloadCost;

pub use lanes::Lane;

/// An adapter version of a tenant. The tenant is part of the key: residency is not shared between tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterKey {
    /// Whose registry folder it lies in.
    pub tenant: TenantId,
    pub digest: Digest,
}

/// The right to use an adapter; while one is held, the adapter stays in memory.
pub struct Lease<A> {
    // Dropped in this order: whoever hears of the end finds the adapter given back.
    adapter: Arc<A>,
    rank: usize,
    _end: LeaseEnd,
}

impl<A> Lease<A> {
    /// Of the adapter.
    pub fn rank(&self) -> usize {
        self.rank
    }
}

impl<A> Deref for Lease<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.adapter
    }
}

/// Keys of leases that ended since the last look: no more than there were leases.
type Returned = Arc<Mutex<Vec<AdapterKey>>>;

struct LeaseEnd {
    key: AdapterKey,
    returned: Returned,
}

impl Drop for LeaseEnd {
    fn drop(&mut self) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
    }
}

/// An adapter that was loaded, with the memory that it takes and how long loading it took.
pub struct Load<A> {
    pub adapter: A,
    /// The largest of its changes.
    pub rank: usize,
    pub bytes: u64,
    pub took: Duration,
}

/// Which adapters are ready, for whoever wants to know of one without waiting for the engine. Changed by loads and
/// evictions alone.
#[derive(Clone, Default)]
pub struct ReadyKeys {
    keys: Arc<Mutex<HashSet<AdapterKey>>>,
}

impl ReadyKeys {
    pub fn contains(&self, key: &AdapterKey) -> bool {
        self.lock().contains(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<AdapterKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The adapters of one engine, owned by its thread.
pub struct Residents<A> {
    bytes_max: u64,
    patience_steps: u32,
    slots: HashMap<AdapterKey, Slot<A>>,
    ready: ReadyKeys,
    /// Not yet given to the loader, in the order in which they were asked for.
    lanes: Lanes,
    owners: Owners,
    lane_of: Box<dyn Fn(&AdapterKey) -> Lane + Send>,
    /// Loaded, but without room until somebody gives a lease back. No load starts while there is one, so memory exceeds
    /// the budget by `loads_max` adapters of each lane at most.
    parked: VecDeque<Parked<A>>,
    /// What may be evicted.
    ranking: Ranking,
    cost: ReloadCost,
    returned: Returned,
    /// Ready since the last settling: not to be evicted before those who wait had a chance to lease them.
    fresh: Vec<AdapterKey>,
    pins: HashSet<AdapterKey>,
    pinned_bytes: u64,
    counts: ResidentCounts,
}

/// Sums over all residents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentCounts {
    /// In memory and usable.
    pub ready: usize,
    /// Of those, in use.
    pub leased: usize,
    /// Bytes of those that are ready.
    pub bytes: u64,
    /// Since the start.
    pub evictions: u64,
    /// Since the start.
    pub loads: u64,
}

enum Slot<A> {
    /// Queued, loading or parked; it came by this lane.
    Coming(Lane),
    Ready {
        adapter: Arc<A>,
        rank: usize,
        bytes: u64,
        uses: u64,
        hold: Hold,
    },
}

/// Why a ready adapter stays, or that it need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Leased,
    Fresh,
    Pinned,
    Idle(Rank),
}

struct Parked<A> {
    key: AdapterKey,
    adapter: Arc<A>,
    rank: usize,
    bytes: u64,
    steps: u32,
}

/// What came of asking for an adapter.
pub enum Asked<A> {
    Ready(Lease<A>),
    Coming,
    /// Whoever asks has as many adapters here as it may, all of them in use or on their way.
    TooMany,
}

/// One adapter, for status reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentStatus {
    pub key: AdapterKey,
    pub bytes: u64,
    pub leases: usize,
    pub loading: bool,
    pub pinned: bool,
}

impl<A> Residents<A> {
    /// At most `bytes_max` of ready adapters and `loads_max` loads at a time in each lane. After `patience_steps` a loaded adapter that
    /// finds no room has [`Residents::held_up`] hold back younger requests.
    pub fn new(bytes_max: u64, loads_max: usize, patience_steps: u32) -> Self {
        Self {
            bytes_max,
            patience_steps,
            slots: HashMap::new(),
            ready: ReadyKeys::default(),
            lanes: Lanes::new(loads_max, u32::MAX),
            owners: Owners::default(),
            lane_of: Box::new(|_| Lane::Registry),
            parked: VecDeque::new(),
            ranking: Ranking::default(),
            cost: ReloadCost::default(),
            returned: Returned::default(),
            fresh: Vec::new(),
            pins: HashSet::new(),
            pinned_bytes: 0,
            counts: ResidentCounts::default(),
        }
    }

    /// The same, with loads in the lane that `lane_of` names when an adapter is asked for. Without it, all take that of
    /// the registry.
    pub fn with_lanes(self, lane_of: impl Fn(&AdapterKey) -> Lane + Send + 'static) -> Self {
        Self { lane_of: Box::new(lane_of), ..self }
    }

    /// The same; the load that has waited for longest is passed over `passes_max` times at most.
    pub fn with_passes(mut self, passes_max: u32) -> Self {
        self.lanes = Lanes::new(self.lanes.loads_max(), passes_max);
        self
    }

    /// The keys of those that are ready, from now on.
    pub fn ready(&self) -> ReadyKeys {
        self.ready.clone()
    }

    /// These are loaded without being asked for and, once loaded, never evicted. One that cannot be loaded is tried again
    /// when a request names it.
    pub fn pin(&mut self, keys: &[AdapterKey]) {
        for key in keys {
            if self.pins.insert(*key) && !self.slots.contains_key(key) {
                self.ask(key);
            }
        }
    }

    /// Those that became ready with the last settling.
    pub fn fresh(&self) -> &[AdapterKey] {
        &self.fresh
    }

    /// As [`Residents::lease`], on the account of `owner`, who has `most` adapters here at most. Where that is too few,
    /// one of its own that nobody uses makes room.
    pub fn ask_for(&mut self, key: &AdapterKey, owner: TenantId, most: u32) -> Asked<A> {
        if !self.slots.contains_key(key) {
            while self.owners.count(owner) >= most as usize {
                let idle = |key: &&AdapterKey| match self.slots.get(key) {
                    Some(Slot::Ready { hold: Hold::Idle(rank), .. }) => Some(*rank),
                    _ => None,
                };
                let own = self.owners.of(owner).filter_map(|key| Some((idle(&key)?, *key)));
                let Some((rank, least)) = own.min_by_key(|(rank, _)| *rank) else { return Asked::TooMany };
                self.ranking.remove(rank);
                self.evict(&least);
            }
            self.owners.insert(*key, owner);
        }
        self.lease(key).map_or(Asked::Coming, Asked::Ready)
    }

    /// A lease if the adapter is ready; if not, it is put on its way.
    pub fn lease(&mut self, key: &AdapterKey) -> Option<Lease<A>> {
        match self.slots.get_mut(key) {
            Some(Slot::Ready { adapter, rank: adapter_rank, uses, hold, .. }) => {
                *uses += 1;
                if *hold != Hold::Leased {
                    self.counts.leased += 1;
                }
                if let Hold::Idle(rank) = std::mem::replace(hold, Hold::Leased) {
                    self.ranking.remove(rank);
                }
                let end = LeaseEnd { key: *key, returned: Arc::clone(&self.returned) };
                Some(Lease { adapter: Arc::clone(adapter), rank: *adapter_rank, _end: end })
            }
            Some(Slot::Coming(_)) => None,
            None => {
                self.ask(key);
                None
            }
        }
    }

    /// The next adapter to load now in this lane, if any: a pin, else the one with the least `turn`. What nobody wants
    /// any more has none and is dropped.
    pub fn next_load<R: Ord>(&mut self, lane: Lane, turn: impl Fn(&AdapterKey) -> Option<R>) -> Option<AdapterKey> {
        while self.parked.is_empty() {
            let pins = &self.pins;
            let of = |key: &AdapterKey| if pins.contains(key) { Some(None) } else { turn(key).map(Some) };
            let key = self.lanes.pop(lane, of)?;
            if of(&key).is_some() {
                self.lanes.begin(lane);
                return Some(key);
            }
            self.forget(&key);
        }
        None
    }

    /// A load ended. A failure is handed back, for those who wait for this adapter; it changes nothing for others, and
    /// the next request tries again.
    pub fn finish_load(&mut self, key: AdapterKey, loaded: Result<Load<A>, AdapterFault>) -> Result<(), AdapterFault> {
        if let Some(Slot::Coming(lane)) = self.slots.get(&key) {
            self.lanes.end(*lane);
        }
        let fits = |load: Load<A>| self.check_size(&key, load.bytes).map(|()| load);
        match loaded.and_then(fits) {
            Ok(Load { adapter, rank, bytes, took }) => {
                self.cost.observe(bytes, took);
                self.counts.loads += 1;
                self.parked.push_back(Parked { key, adapter: Arc::new(adapter), rank, bytes, steps: 0 });
                Ok(())
            }
            Err(fault) => {
                self.forget(&key);
                Err(fault)
            }
        }
    }

    /// Makes loaded adapters ready, the first loaded first, as far as there is room or room can be made by evicting
    /// adapters without a lease. Call it once a step. Returns those for which there never can be room any more, because
    /// pinned adapters have taken it meanwhile.
    #[must_use = "requests wait for what is given up here"]
    pub fn settle(&mut self, wanted: impl Fn(&AdapterKey) -> bool) -> Vec<(AdapterKey, AdapterFault)> {
        self.take_back();
        let mut given_up = Vec::new();
        while let Some(mut parked) = self.parked.pop_front() {
            let pinned = self.pins.contains(&parked.key);
            let unwanted = !pinned && !wanted(&parked.key);
            if unwanted && self.counts.bytes + parked.bytes > self.bytes_max {
                self.forget(&parked.key);
                continue;
            }
            if let Err(fault) = self.check_size(&parked.key, parked.bytes) {
                self.forget(&parked.key);
                given_up.push((parked.key, fault));
                continue;
            }
            if !self.make_room(parked.bytes) {
                parked.steps = parked.steps.saturating_add(1);
                self.parked.push_front(parked);
                break;
            }
            self.place(parked);
        }
        given_up
    }

    /// Looks at which leases have ended. Costs as much as there are of those.
    pub fn take_back(&mut self) {
        let mut keys = std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner));
        keys.append(&mut self.fresh);
        for key in keys {
            let Some(Slot::Ready { adapter, bytes, uses, hold, .. }) = self.slots.get_mut(&key) else { continue };
            let ended = match hold {
                Hold::Leased => leases(adapter) == 0,
                Hold::Fresh => true,
                Hold::Pinned | Hold::Idle(_) => false,
            };
            if ended {
                self.counts.leased -= usize::from(*hold == Hold::Leased);
                *hold = if self.pins.contains(&key) {
                    Hold::Pinned
                } else {
                    Hold::Idle(self.ranking.insert(key, *bytes, *uses, self.cost.seconds(*bytes)))
                };
            }
        }
    }

    /// The adapter that has found no room for too long: until it has, requests that came after the one that waits for it
    /// should get no new leases, or those might keep it out for ever.
    pub fn held_up(&self) -> Option<&AdapterKey> {
        self.parked.front().filter(|parked| parked.steps > self.patience_steps).map(|parked| &parked.key)
    }

    /// Sums, as of the last [`Residents::take_back`].
    pub fn counts(&self) -> ResidentCounts {
        self.counts
    }

    /// Queued, loading or waiting for room.
    pub fn coming(&self) -> usize {
        self.slots.len() - self.counts.ready
    }

    /// This adapter comes with a message from the loader, not before. (Where a loaded one waits for room, the queue behind
    /// it moves when a lease ends.)
    pub fn loads(&self, key: &AdapterKey) -> bool {
        self.parked.is_empty() && matches!(self.slots.get(key), Some(Slot::Coming(_)))
    }

    /// Every adapter that is ready or on its way, in a stable order. O(n log n): for those who ask, not for every step.
    pub fn list(&self) -> Vec<ResidentStatus> {
        let one = |(key, slot): (&AdapterKey, &Slot<A>)| {
            let (bytes, leases) = match slot {
                Slot::Coming(_) => (0, 0),
                Slot::Ready { adapter, bytes, .. } => (*bytes, leases(adapter)),
            };
            let (loading, pinned) = (matches!(slot, Slot::Coming(_)), self.pins.contains(key));
            ResidentStatus { key: *key, bytes, leases, loading, pinned }
        };
        let mut all: Vec<_> = self.slots.iter().map(one).collect();
        all.sort_unstable_by_key(|resident| (resident.key.tenant, resident.key.digest));
        all
    }

    /// Puts it on its way.
    fn ask(&mut self, key: &AdapterKey) {
        let lane = (self.lane_of)(key);
        self.slots.insert(*key, Slot::Coming(lane));
        self.lanes.push(lane, *key);
    }

    /// What can never have room is refused. A pin that does not fit with the others is none from now on.
    fn check_size(&mut self, key: &AdapterKey, bytes: u64) -> Result<(), AdapterFault> {
        let left = self.bytes_max - self.pinned_bytes;
        if bytes <= left {
            return Ok(());
        }
        if self.pins.remove(key) {
            tracing::error!(
                tenant = %key.tenant, digest = %key.digest, bytes,
                pinned = self.pinned_bytes, adapter_bytes_max = self.bytes_max,
                "adapter_pins do not fit adapter_bytes_max: this one is not pinned",
            );
        }
        Err(AdapterFault::TooLarge { bytes, bytes_max: left })
    }

    fn place(&mut self, parked: Parked<A>) {
        let Parked { key, adapter, rank, bytes, .. } = parked;
        let hold = if self.pins.contains(&key) {
            self.pinned_bytes += bytes;
            Hold::Pinned
        } else {
            self.fresh.push(key);
            Hold::Fresh
        };
        self.ready.lock().insert(key);
        self.counts.ready += 1;
        self.counts.bytes += bytes;
        self.slots.insert(key, Slot::Ready { adapter, rank, bytes, uses: 0, hold });
    }

    /// Evicts what is worth least; nothing if that would not be enough.
    fn make_room(&mut self, bytes: u64) -> bool {
        let missing = (self.counts.bytes + bytes).saturating_sub(self.bytes_max);
        if missing > self.ranking.bytes() {
            return false;
        }
        while self.counts.bytes + bytes > self.bytes_max {
            let Some(key) = self.ranking.evict() else { return false };
            self.evict(&key);
        }
        true
    }

    /// Takes out a ready adapter that is not ranked any more.
    fn evict(&mut self, key: &AdapterKey) {
        tracing::debug!(tenant = %key.tenant, digest = %key.digest, "adapter evicted");
        self.ready.lock().remove(key);
        if let Some(Slot::Ready { bytes, .. }) = self.forget(key) {
            self.counts.ready -= 1;
            self.counts.bytes -= bytes;
            self.counts.evictions += 1;
        }
    }

    fn forget(&mut self, key: &AdapterKey) -> Option<Slot<A>> {
        self.owners.remove(key);
        self.slots.remove(key)
    }
}

/// Who holds the adapter besides its slot.
fn leases<A>(adapter: &Arc<A>) -> usize {
    Arc::strong_count(adapter) - 1
}

#[cfg(test)]
mod tests;
