//! Rate limits for one gateway alone, kept in its memory. With more than one gateway the limits belong in Redis.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{RequestId, TenantId};
use futures::future::{self, BoxFuture};

use super::{
    Ask, CONCURRENCY_RETRY_MS, Denied, Exceeded, Limit, LimitsUnavailable, RateLimits, Refusal, SLOT_MS, WINDOW_SLOTS,
};

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
    tenants: HashMap<TenantId, Counts>,
    calls: u32,
}

#[derive(Default)]
struct Counts {
    requests: Window,
    tokens: Window,
    reservations: HashMap<RequestId, Held>,
    /// The same reservations by expiry.
    leases: BTreeMap<u64, HashSet<RequestId>>,
}

/// Amounts by slot.
#[derive(Default)]
struct Window(BTreeMap<u64, u64>);

struct Held {
    slot: u64,
    tokens: u64,
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
    fn on<T>(&self, tenant: TenantId, act: impl FnOnce(&mut Counts, u64) -> T) -> T {
        let now = (self.clock)();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.calls += 1;
        if book.calls >= SWEEP_EVERY {
            book.calls = 0;
            book.tenants.retain(|_, counts| {
                counts.drop_expired(now);
                !counts.is_empty()
            });
        }
        let counts = book.tenants.entry(tenant).or_default();
        counts.drop_expired(now);
        act(counts, now)
    }
}

impl RateLimits for InProcessLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), Denied>> {
        let answer = self.on(ask.tenant, |counts, now| counts.reserve(ask, now)).map_err(Denied::Refused);
        Box::pin(future::ready(answer))
    }

    fn settle(&self, tenant: TenantId, id: RequestId, used: u64) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        Box::pin(future::ready(Ok(self.on(tenant, |counts, now| counts.settle(id, used, now)))))
    }

    fn renew(
        &self,
        tenant: TenantId,
        id: RequestId,
        lease: Duration,
    ) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        Box::pin(future::ready(Ok(self.on(tenant, |counts, now| counts.renew(id, now + millis(lease))))))
    }
}

impl Counts {
    fn reserve(&mut self, ask: &Ask, now: u64) -> Result<(), Refusal> {
        if self.reservations.contains_key(&ask.id) {
            return Ok(());
        }
        let exceeded: Vec<_> = [
            self.requests.exceeded(Limit::RequestsPerMinute, 1, ask.requests_per_minute, now),
            self.tokens.exceeded(Limit::TokensPerMinute, ask.tokens.into(), ask.tokens_per_minute, now),
            self.slots_exceeded(ask.concurrent_requests, now),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !exceeded.is_empty() {
            return Err(Refusal { exceeded });
        }
        let (slot, tokens, expires_ms) = (now / SLOT_MS, u64::from(ask.tokens), now + millis(ask.lease));
        self.requests.add(slot, 1);
        self.tokens.add(slot, tokens);
        self.leases.entry(expires_ms).or_default().insert(ask.id);
        self.reservations.insert(ask.id, Held { slot, tokens, expires_ms });
        Ok(())
    }

    fn settle(&mut self, id: RequestId, used: u64, now: u64) -> bool {
        let Some(held) = self.reservations.remove(&id) else { return false };
        self.end_lease(id, held.expires_ms);
        if held.slot + WINDOW_SLOTS > now / SLOT_MS {
            self.tokens.replace(held.slot, held.tokens, used);
        }
        true
    }

    fn renew(&mut self, id: RequestId, expires_ms: u64) -> bool {
        let Some(held) = self.reservations.get_mut(&id) else { return false };
        let before = std::mem::replace(&mut held.expires_ms, expires_ms);
        self.end_lease(id, before);
        self.leases.entry(expires_ms).or_default().insert(id);
        true
    }

    fn end_lease(&mut self, id: RequestId, expires_ms: u64) {
        if let Some(ids) = self.leases.get_mut(&expires_ms) {
            ids.remove(&id);
            if ids.is_empty() {
                self.leases.remove(&expires_ms);
            }
        }
    }

    fn slots_exceeded(&self, most: u32, now: u64) -> Option<Exceeded> {
        let over = (self.reservations.len() as u64 + 1).checked_sub(most.into()).filter(|over| *over > 0)?;
        let first = self.leases.keys().next().map_or(CONCURRENCY_RETRY_MS, |expires_ms| expires_ms - now);
        let retry_after = Some(Duration::from_millis(first.min(CONCURRENCY_RETRY_MS)));
        Some(Exceeded { limit: Limit::ConcurrentRequests, over, retry_after })
    }

    fn drop_expired(&mut self, now: u64) {
        while let Some(lease) = self.leases.first_entry().filter(|lease| *lease.key() <= now) {
            for id in lease.remove() {
                self.reservations.remove(&id);
            }
        }
        self.requests.drop_passed(now);
        self.tokens.drop_passed(now);
    }

    fn is_empty(&self) -> bool {
        self.reservations.is_empty() && self.requests.0.is_empty() && self.tokens.0.is_empty()
    }
}

impl Window {
    /// By how much `amount` more would be above `most`, if so. Expects that passed slots are gone.
    fn exceeded(&self, limit: Limit, amount: u64, most: u32, now: u64) -> Option<Exceeded> {
        let most = u64::from(most);
        let sum: u64 = self.0.values().sum();
        let over = (sum + amount).checked_sub(most).filter(|over| *over > 0)?;
        let mut freed = 0;
        let roomy = self.0.iter().find(|(_, amount)| {
            freed += **amount;
            freed >= over
        });
        let retry_after = roomy
            .filter(|_| amount <= most)
            .map(|(slot, _)| Duration::from_millis((slot + WINDOW_SLOTS) * SLOT_MS - now));
        Some(Exceeded { limit, over, retry_after })
    }

    fn add(&mut self, slot: u64, amount: u64) {
        *self.0.entry(slot).or_default() += amount;
    }

    fn replace(&mut self, slot: u64, before: u64, after: u64) {
        let amount = self.0.entry(slot).or_default();
        *amount = amount.saturating_sub(before) + after;
    }

    fn drop_passed(&mut self, now: u64) {
        let slot = now / SLOT_MS;
        while self.0.first_key_value().is_some_and(|(oldest, _)| oldest + WINDOW_SLOTS <= slot) {
            self.0.pop_first();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
