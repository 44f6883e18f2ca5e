//! How much service each tenant has had, as virtual token counters (Sheng et al., "Fairness in Serving Large Language
//! Models", OSDI 2024): what a tenant's requests cost, over its weight. Whoever has had least goes first. A tenant that
//! comes back after a pause is lifted to the least of those who are active, so nobody saves service up; one that was
//! ahead stays ahead. A prompt is promised when it is let in and delivered row by row: whose turn it is goes by both, what
//! others are lifted to goes by what was delivered.
//!
//! Every operation is O(log n) in the number of tenants. Nothing here knows a queue.

use std::collections::{BTreeSet, HashMap};

use domain::TenantId;

/// Cost over weight, in [`UNIT`]s.
pub(crate) type Service = u128;

/// A cost of 1 at a weight of 1. Wide enough that no weight rounds a cost to nothing.
const UNIT: u128 = 1 << 32;

/// A service as the cost that it is at a weight of 1.
pub(crate) fn cost_at_weight_one(service: Service) -> u64 {
    u64::try_from(service / UNIT).unwrap_or(u64::MAX)
}

/// The counters of all tenants that are active or ahead of the others.
pub(crate) struct Accounts {
    accounts: HashMap<TenantId, Account>,
    active: BTreeSet<(Service, TenantId)>,
    /// Without requests, but ahead of the least active one.
    idle: BTreeSet<(Service, TenantId)>,
    idle_max: usize,
    /// What a tenant begins with while nobody is active.
    floor: Service,
}

struct Account {
    /// Delivered.
    service: Service,
    /// Cost of what was promised besides.
    promised: u64,
    weight: u32,
    requests: usize,
}

impl Accounts {
    /// Remembers at most `idle_max` tenants without requests.
    pub fn new(idle_max: usize) -> Self {
        let (active, idle) = (BTreeSet::new(), BTreeSet::new());
        Self { accounts: HashMap::new(), active, idle, idle_max, floor: 0 }
    }

    /// A request of this tenant came.
    pub fn enter(&mut self, tenant: TenantId, weight: u32) {
        let least = self.least();
        let new = || Account { service: least, promised: 0, weight, requests: 0 };
        let account = self.accounts.entry(tenant).or_insert_with(new);
        account.weight = weight;
        account.requests += 1;
        if account.requests == 1 {
            self.idle.remove(&(account.service, tenant));
            account.service = account.service.max(least);
            self.active.insert((account.service, tenant));
        }
    }

    /// A request of this tenant is over.
    pub fn leave(&mut self, tenant: TenantId) {
        let Some(account) = self.accounts.get_mut(&tenant) else { return };
        account.requests = account.requests.saturating_sub(1);
        if account.requests > 0 {
            return;
        }
        account.promised = 0;
        let place = (account.service, tenant);
        if self.active.remove(&place) {
            self.idle.insert(place);
            if self.active.is_empty() {
                self.floor = self.floor.max(place.0);
            }
            self.forget();
        }
    }

    /// What the tenant has had and was promised; the least of all for one that is not known.
    pub fn service(&self, tenant: TenantId) -> Service {
        self.accounts.get(&tenant).map_or_else(|| self.least(), Account::total)
    }

    /// The tenant will have service of this cost.
    pub fn promise(&mut self, tenant: TenantId, cost: u64) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.promised = account.promised.saturating_add(cost);
        }
    }

    /// It will not.
    pub fn withdraw(&mut self, tenant: TenantId, cost: u64) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.promised = account.promised.saturating_sub(cost);
        }
    }

    /// The tenant has had service of this cost, which was promised.
    pub fn deliver(&mut self, tenant: TenantId, cost: u64) {
        self.withdraw(tenant, cost);
        self.charge(tenant, cost);
    }

    /// The tenant has had service of this cost.
    pub fn charge(&mut self, tenant: TenantId, cost: u64) {
        let Some(account) = self.accounts.get_mut(&tenant) else { return };
        let before = account.service;
        account.service = before.saturating_add(account.over_weight(cost));
        let order = if account.requests > 0 { &mut self.active } else { &mut self.idle };
        order.remove(&(before, tenant));
        order.insert((account.service, tenant));
        self.forget();
    }

    /// Tenants with requests, those that have had most first.
    pub fn active(&self) -> impl Iterator<Item = (TenantId, Service)> {
        self.active.iter().rev().map(|(service, tenant)| (*tenant, *service))
    }

    /// More than one tenant has requests.
    pub fn contend(&self) -> bool {
        self.active.len() > 1
    }

    /// Tenants that are remembered, with requests or without.
    #[cfg(test)]
    pub fn known(&self) -> usize {
        self.accounts.len()
    }

    fn least(&self) -> Service {
        self.active.first().map_or(self.floor, |(service, _)| *service)
    }

    /// Whoever has had no more than the least active one would begin there anyway.
    fn forget(&mut self) {
        let least = self.least();
        while let Some((service, tenant)) = self.idle.first().copied()
            && (service <= least || self.idle.len() > self.idle_max)
        {
            self.idle.remove(&(service, tenant));
            self.accounts.remove(&tenant);
        }
    }
}

impl Account {
    fn total(&self) -> Service {
        self.service.saturating_add(self.over_weight(self.promised))
    }

    fn over_weight(&self, cost: u64) -> Service {
        u128::from(cost) * UNIT / u128::from(self.weight.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u128) -> TenantId {
        TenantId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_cost_counts_less_for_who_has_more_weight() {
        let mut accounts = Accounts::new(8);
        accounts.enter(tenant(1), 1);
        accounts.enter(tenant(2), 3);
        accounts.charge(tenant(1), 10);
        accounts.charge(tenant(2), 30);
        assert_eq!(accounts.service(tenant(1)), accounts.service(tenant(2)));
        assert_eq!(accounts.service(tenant(1)), 10 * UNIT);
    }

    #[test]
    fn an_idle_tenant_saves_nothing_up_and_one_that_is_ahead_stays_ahead() {
        let mut accounts = Accounts::new(8);
        accounts.enter(tenant(1), 1);
        accounts.enter(tenant(2), 1);
        accounts.charge(tenant(2), 70);
        accounts.leave(tenant(2));
        accounts.charge(tenant(1), 50);
        let (least, ahead) = (accounts.service(tenant(1)), 70 * UNIT);
        accounts.enter(tenant(3), 1);
        assert_eq!(accounts.service(tenant(3)), least, "one that was never here begins with the least");
        accounts.enter(tenant(2), 1);
        assert_eq!(accounts.service(tenant(2)), ahead, "a pause does not wash away what it had");
    }

    #[test]
    fn a_promise_counts_for_the_turn_and_not_for_what_others_are_lifted_to() {
        let mut accounts = Accounts::new(8);
        accounts.enter(tenant(1), 1);
        accounts.promise(tenant(1), 100);
        accounts.deliver(tenant(1), 30);
        accounts.enter(tenant(2), 1);
        assert_eq!((accounts.service(tenant(1)), accounts.service(tenant(2))), (100 * UNIT, 30 * UNIT));
        accounts.withdraw(tenant(1), 70);
        assert_eq!(accounts.service(tenant(1)), 30 * UNIT);
    }

    #[test]
    fn when_all_have_gone_the_next_begin_alike_and_nothing_is_kept() {
        let mut accounts = Accounts::new(8);
        for n in 1..=3 {
            accounts.enter(tenant(n), 1);
            accounts.charge(tenant(n), n as u64);
        }
        [2, 3, 1].into_iter().for_each(|n| accounts.leave(tenant(n)));
        assert_eq!(accounts.known(), 2, "those ahead of the last one");
        accounts.enter(tenant(4), 1);
        accounts.enter(tenant(1), 1);
        assert_eq!(accounts.service(tenant(4)), accounts.service(tenant(1)));
    }

    #[test]
    fn no_more_idle_tenants_are_remembered_than_the_limit_says() {
        let mut accounts = Accounts::new(3);
        accounts.enter(tenant(1), 1);
        for n in 2..50 {
            accounts.enter(tenant(n), 1);
            accounts.charge(tenant(n), n as u64);
            accounts.leave(tenant(n));
        }
        assert_eq!(accounts.known(), 4);
        assert_eq!(accounts.service(tenant(49)), 49 * UNIT, "the ones furthest ahead are kept");
    }
}
