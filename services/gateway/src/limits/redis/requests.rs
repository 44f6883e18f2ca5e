//! What the shared limits do with one request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

use super::{
    Due, RedisLimits, Shared, lender,
    wire::{self, NOTHING, count, millis, nonsense},
};
use crate::limits::{
    Ask, BudgetsCompared, Denied, Explained, Extended, Granted, Left, Lends, LimitsUnavailable, Posts, RateLimits,
    SLOT_MS, Used,
};

impl RateLimits for RedisLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>> {
        async move {
            // Known as running before it is charged: should the answer be lost, it is ended all the same.
            self.shared.live.asks(ask);
            let arguments = wire::reserve(ask);
            let reserve = || self.shared.call_seeded("reserve", ask, &arguments);
            let (mut answer, mut generation) = reserve().await.map_err(Denied::Unavailable)?;
            // What is in the way may be what was borrowed here.
            if answer.len() > 2 && lender::give_back(&self.shared, (ask.tenant, ask.key)).await {
                (answer, generation) = reserve().await.map_err(Denied::Unavailable)?;
            }
            match answer[..] {
                [output, slot] => match (u32::try_from(output), u64::try_from(slot)) {
                    (Ok(output), Ok(slot)) => {
                        let granted = Granted { output, at_ms: slot * SLOT_MS };
                        self.shared.live.answered(ask);
                        self.shared.live.granted(ask, granted, &generation.token);
                        self.shared.slices.noticed(ask, granted, Instant::now());
                        Ok(granted)
                    }
                    _ => Err(Denied::Unavailable(nonsense())),
                },
                ref refusals => {
                    self.shared.live.ended(ask);
                    Err(wire::read_refusal(refusals))
                }
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>> {
        async move {
            if self.shared.slices.has(ask)
                && let Some(extended) = self.shared.raise(ask, total).await?
            {
                return Ok(extended);
            }
            for _ in 0..2 {
                let (answer, _) = self.shared.call_seeded("extend", ask, &wire::extend(ask, total)).await?;
                if let Some((&total, stopped_by)) = answer.split_first() {
                    let total = u32::try_from(total).map_err(|_| nonsense())?;
                    self.shared.live.extended(ask, total);
                    return Ok(Extended::Granted { total, stopped_by: wire::limits(stopped_by)? });
                }
                if !self.shared.adopt(ask).await? {
                    break;
                }
            }
            Ok(Extended::Unknown)
        }
        .boxed()
    }

    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        self.has_ended(ask, used);
        self.shared.settle(ask, used).boxed()
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        async move {
            let generation = self.shared.generation().await?;
            let known: Vec<i64> = self.shared.call("renew", ask, &generation, &[millis(ask.lease)][..]).await?;
            Ok(known == [1] || self.shared.adopt(ask).await?)
        }
        .boxed()
    }

    fn left<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Vec<Left>> {
        async move {
            let told = async { self.shared.call("left", ask, &self.shared.generation().await?, NOTHING).await };
            told.await.map_or_else(|_| Vec::new(), |told: Vec<i64>| wire::left(ask, &told))
        }
        .boxed()
    }

    fn explain<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Explained, LimitsUnavailable>> {
        async move {
            let (answer, _) = self.shared.call_seeded("explain", ask, &wire::reserve(ask)).await?;
            wire::read_explained(ask, &answer)
        }
        .boxed()
    }

    fn process(&self) -> Uuid {
        self.shared.process
    }

    fn close_process(&self, gone: Uuid) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        self.shared.close_process(gone).boxed()
    }

    fn compare_budgets(&self) -> BoxFuture<'_, Result<Option<BudgetsCompared>, LimitsUnavailable>> {
        async move { self.shared.compare_budgets().await.map(Some) }.boxed()
    }

    fn posts_through(&self, log: Arc<dyn Posts>) {
        if self.shared.log.set(log).is_err() {
            tracing::error!("the limits have a log already");
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        lender::give_all_back(&self.shared).boxed()
    }
}

/// What is drawn from slices is neither asked of Redis nor told it at once.
impl Lends for RedisLimits {
    fn draw(&self, ask: &Ask, due: Due) -> Option<Granted> {
        let generation = self.shared.generations.known();
        let token = generation.as_ref().map(|generation| &*generation.token);
        let (granted, token) = self.shared.slices.draw(ask, due, token)?;
        self.shared.live.begins(ask);
        self.shared.live.granted(ask, granted, &token);
        Some(granted)
    }

    fn extend_drawn(&self, ask: &Ask, total: u32, due: Due) -> Option<Extended> {
        let generation = self.shared.generations.known();
        let token = generation.as_ref().map(|generation| &*generation.token);
        let extended = self.shared.slices.extend(ask, total, due, token)?;
        if let Extended::Granted { total, .. } = extended {
            self.shared.live.extended(ask, total);
        }
        Some(extended)
    }

    fn settle_drawn(&self, ask: &Ask, used: Used) -> bool {
        let drawn = self.shared.slices.settle(ask, used);
        if drawn {
            self.shared.note_end(ask);
            self.shared.live.drawn_ended(ask, used);
        }
        drawn
    }

    fn goes_on_elsewhere(&self, ask: &Ask) {
        self.shared.live.ended_elsewhere(ask);
    }

    fn has_ended(&self, ask: &Ask, used: Used) {
        self.shared.live.ends(ask, used);
    }

    fn ended_elsewhere(&self, ask: &Ask) {
        if ask.has_budget() {
            self.shared.generations.missed_one();
        }
    }

    fn is_drawn(&self, ask: &Ask) -> bool {
        self.shared.slices.has(ask)
    }
}

impl Shared {
    /// An extension of a request that runs on a slice, for which there is not enough here: its slice gets more. `None` if
    /// the slice is gone.
    async fn raise(&self, ask: &Ask, total: u32) -> Result<Option<Extended>, LimitsUnavailable> {
        let Some((slice, wanted)) = self.slices.to_raise(ask, total) else { return Ok(None) };
        let slice = Ask { id: slice, ..ask.clone() };
        let lent = self.borrow(&slice, wanted, Duration::ZERO, 1).await;
        let granted = self.slices.raised(ask, total, lent.as_ref().ok().map(|lent| lent.holds));
        let (lent, Some(granted)) = (lent?, granted) else { return Ok(None) };
        self.live.extended(ask, granted);
        let stopped_by = if granted < total { lent.stopped_by } else { Vec::new() };
        Ok(Some(Extended::Granted { total: granted, stopped_by }))
    }

    pub async fn settle(&self, ask: &Ask, used: Used) -> Result<bool, LimitsUnavailable> {
        let generation = self.generation().await?;
        let used = [used.input, used.output, ask.cost(used)].map(count);
        let known: Vec<i64> = self.call("settle", ask, &generation, &used[..]).await?;
        if known != [1] {
            self.note_end(ask);
        }
        self.live.told(ask, known == [1]);
        Ok(known == [1])
    }

    /// A request has ended without Redis having been told of its money, in whatever generation that is charged.
    fn note_end(&self, ask: &Ask) {
        if let Some(token) = self.live.charged_in(ask) {
            self.generations.ended_in(&token);
        }
    }

    /// Hands over a request of this gateway that was charged before Redis lost its data; `false` if there is none.
    pub async fn adopt(&self, ask: &Ask) -> Result<bool, LimitsUnavailable> {
        let generation = self.look().await?;
        let Some((begun, total)) = self.live.hands_over(ask, &generation.token) else { return Ok(false) };
        self.slices.forget(ask);
        let told: Vec<i64> = self.call("adopt", ask, &generation, &wire::adopt(ask, begun, total)).await?;
        if let Some(later) = told.first() {
            self.generations.met(u64::try_from(*later).map_err(|_| nonsense())?);
            self.generations.forget();
            return Err(LimitsUnavailable::Silent("Redis has lost data once more".to_owned()));
        }
        self.live.adopted(ask, &generation.token);
        Ok(true)
    }
}
