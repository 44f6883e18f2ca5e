//! Limits for one gateway alone, kept in its memory. With more than one gateway the limits belong in Redis.

mod counts;
mod tenant;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use domain::TenantId;
use futures::{FutureExt as _, future::BoxFuture};

use super::{
    Ask, BudgetSource, Denied, Explained, Extended, Granted, Left, LimitsUnavailable, NothingSpent, Period, RateLimits,
    SEEDS_MAX, Spent, Used, budgets::Ledger,
};
use tenant::{Tenant, millis};

/// Calls between two looks for tenants about whom nothing is left to remember.
const SWEEP_EVERY: u32 = 1_024;

/// Counts of all tenants. Calls wait for the lock, which is never held across one, and for the ledger when it has to say
/// what was spent.
pub struct InProcessLimits {
    clock: Clock,
    ledger: Ledger,
    book: Mutex<Book>,
}

/// Milliseconds since 1970, never going back.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
struct Book {
    tenants: HashMap<TenantId, Tenant>,
    calls: u32,
}

/// Money of which nothing is known yet: of the tenant, and of its key.
struct Unknown {
    period: Period,
    scopes: [bool; 2],
}

/// For platforms without a ledger: budgets begin with the process.
impl Default for InProcessLimits {
    fn default() -> Self {
        Self::new(Arc::new(NothingSpent), Duration::ZERO)
    }
}

impl InProcessLimits {
    /// What has been spent of budgets is read from `source`, and waited for for `ledger_wait`.
    pub fn new(source: Arc<dyn BudgetSource>, ledger_wait: Duration) -> Self {
        let begin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start = Instant::now();
        Self::with_clock(source, ledger_wait, Arc::new(move || millis(begin + start.elapsed())))
    }

    /// With a clock of the caller's: milliseconds since 1970.
    pub fn with_clock(source: Arc<dyn BudgetSource>, ledger_wait: Duration, clock: Clock) -> Self {
        Self { clock, ledger: Ledger::new(source, ledger_wait), book: Mutex::default() }
    }

    /// Runs `act` on a tenant's counts, without what has expired by now.
    fn on<T>(&self, ask: &Ask, act: impl FnOnce(&mut Tenant, u64) -> T) -> T {
        let now = (self.clock)();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.calls += 1;
        if book.calls >= SWEEP_EVERY {
            book.calls = 0;
            book.tenants.retain(|_, tenant| !tenant.sweep(now));
        }
        let tenant = book.tenants.entry(ask.tenant).or_default();
        tenant.drop_expired(now);
        act(tenant, now)
    }

    /// As [`InProcessLimits::on`]; money that is not known is read from the ledger first.
    async fn on_known<T>(
        &self,
        ask: &Ask,
        act: impl Fn(&mut Tenant, u64) -> Result<T, Unknown>,
    ) -> Result<T, LimitsUnavailable> {
        for _ in 0..SEEDS_MAX {
            let Unknown { period, scopes } = match self.on(ask, &act) {
                Ok(done) => return Ok(done),
                Err(unknown) => unknown,
            };
            let spent = self.ledger.spent(ask, period, scopes, &[]).await?;
            let spent = spent.map(|parts| parts.as_ref().map(Spent::sum));
            self.on(ask, |tenant, _| tenant.seed(ask.key, period, spent));
        }
        Err(LimitsUnavailable::Silent("what was spent is forgotten again and again".to_owned()))
    }
}

impl RateLimits for InProcessLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>> {
        async move {
            let answer = self.on_known(ask, |tenant, now| tenant.reserve(ask, now)).await;
            answer.map_err(Denied::Unavailable)?.map_err(Denied::Refused)
        }
        .boxed()
    }

    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>> {
        async move { self.on_known(ask, |tenant, now| tenant.extend(ask, total.into(), now)).await }.boxed()
    }

    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        let known = self.on(ask, |tenant, now| tenant.settle(ask.id, used, ask.cost(used), now));
        futures::future::ready(Ok(known)).boxed()
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        let known = self.on(ask, |tenant, now| tenant.renew(ask.id, now + millis(ask.lease)));
        futures::future::ready(Ok(known)).boxed()
    }

    fn left<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Vec<Left>> {
        let left = self.on(ask, |tenant, now| tenant.left(ask, now));
        futures::future::ready(left).boxed()
    }

    fn explain<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Explained, LimitsUnavailable>> {
        async move { self.on_known(ask, |tenant, now| tenant.explain(ask, now)).await }.boxed()
    }
}
