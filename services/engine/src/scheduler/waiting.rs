//! Those who wait, each in its tenant's line. A line is first come, first served among those who could run; whoever
//! waits for an adapter, a grammar or a grant is passed by and keeps its age. Whose line is next says its class, then
//! what its tenant has had.
//!
//! Nothing here takes longer because many wait, but for the logarithm of their number: each request is looked at when
//! something happens to it. (Those whose grammar is being compiled are looked at in every step.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::TenantId;
use uuid::Uuid;

use super::accounts::{Accounts, Service};
use crate::residents::{AdapterKey, Lease};
use crate::sequence::Sequence;
use crate::share::Share;

pub(crate) struct Waiting<A> {
    /// By arrival.
    sequences: BTreeMap<u64, Sequence<A>>,
    lines: HashMap<TenantId, Line>,
    /// The lines in which somebody could run.
    order: BTreeSet<Place>,
    /// Those without a lease, by the adapter that they need.
    wanting: HashMap<AdapterKey, BTreeSet<u64>>,
    /// Of those, the ones whose adapter is still to be asked for.
    unasked: BTreeMap<TenantId, BTreeSet<u64>>,
    /// Those whose grammar is being compiled.
    compiling: BTreeSet<u64>,
    /// Tenants whose line is longer or shorter than when somebody last looked.
    changed: HashSet<TenantId>,
}

/// How many requests wait, and the prompt tokens of those among them that could run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineLength {
    pub requests: usize,
    pub prompt_tokens: usize,
}

struct Line {
    share: Share,
    length: LineLength,
    ready: BTreeSet<u64>,
    /// Where it stands in the order; none if nobody could run, or if it was set aside.
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    class: Reverse<u32>,
    service: Service,
    tenant: TenantId,
}

/// The line whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub share: Share,
    pub service: Service,
    /// The first of those in it that could run.
    pub arrival: u64,
}

impl<A> Waiting<A> {
    pub fn new() -> Self {
        Self {
            sequences: BTreeMap::new(),
            lines: HashMap::new(),
            order: BTreeSet::new(),
            wanting: HashMap::new(),
            unasked: BTreeMap::new(),
            compiling: BTreeSet::new(),
            changed: HashSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn get(&self, arrival: u64) -> Option<&Sequence<A>> {
        self.sequences.get(&arrival)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sequence<A>> {
        self.sequences.values()
    }

    /// At its age. A request of a tenant that has had less may go before.
    pub fn insert(&mut self, sequence: Sequence<A>, accounts: &Accounts) {
        let (arrival, share) = (sequence.arrival, sequence.share);
        let line = self.lines.entry(share.tenant).or_insert_with(|| Line {
            share,
            length: LineLength::default(),
            ready: BTreeSet::new(),
            place: None,
        });
        line.share = share;
        line.length.requests += 1;
        self.changed.insert(share.tenant);
        if let (Some(key), false) = (sequence.adapter, sequence.has_weights()) {
            self.wanting.entry(key).or_default().insert(arrival);
            self.unasked.entry(share.tenant).or_default().insert(arrival);
        }
        self.sequences.insert(arrival, sequence);
        self.look_at(arrival, accounts);
    }

    pub fn remove(&mut self, arrival: u64, accounts: &Accounts) -> Option<Sequence<A>> {
        let sequence = self.sequences.remove(&arrival)?;
        let tenant = sequence.share.tenant;
        self.compiling.remove(&arrival);
        if let Some(key) = &sequence.adapter {
            self.no_longer_wanting(key, tenant, arrival);
        }
        if let Some(line) = self.lines.get_mut(&tenant) {
            line.length.requests -= 1;
            if line.ready.remove(&arrival) {
                line.length.prompt_tokens -= sequence.prompt_tokens;
            }
        }
        self.changed.insert(tenant);
        self.stand(tenant, accounts);
        Some(sequence)
    }

    /// What the tenant has had may have changed: its line stands where that puts it.
    pub fn stand(&mut self, tenant: TenantId, accounts: &Accounts) {
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        let ready = !line.ready.is_empty();
        let service = accounts.service(tenant);
        let place = ready.then_some(Place { class: Reverse(line.share.priority), service, tenant });
        if place != line.place {
            if let Some(old) = &line.place {
                self.order.remove(old);
            }
            self.order.extend(place);
            line.place = place;
        }
        if line.length.requests == 0 {
            self.lines.remove(&tenant);
        }
    }

    /// Its grammar or its grant may have come.
    pub fn look_at(&mut self, arrival: u64, accounts: &Accounts) {
        let Some(sequence) = self.sequences.get(&arrival) else { return };
        let compiles = sequence.awaits_grammar();
        let ready = sequence.has_weights() && !compiles && !sequence.is_parked();
        let (tenant, tokens) = (sequence.share.tenant, sequence.prompt_tokens);
        if compiles {
            self.compiling.insert(arrival)
        } else {
            self.compiling.remove(&arrival)
        };
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        if ready && line.ready.insert(arrival) {
            line.length.prompt_tokens += tokens;
        } else if !ready && line.ready.remove(&arrival) {
            line.length.prompt_tokens -= tokens;
        }
        self.changed.insert(tenant);
        self.stand(tenant, accounts);
    }

    /// Changes the one that arrived then.
    pub fn change(&mut self, arrival: u64, change: impl FnOnce(&mut Sequence<A>)) -> Option<&Sequence<A>> {
        let sequence = self.sequences.get_mut(&arrival)?;
        change(sequence);
        Some(sequence)
    }

    /// Those whose grammar was not there at the last look.
    pub fn compiling(&self) -> Vec<u64> {
        self.compiling.iter().copied().collect()
    }

    /// The line that is next, of this class or of the highest.
    pub fn next(&self, class: Option<u32>) -> Option<Turn> {
        let place = match class {
            None => self.order.first()?,
            Some(class) => {
                let tenant = TenantId::new(Uuid::nil());
                let first = Place { class: Reverse(class), service: 0, tenant };
                self.order.range(first..).next().filter(|place| place.class == first.class)?
            }
        };
        let line = self.lines.get(&place.tenant)?;
        Some(Turn { share: line.share, service: place.service, arrival: *line.ready.first()? })
    }

    /// The line is out of the order until it [`Waiting::stand`]s again.
    pub fn set_aside(&mut self, tenant: TenantId) {
        if let Some(place) = self.lines.get_mut(&tenant).and_then(|line| line.place.take()) {
            self.order.remove(&place);
        }
    }

    /// The classes in which somebody could run, the highest first.
    pub fn classes(&self) -> Vec<u32> {
        let mut classes = Vec::new();
        let mut rest = self.order.first();
        while let Some(place) = rest {
            classes.push(place.class.0);
            let Some(below) = place.class.0.checked_sub(1) else { break };
            let tenant = TenantId::new(Uuid::nil());
            rest = self.order.range(Place { class: Reverse(below), service: 0, tenant }..).next();
        }
        classes
    }

    /// The oldest that waits for this adapter.
    pub fn waits_for(&self, key: &AdapterKey) -> Option<&Sequence<A>> {
        self.sequences.get(self.wanting.get(key)?.first()?)
    }

    /// Its adapter is still to be asked for.
    pub fn is_unasked(&self, sequence: &Sequence<A>) -> bool {
        self.unasked.get(&sequence.share.tenant).is_some_and(|unasked| unasked.contains(&sequence.arrival))
    }

    /// All that wait for this adapter, the oldest first.
    pub fn wanting(&self, key: &AdapterKey) -> Vec<u64> {
        self.wanting.get(key).into_iter().flatten().copied().collect()
    }

    /// The tenants of those whose adapter is still to be asked for.
    pub fn unasked_tenants(&self) -> Vec<TenantId> {
        self.unasked.keys().copied().collect()
    }

    /// The oldest of them that arrived after `after`.
    pub fn unasked(&self, tenant: TenantId, after: u64) -> Option<&Sequence<A>> {
        let next = self.unasked.get(&tenant)?.range(after + 1..).next()?;
        self.sequences.get(next)
    }

    /// Its adapter has been asked for.
    pub fn asked(&mut self, arrival: u64) {
        let Some(tenant) = self.sequences.get(&arrival).map(|sequence| sequence.share.tenant) else { return };
        self.no_longer_unasked(tenant, arrival);
    }

    /// Its adapter has to be asked for again.
    pub fn ask_again(&mut self, arrival: u64) {
        if let Some(sequence) = self.sequences.get(&arrival) {
            self.unasked.entry(sequence.share.tenant).or_default().insert(arrival);
        }
    }

    /// It has its adapter.
    pub fn leased(&mut self, arrival: u64, lease: Lease<A>, accounts: &Accounts) {
        let Some(sequence) = self.sequences.get_mut(&arrival) else { return };
        sequence.lease = Some(lease);
        if let (Some(key), tenant) = (sequence.adapter, sequence.share.tenant) {
            self.no_longer_wanting(&key, tenant, arrival);
        }
        self.look_at(arrival, accounts);
    }

    /// Lines that changed since the last look, with their lengths.
    pub fn take_changed(&mut self) -> Vec<(TenantId, LineLength)> {
        let length = |tenant: &TenantId| self.lines.get(tenant).map(|line| line.length).unwrap_or_default();
        self.changed.drain().map(|tenant| (tenant, length(&tenant))).collect()
    }

    pub fn length(&self, tenant: TenantId) -> LineLength {
        self.lines.get(&tenant).map(|line| line.length).unwrap_or_default()
    }

    fn no_longer_wanting(&mut self, key: &AdapterKey, tenant: TenantId, arrival: u64) {
        if let Some(wanting) = self.wanting.get_mut(key) {
            wanting.remove(&arrival);
            if wanting.is_empty() {
                self.wanting.remove(key);
            }
        }
        self.no_longer_unasked(tenant, arrival);
    }

    fn no_longer_unasked(&mut self, tenant: TenantId, arrival: u64) {
        if let Some(unasked) = self.unasked.get_mut(&tenant) {
            unasked.remove(&arrival);
            if unasked.is_empty() {
                self.unasked.remove(&tenant);
            }
        }
    }
}
