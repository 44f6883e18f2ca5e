//! Rate limits for one gateway alone, kept in its memory. With more than one gateway the limits belong in Redis.

mod counts;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{ApiKeyId, RequestId, TenantId};
use futures::future::{self, BoxFuture};

use super::{Ask, Denied, Extended, Limit, LimitsUnavailable, Rate, RateLimits, Rates, Refusal, SLOT_MS, Scope, Used};
use counts::Counts;

/// Calls between two looks for tenants about whom nothing is left to remember.
const SWEEP_EVERY: u32 = 1_024;

/// Counts of all tenants. Calls never wait but for the lock, which is never held across one.
pub struct InProcessLimits {
    clock: Clock,
    book: Mutex<Book>,
}

/// Milliseconds since some fixed moment, never going back.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
struct Book {
    tenants: HashMap<TenantId, Tenant>,
    calls: u32,
}

#[derive(Default)]
struct Tenant {
    own: Counts,
    /// Of keys that have limits of their own.
    keys: HashMap<ApiKeyId, Counts>,
    reservations: HashMap<RequestId, Held>,
    /// The same reservations by expiry.
    leases: BTreeMap<u64, HashSet<RequestId>>,
}

struct Held {
    /// The key, if its limits were charged too.
    key: Option<ApiKeyId>,
    slot: u64,
    input: u64,
    /// Slot and tokens of each grant.
    grants: Vec<(u64, u64)>,
    expires_ms: u64,
}

impl Default for InProcessLimits {
    fn default() -> Self {
        let start = Instant::now();
        Self::with_clock(Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }
}

impl InProcessLimits {
    /// With a clock of the caller's: milliseconds since some fixed moment.
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, book: Mutex::default() }
    }

    /// Runs `act` on a tenant's counts, without what has expired by now.
    fn on<T>(&self, ask: &Ask, act: impl FnOnce(&mut Tenant, u64) -> T) -> T {
        let now = (self.clock)();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.calls += 1;
        if book.calls >= SWEEP_EVERY {
            book.calls = 0;
            book.tenants.retain(|_, tenant| {
                tenant.drop_expired(now);
                tenant.keys.retain(|_, counts| !counts.is_empty());
                !(tenant.own.is_empty() && tenant.keys.is_empty() && tenant.reservations.is_empty())
            });
        }
        let tenant = book.tenants.entry(ask.tenant).or_default();
        tenant.drop_expired(now);
        act(tenant, now)
    }
}

impl RateLimits for InProcessLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<u32, Denied>> {
        let answer = self.on(ask, |tenant, now| tenant.reserve(ask, now)).map_err(Denied::Refused);
        Box::pin(future::ready(answer))
    }

    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>> {
        Box::pin(future::ready(Ok(self.on(ask, |tenant, now| tenant.extend(ask, total.into(), now)))))
    }

    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        Box::pin(future::ready(Ok(self.on(ask, |tenant, now| tenant.settle(ask.id, used, now)))))
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        Box::pin(future::ready(Ok(self.on(ask, |tenant, now| tenant.renew(ask.id, now + millis(ask.lease))))))
    }
}

impl Tenant {
    fn reserve(&mut self, ask: &Ask, now: u64) -> Result<u32, Refusal> {
        if let Some(held) = self.reservations.get(&ask.id) {
            return Ok(saturated(held.granted()));
        }
        let key = ask.of_key.any().then_some(ask.key);
        let mut exceeded = self.own.exceeded(Scope::Tenant, &ask.of_tenant, ask.input_tokens, now);
        if let Some(key) = key {
            let counts = self.keys.entry(key).or_default();
            exceeded.extend(counts.exceeded(Scope::Key, &ask.of_key, ask.input_tokens, now));
        }
        if !exceeded.is_empty() {
            return Err(Refusal { exceeded });
        }
        let (slot, input, expires_ms) = (now / SLOT_MS, u64::from(ask.input_tokens), now + millis(ask.lease));
        let rooms = self.rooms(key, ask);
        let granted = rooms.into_iter().fold(u64::from(ask.output_tokens), |granted, (_, room)| granted.min(room));
        for counts in self.scopes(key) {
            counts.requests.add(slot, 1);
            counts.input.add(slot, input);
            counts.output.add(slot, granted);
            *counts.leases.entry(expires_ms).or_default() += 1;
        }
        self.leases.entry(expires_ms).or_default().insert(ask.id);
        self.reservations.insert(ask.id, Held { key, slot, input, grants: vec![(slot, granted)], expires_ms });
        Ok(saturated(granted))
    }

    fn extend(&mut self, ask: &Ask, total: u64, now: u64) -> Extended {
        let Some(held) = self.reservations.get(&ask.id) else { return Extended::Unknown };
        let (key, granted, slot) = (held.key, held.granted(), now / SLOT_MS);
        let wanted = total.saturating_sub(granted);
        let rooms = if wanted > 0 { self.rooms(key, ask) } else { Vec::new() };
        let more = rooms.iter().fold(wanted, |more, (_, room)| more.min(*room));
        let rate = Rate::OutputTokensPerMinute;
        let stopped_by = rooms.iter().filter(|(_, room)| *room < wanted);
        let stopped_by = stopped_by.map(|(scope, _)| Limit { scope: *scope, rate }).collect();
        if more > 0 {
            self.scopes(key).for_each(|counts| counts.output.add(slot, more));
            self.reservations.entry(ask.id).and_modify(|held| held.grants.push((slot, more)));
        }
        Extended::Granted { total: saturated(granted + more), stopped_by }
    }

    fn settle(&mut self, id: RequestId, used: Used, now: u64) -> bool {
        let Some(held) = self.reservations.remove(&id) else { return false };
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
        true
    }

    fn renew(&mut self, id: RequestId, expires_ms: u64) -> bool {
        let Some(held) = self.reservations.get_mut(&id) else { return false };
        let (key, before) = (held.key, std::mem::replace(&mut held.expires_ms, expires_ms));
        self.end_lease(id, key, before);
        self.scopes(key).for_each(|counts| *counts.leases.entry(expires_ms).or_default() += 1);
        self.leases.entry(expires_ms).or_default().insert(id);
        true
    }

    /// The tenant's counts, and those of a key that is counted.
    fn scopes(&mut self, key: Option<ApiKeyId>) -> impl Iterator<Item = &mut Counts> {
        let Self { own, keys, .. } = self;
        std::iter::once(own).chain(key.map(|key| keys.entry(key).or_default()))
    }

    /// Output tokens that each scope has room for.
    fn rooms(&self, key: Option<ApiKeyId>, ask: &Ask) -> Vec<(Scope, u64)> {
        let room = |counts: &Counts, rates: Rates| {
            let most = rates.output_tokens_per_minute.map_or(u64::MAX, u64::from);
            most.saturating_sub(counts.output.sum())
        };
        let of_key = key.and_then(|key| self.keys.get(&key)).map(|counts| (Scope::Key, room(counts, ask.of_key)));
        [(Scope::Tenant, room(&self.own, ask.of_tenant))].into_iter().chain(of_key).collect()
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

    fn drop_expired(&mut self, now: u64) {
        while let Some(lease) = self.leases.first_entry().filter(|lease| *lease.key() <= now) {
            let expires_ms = *lease.key();
            for id in lease.remove() {
                let held = self.reservations.remove(&id);
                self.scopes(held.and_then(|held| held.key)).for_each(|counts| counts.end_lease(expires_ms));
            }
        }
        let Self { own, keys, .. } = self;
        std::iter::once(own).chain(keys.values_mut()).for_each(|counts| counts.drop_passed(now));
    }
}

impl Held {
    fn granted(&self) -> u64 {
        self.grants.iter().map(|(_, amount)| amount).sum()
    }
}

fn saturated(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
