//! The counts of one tenant and of its keys, and its running requests.

mod explain;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use domain::{ApiKeyId, RequestId};

use super::{Unknown, counts::Counts};
use crate::limits::{Ask, Extended, Granted, Limit, Period, Rate, Refusal, SLOT_MS, Scope, Spent, Used};

#[derive(Default)]
pub struct Tenant {
    own: Counts,
    /// Of keys that have limits of their own.
    keys: HashMap<ApiKeyId, Counts>,
    reservations: HashMap<RequestId, Held>,
    /// The same reservations by expiry.
    leases: BTreeMap<u64, HashSet<RequestId>>,
    /// Money of those whose lease has passed, until they are settled.
    owed: HashMap<RequestId, (Option<ApiKeyId>, Money)>,
}

struct Held {
    /// The key, if its limits were charged too.
    key: Option<ApiKeyId>,
    slot: u64,
    input: u64,
    /// Slot and tokens of each grant.
    grants: Vec<(u64, u64)>,
    money: Money,
    expires_ms: u64,
}

/// What was charged to the budgets of the tenant and of the key.
#[derive(Clone, Copy)]
struct Money {
    period: Period,
    budgeted: [bool; 2],
    cost: u64,
}

impl Tenant {
    pub fn reserve(&mut self, ask: &Ask, now: u64) -> Result<Result<Granted, Refusal>, Unknown> {
        if let Some(held) = self.reservations.get(&ask.id) {
            return Ok(Ok(Granted { output: saturated(held.granted()), at_ms: held.slot * SLOT_MS }));
        }
        let key = ask.of_key.any().then_some(ask.key);
        let period = Period::of(now);
        self.known_money(ask, period, ask.budgeted())?;
        let mut exceeded = self.own.exceeded(Scope::Tenant, &ask.of_tenant, ask, period, now);
        if let Some(key) = key {
            let counts = self.keys.entry(key).or_default();
            exceeded.extend(counts.exceeded(Scope::Key, &ask.of_key, ask, period, now));
        }
        if !exceeded.is_empty() {
            return Ok(Err(Refusal { exceeded }));
        }
        let (slot, input, expires_ms) = (now / SLOT_MS, u64::from(ask.input_tokens), now + millis(ask.lease));
        let money = Money { period, budgeted: ask.budgeted(), cost: 0 };
        let bounds = self.bounds(key, ask, &money, 0, ask.output_tokens.into());
        let granted = bounds.into_iter().fold(u64::from(ask.output_tokens), |granted, (_, most)| granted.min(most));
        for counts in self.scopes(key) {
            counts.requests.add(slot, 1);
            counts.input.add(slot, input);
            counts.output.add(slot, granted);
            *counts.leases.entry(expires_ms).or_default() += 1;
        }
        let money = Money { cost: ask.cost_at_most(granted), ..money };
        self.charge_money(key, &money, 0, money.cost);
        self.leases.entry(expires_ms).or_default().insert(ask.id);
        self.owed.remove(&ask.id);
        self.reservations.insert(ask.id, Held { key, slot, input, grants: vec![(slot, granted)], money, expires_ms });
        Ok(Ok(Granted { output: saturated(granted), at_ms: slot * SLOT_MS }))
    }

    pub fn extend(&mut self, ask: &Ask, total: u64, now: u64) -> Result<Extended, Unknown> {
        let Some(held) = self.reservations.get(&ask.id) else { return Ok(Extended::Unknown) };
        let (key, granted, money, slot) = (held.key, held.granted(), held.money, now / SLOT_MS);
        let mut stopped_by = Vec::new();
        let mut most = granted.max(total);
        if total > granted {
            self.known_money(ask, money.period, money.budgeted)?;
            for (limit, bound) in self.bounds(key, ask, &money, granted, total) {
                if bound < total {
                    stopped_by.push(limit);
                }
                most = most.min(bound.max(granted));
            }
        }
        if most > granted {
            let cost = ask.cost_at_most(most);
            self.scopes(key).for_each(|counts| counts.output.add(slot, most - granted));
            self.charge_money(key, &money, money.cost, cost);
            self.reservations.entry(ask.id).and_modify(|held| {
                held.grants.push((slot, most - granted));
                held.money.cost = cost;
            });
        }
        Ok(Extended::Granted { total: saturated(most), stopped_by })
    }

    pub fn settle(&mut self, id: RequestId, used: Used, cost: u64, now: u64) -> bool {
        let Some(held) = self.reservations.remove(&id) else {
            if let Some((key, money)) = self.owed.remove(&id) {
                self.charge_money(key, &money, money.cost, cost);
            }
            return false;
        };
        self.end_lease(id, held.key, held.expires_ms);
        let slot_now = now / SLOT_MS;
        for counts in self.scopes(held.key) {
            counts.input.correct(held.slot, held.input, used.input, slot_now);
            let mut left = used.output;
            for &(slot, amount) in &held.grants {
                let used = left.min(amount);
                counts.output.correct(slot, amount, used, slot_now);
                left -= used;
            }
            counts.output.add(slot_now, left);
        }
        self.charge_money(held.key, &held.money, held.money.cost, cost);
        true
    }

    pub fn renew(&mut self, id: RequestId, expires_ms: u64) -> bool {
        let Some(held) = self.reservations.get_mut(&id) else { return false };
        let (key, before) = (held.key, std::mem::replace(&mut held.expires_ms, expires_ms));
        self.end_lease(id, key, before);
        self.scopes(key).for_each(|counts| *counts.leases.entry(expires_ms).or_default() += 1);
        self.leases.entry(expires_ms).or_default().insert(id);
        true
    }

    /// Takes over what the ledger says of money that is still unknown.
    pub fn seed(&mut self, key: ApiKeyId, period: Period, spent: [Option<Spent>; 2]) {
        for (scope, spent) in [None, Some(key)].into_iter().zip(spent) {
            let Some(spent) = spent else { continue };
            let counts = match scope {
                None => &mut self.own,
                Some(key) => self.keys.entry(key).or_default(),
            };
            counts.money.seed(period, spent);
        }
    }

    /// Forgets what is over; says whether nothing is left.
    pub fn sweep(&mut self, now: u64) -> bool {
        self.drop_expired(now);
        self.keys.retain(|_, counts| !counts.is_empty());
        self.own.is_empty() && self.keys.is_empty() && self.reservations.is_empty() && self.owed.is_empty()
    }

    pub fn drop_expired(&mut self, now: u64) {
        while let Some(lease) = self.leases.first_entry().filter(|lease| *lease.key() <= now) {
            let expires_ms = *lease.key();
            for id in lease.remove() {
                let held = self.reservations.remove(&id);
                if let Some(held) = held.as_ref().filter(|held| held.money.budgeted != [false, false]) {
                    self.owed.insert(id, (held.key, held.money));
                }
                self.scopes(held.and_then(|held| held.key)).for_each(|counts| counts.end_lease(expires_ms));
            }
        }
        let Self { own, keys, .. } = self;
        std::iter::once(own).chain(keys.values_mut()).for_each(|counts| counts.drop_passed(now));
    }

    /// The tenant's counts, and those of a key that is counted.
    fn scopes(&mut self, key: Option<ApiKeyId>) -> impl Iterator<Item = &mut Counts> {
        let Self { own, keys, .. } = self;
        std::iter::once(own).chain(key.map(|key| keys.entry(key).or_default()))
    }

    fn known_money(&self, ask: &Ask, period: Period, budgeted: [bool; 2]) -> Result<(), Unknown> {
        let counts = [Some(&self.own), self.keys.get(&ask.key)];
        let known = counts.map(|counts| counts.is_some_and(|counts| counts.money.spent(period).is_some()));
        let scopes = [budgeted[0] && !known[0], budgeted[1] && !known[1]];
        if scopes == [false, false] { Ok(()) } else { Err(Unknown { period, scopes }) }
    }

    fn charge_money(&mut self, key: Option<ApiKeyId>, money: &Money, before: u64, after: u64) {
        let Money { period, budgeted, .. } = *money;
        for (counts, _) in self.scopes(key).zip(budgeted).filter(|(_, budgeted)| *budgeted) {
            counts.money.correct(period, before, after);
        }
    }

    /// The most tokens in all, from `granted` to `total`, that each limit allows.
    fn bounds(
        &mut self,
        key: Option<ApiKeyId>,
        ask: &Ask,
        money: &Money,
        granted: u64,
        total: u64,
    ) -> Vec<(Limit, u64)> {
        let scopes = [(Scope::Tenant, ask.of_tenant), (Scope::Key, ask.of_key)];
        let counted = self.scopes(key).zip(scopes).zip(money.budgeted);
        let mut bounds = Vec::new();
        for ((counts, (scope, rates)), budgeted) in counted {
            if let Some(most) = rates.output_tokens_per_minute {
                let room = u64::from(most).saturating_sub(counts.output.sum());
                bounds.push((Limit { scope, rate: Rate::OutputTokensPerMinute }, granted + room));
            }
            let spent = counts.money.spent(money.period).filter(|_| budgeted);
            for (rate, spent) in spent.map(|spent| spent.by_rate()).into_iter().flatten() {
                let Some(most) = rates.of(rate) else { continue };
                let affordable = affordable(ask, granted, total, (money.cost + most).saturating_sub(spent));
                bounds.push((Limit { scope, rate }, affordable));
            }
        }
        bounds
    }

    fn end_lease(&mut self, id: RequestId, key: Option<ApiKeyId>, expires_ms: u64) {
        if let Some(ids) = self.leases.get_mut(&expires_ms) {
            ids.remove(&id);
            if ids.is_empty() {
                self.leases.remove(&expires_ms);
            }
        }
        self.scopes(key).for_each(|counts| counts.end_lease(expires_ms));
    }
}

impl Held {
    fn granted(&self) -> u64 {
        self.grants.iter().map(|(_, amount)| amount).sum()
    }
}

/// Most tokens from `least` to `most` of which the cost is at most `money`; `least` if there are none.
fn affordable(ask: &Ask, least: u64, most: u64, money: u64) -> u64 {
    let (mut low, mut above) = (least, most + 1);
    while above - low > 1 {
        let middle = low + (above - low) / 2;
        if ask.cost_at_most(middle) <= money {
            low = middle;
        } else {
            above = middle;
        }
    }
    low
}

fn saturated(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
