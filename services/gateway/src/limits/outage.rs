//! What happens while the shared limits do not answer: at most a few requests wait for them, then nobody does until one
//! has found them back. A tenant's plan says what becomes of its requests meanwhile: `closed` refuses them, `leased` lets
//! them go on for as long as what this gateway has borrowed ahead lasts, so that what is above a limit is at most what was
//! lent, and `open` lets them go on, counted in this gateway's memory. With `open` a running answer is extended without
//! asking: money that it costs beyond a budget is a debt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::Outage;
use futures::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

use super::{
    Ask, BudgetSource, BudgetsCompared, Denied, Due, Explained, Extended, Granted, InProcessLimits, Left, Lends,
    LimitsUnavailable, Posts, RateLimits, Used, breaker::Breaker,
};

/// Shared limits, and what stands in for them.
pub struct OutageLimits<S> {
    pub(super) shared: S,
    local: InProcessLimits,
    breaker: Breaker,
}

impl<S: Lends> OutageLimits<S> {
    /// After `failures_max` calls in a row without an answer, `shared` is not called for `pause`.
    /// What stands in for it knows from `source` what has been spent.
    pub fn new(
        shared: S,
        failures_max: u32,
        pause: Duration,
        source: Arc<dyn BudgetSource>,
        ledger_wait: Duration,
    ) -> Self {
        let local = InProcessLimits::new(source, ledger_wait);
        Self { shared, local, breaker: Breaker::new(failures_max, pause) }
    }

    /// A call to the shared limits, unless they are known not to answer.
    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, LimitsUnavailable>> + Send,
    ) -> Result<T, LimitsUnavailable> {
        if !self.breaker.allows(Instant::now()) {
            return Err(LimitsUnavailable::Silent("they have not answered for a while".to_owned()));
        }
        let answer = call.await;
        match &answer {
            Ok(_) if self.breaker.succeeded() => tracing::info!("the shared rate limits answer again"),
            Ok(_) => {}
            // Redis has answered.
            Err(LimitsUnavailable::Ledger(_)) => {
                self.breaker.succeeded();
            }
            Err(error) if self.breaker.failed(Instant::now()) => {
                tracing::error!(%error, "the shared rate limits do not answer: every plan's own rule holds");
            }
            Err(_) => {}
        }
        answer
    }
}

impl<S: Lends> RateLimits for OutageLimits<S> {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>> {
        async move {
            if let Some(granted) = self.shared.draw(ask, Due::InTime) {
                return Ok(granted);
            }
            let reserved = self.shared.reserve(ask).map(|reserved| match reserved {
                Err(Denied::Unavailable(error)) => Err(error),
                answered => Ok(answered),
            });
            match (self.ask(reserved).await, ask.outage) {
                (Ok(answered), _) => answered,
                (Err(LimitsUnavailable::Silent(_)), Outage::Open) => {
                    self.shared.goes_on_elsewhere(ask);
                    self.local.reserve(ask).await
                }
                (Err(error @ LimitsUnavailable::Silent(_)), Outage::Leased) => {
                    self.shared.draw(ask, Due::Late).ok_or(Denied::Unavailable(error))
                }
                (Err(error), _) => Err(Denied::Unavailable(error)),
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>> {
        async move {
            if let Some(extended) = self.shared.extend_drawn(ask, total, Due::InTime) {
                return Ok(extended);
            }
            match self.local.extend(ask, total).await? {
                Extended::Unknown => {}
                extended => return Ok(extended),
            }
            match (self.ask(self.shared.extend(ask, total)).await, ask.outage) {
                (Err(error @ LimitsUnavailable::Silent(_)), Outage::Leased) => {
                    self.shared.extend_drawn(ask, total, Due::Late).ok_or(error)
                }
                // What it uses beyond its grant is a debt when it is settled.
                (Err(LimitsUnavailable::Silent(_)), Outage::Open) => {
                    Ok(Extended::Granted { total, stopped_by: Vec::new() })
                }
                (answered, _) => answered,
            }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        async move {
            if self.shared.settle_drawn(ask, used) {
                return Ok(true);
            }
            if self.local.settle(ask, used).await? {
                self.shared.ended_elsewhere(ask);
                return Ok(true);
            }
            // Whether they are asked now or not: it does not run any more.
            self.shared.has_ended(ask, used);
            self.ask(self.shared.settle(ask, used)).await
        }
        .boxed()
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        async move {
            if self.shared.is_drawn(ask) || self.local.renew(ask).await? {
                return Ok(true);
            }
            self.ask(self.shared.renew(ask)).await
        }
        .boxed()
    }

    fn left<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Vec<Left>> {
        async move { self.ask(self.shared.left(ask).map(Ok)).await.unwrap_or_default() }.boxed()
    }

    fn explain<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Explained, LimitsUnavailable>> {
        async move {
            match (self.ask(self.shared.explain(ask)).await, ask.outage) {
                (Err(LimitsUnavailable::Silent(_)), Outage::Open) => self.local.explain(ask).await,
                (answered, _) => answered,
            }
        }
        .boxed()
    }

    fn process(&self) -> Uuid {
        self.shared.process()
    }

    fn close_process(&self, gone: Uuid) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        self.shared.close_process(gone)
    }

    fn compare_budgets(&self) -> BoxFuture<'_, Result<Option<BudgetsCompared>, LimitsUnavailable>> {
        self.shared.compare_budgets()
    }

    fn posts_through(&self, log: Arc<dyn Posts>) {
        self.shared.posts_through(log);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.close()
    }
}
