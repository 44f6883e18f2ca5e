//! Adapters in memory: which are loaded, which are on their way, who uses them. An adapter in use is never evicted, and
//! memory stays within a byte budget. This is bookkeeping only: [`crate::loader`] does the loading.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use domain::{Digest, TenantId};

use crate::loader::AdapterFault;

/// An adapter version of a tenant. The tenant is part of the key: residency is not shared between tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterKey {
    /// Whose registry folder it lies in.
    pub tenant: TenantId,
    pub digest: Digest,
}

/// The right to use an adapter; while one is held, the adapter stays in memory.
pub struct Lease<A> {
    adapter: Arc<A>,
}

impl<A> Deref for Lease<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.adapter
    }
}

/// The adapters of one engine, owned by its thread.
pub struct Residents<A> {
    bytes_max: u64,
    loads_max: usize,
    patience_steps: u32,
    slots: HashMap<AdapterKey, Slot<A>>,
    /// Not yet given to the loader, in the order in which they were asked for.
    queue: VecDeque<AdapterKey>,
    loading: usize,
    /// Loaded, but without room until somebody gives a lease back. No load starts while there is one, so memory exceeds
    /// the budget by `loads_max` adapters at most.
    parked: VecDeque<Parked<A>>,
    clock: u64,
}

enum Slot<A> {
    /// Queued, loading or parked.
    Coming,
    Ready {
        adapter: Arc<A>,
        bytes: u64,
        used: u64,
    },
}

struct Parked<A> {
    key: AdapterKey,
    adapter: Arc<A>,
    bytes: u64,
    steps: u32,
}

/// One adapter, for status reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentStatus {
    pub key: AdapterKey,
    pub bytes: u64,
    pub leases: usize,
    pub loading: bool,
}

impl<A> Residents<A> {
    /// At most `bytes_max` of ready adapters and `loads_max` loads at a time. After `patience_steps` a loaded adapter that
    /// finds no room has [`Residents::held_up`] hold back younger requests.
    pub fn new(bytes_max: u64, loads_max: usize, patience_steps: u32) -> Self {
        let (slots, queue, parked) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { bytes_max, loads_max, patience_steps, slots, queue, loading: 0, parked, clock: 0 }
    }

    /// A lease if the adapter is ready; if not, it is put on its way.
    pub fn lease(&mut self, key: &AdapterKey) -> Option<Lease<A>> {
        self.clock += 1;
        match self.slots.get_mut(key) {
            Some(Slot::Ready { adapter, used, .. }) => {
                *used = self.clock;
                Some(Lease { adapter: Arc::clone(adapter) })
            }
            Some(Slot::Coming) => None,
            None => {
                self.slots.insert(*key, Slot::Coming);
                self.queue.push_back(*key);
                None
            }
        }
    }

    /// The next adapter to load now, if any. What nobody wants any more is dropped.
    pub fn next_load(&mut self, wanted: impl Fn(&AdapterKey) -> bool) -> Option<AdapterKey> {
        while self.parked.is_empty() && self.loading < self.loads_max {
            let key = self.queue.pop_front()?;
            if wanted(&key) {
                self.loading += 1;
                return Some(key);
            }
            self.slots.remove(&key);
        }
        None
    }

    /// A load ended. A failure is handed back, for those who wait for this adapter; it changes nothing for others, and
    /// the next request tries again.
    pub fn finish_load(&mut self, key: AdapterKey, loaded: Result<(A, u64), AdapterFault>) -> Result<(), AdapterFault> {
        self.loading -= 1;
        let too_large = |bytes| Err(AdapterFault::TooLarge { bytes, bytes_max: self.bytes_max });
        let loaded =
            loaded.and_then(|(a, bytes)| if bytes > self.bytes_max { too_large(bytes) } else { Ok((a, bytes)) });
        match loaded {
            Ok((adapter, bytes)) => {
                self.parked.push_back(Parked { key, adapter: Arc::new(adapter), bytes, steps: 0 });
                Ok(())
            }
            Err(fault) => {
                self.slots.remove(&key);
                Err(fault)
            }
        }
    }

    /// Makes loaded adapters ready, the first loaded first, as far as there is room or room can be made by evicting
    /// adapters without a lease. Call it once a step.
    pub fn settle(&mut self, wanted: impl Fn(&AdapterKey) -> bool) {
        while let Some(mut parked) = self.parked.pop_front() {
            if !wanted(&parked.key) && self.bytes() + parked.bytes > self.bytes_max {
                self.slots.remove(&parked.key);
                continue;
            }
            if !self.make_room(parked.bytes) {
                parked.steps = parked.steps.saturating_add(1);
                self.parked.push_front(parked);
                return;
            }
            self.clock += 1;
            let Parked { key, adapter, bytes, .. } = parked;
            self.slots.insert(key, Slot::Ready { adapter, bytes, used: self.clock });
        }
    }

    /// The adapter that has found no room for too long: until it has, requests that came after the one that waits for it
    /// should get no new leases, or those might keep it out for ever.
    pub fn held_up(&self) -> Option<&AdapterKey> {
        self.parked.front().filter(|parked| parked.steps > self.patience_steps).map(|parked| &parked.key)
    }

    /// Bytes of ready adapters.
    pub fn bytes(&self) -> u64 {
        self.slots.values().map(|slot| if let Slot::Ready { bytes, .. } = slot { *bytes } else { 0 }).sum()
    }

    /// This adapter comes with a message from the loader, not before. (Where a loaded one waits for room, the queue behind
    /// it moves when a lease ends.)
    pub fn loads(&self, key: &AdapterKey) -> bool {
        self.parked.is_empty() && matches!(self.slots.get(key), Some(Slot::Coming))
    }

    /// Every adapter that is ready or on its way, in a stable order.
    pub fn status(&self) -> Vec<ResidentStatus> {
        let one = |(key, slot): (&AdapterKey, &Slot<A>)| match slot {
            Slot::Coming => ResidentStatus { key: *key, bytes: 0, leases: 0, loading: true },
            Slot::Ready { adapter, bytes, .. } => {
                ResidentStatus { key: *key, bytes: *bytes, leases: leases(adapter), loading: false }
            }
        };
        let mut all: Vec<_> = self.slots.iter().map(one).collect();
        all.sort_by_key(|resident| (resident.key.tenant, resident.key.digest));
        all
    }

    /// Evicts unleased adapters, the one not used for longest first; nothing if that would not be enough.
    fn make_room(&mut self, bytes: u64) -> bool {
        let idle = |slot: &Slot<A>| match slot {
            Slot::Ready { adapter, bytes, used } if leases(adapter) == 0 => Some((*used, *bytes)),
            _ => None,
        };
        let mut evictable: Vec<_> = self.slots.iter().filter_map(|(key, slot)| Some((idle(slot)?, *key))).collect();
        evictable.sort_by_key(|((used, _), _)| *used);
        let mut missing = (self.bytes() + bytes).saturating_sub(self.bytes_max);
        let mut victims = Vec::new();
        for ((_, freed), key) in evictable {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(freed);
            victims.push(key);
        }
        if missing > 0 {
            return false;
        }
        for key in victims {
            tracing::debug!(tenant = %key.tenant, digest = %key.digest, "adapter evicted");
            self.slots.remove(&key);
        }
        true
    }
}

/// Who holds the adapter besides its slot.
fn leases<A>(adapter: &Arc<A>) -> usize {
    Arc::strong_count(adapter) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> AdapterKey {
        AdapterKey { tenant: TenantId::new(uuid::Uuid::from_u128(1)), digest: Digest::new([n; 32]) }
    }

    /// Asks for, loads and places an adapter of this size.
    fn load(residents: &mut Residents<u8>, n: u8, bytes: u64) -> Option<Lease<u8>> {
        assert!(residents.lease(&key(n)).is_none());
        assert_eq!(residents.next_load(|_| true), Some(key(n)));
        residents.finish_load(key(n), Ok((n, bytes))).ok()?;
        residents.settle(|_| true);
        residents.lease(&key(n))
    }

    fn ready(residents: &Residents<u8>) -> Vec<u8> {
        let ready = residents.status().into_iter().filter(|resident| !resident.loading);
        ready.map(|resident| resident.key.digest.as_bytes()[0]).collect()
    }

    #[test]
    fn the_adapter_not_used_for_longest_goes_first() {
        let mut residents = Residents::new(100, 1, 4);
        for n in 1..=3 {
            load(&mut residents, n, 30);
        }
        assert!(residents.lease(&key(1)).is_some());
        load(&mut residents, 4, 30);
        assert_eq!(ready(&residents), [1, 3, 4]);
        assert_eq!(residents.bytes(), 90);
    }

    #[test]
    fn a_leased_adapter_is_never_evicted_and_room_appears_when_the_lease_ends() {
        let mut residents = Residents::new(50, 1, 2);
        let lease = load(&mut residents, 1, 40).unwrap();
        assert!(load(&mut residents, 2, 40).is_none());
        assert_eq!((ready(&residents), residents.held_up()), (vec![1], None));
        // Nothing else is loaded meanwhile.
        assert!(residents.lease(&key(3)).is_none());
        assert_eq!(residents.next_load(|_| true), None);
        residents.settle(|_| true);
        residents.settle(|_| true);
        assert_eq!(residents.held_up(), Some(&key(2)));
        assert_eq!(*lease, 1);
        drop(lease);
        residents.settle(|_| true);
        assert_eq!((ready(&residents), residents.held_up()), (vec![2], None));
        assert_eq!(residents.next_load(|_| true), Some(key(3)));
    }

    #[test]
    fn an_adapter_beyond_the_budget_is_refused_and_evicts_nothing() {
        let mut residents = Residents::new(50, 1, 2);
        load(&mut residents, 1, 50);
        assert!(residents.lease(&key(2)).is_none());
        assert_eq!(residents.next_load(|_| true), Some(key(2)));
        let refused = residents.finish_load(key(2), Ok((2, 51)));
        assert!(matches!(refused, Err(AdapterFault::TooLarge { bytes: 51, bytes_max: 50 })));
        assert_eq!(ready(&residents), [1]);
    }

    #[test]
    fn a_failed_load_is_forgotten_and_the_next_request_tries_again() {
        let mut residents = Residents::<u8>::new(50, 1, 2);
        for _ in 0..2 {
            assert!(residents.lease(&key(1)).is_none());
            assert!(residents.lease(&key(1)).is_none());
            assert_eq!(residents.next_load(|_| true), Some(key(1)));
            assert_eq!(residents.next_load(|_| true), None);
            assert!(matches!(residents.finish_load(key(1), Err(AdapterFault::NotFound)), Err(AdapterFault::NotFound)));
            assert!(residents.status().is_empty());
        }
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_loaded_and_not_kept_beyond_the_budget() {
        let mut residents = Residents::new(50, 2, 2);
        let _lease = load(&mut residents, 1, 40);
        assert!(residents.lease(&key(2)).is_none());
        assert_eq!(residents.next_load(|_| false), None);
        assert!(residents.lease(&key(3)).is_none());
        assert_eq!(residents.next_load(|_| true), Some(key(3)));
        assert!(residents.finish_load(key(3), Ok((3, 40))).is_ok());
        residents.settle(|_| false);
        assert_eq!(residents.status().len(), 1);
        assert_eq!(ready(&residents), [1]);
    }

    proptest! {
        #[test]
        fn the_budget_and_the_leases_hold_whatever_happens(
            steps in prop::collection::vec((0u8..8, 1u64..60, 0u8..4), 1..120)
        ) {
            let mut residents = Residents::new(100, 2, 2);
            let mut leases: Vec<(u8, Lease<u8>)> = Vec::new();
            let mut loading: VecDeque<AdapterKey> = VecDeque::new();
            for (n, bytes, action) in steps {
                match action {
                    0 => leases.extend(residents.lease(&key(n)).map(|lease| (n, lease))),
                    1 => { leases.pop(); }
                    2 => loading.extend(residents.next_load(|_| true)),
                    _ => if let Some(key) = loading.pop_front() {
                        let own = key.digest.as_bytes()[0];
                        prop_assert!(residents.finish_load(key, Ok((own, bytes))).is_ok());
                    }
                }
                residents.settle(|_| true);
                prop_assert!(residents.bytes() <= 100);
                let status = residents.status();
                for (n, lease) in &leases {
                    prop_assert_eq!(**lease, *n);
                    let own = status.iter().find(|resident| resident.key == key(*n)).expect("leased, so resident");
                    prop_assert_eq!(own.leases, leases.iter().filter(|(m, _)| m == n).count());
                }
            }
        }
    }
}
