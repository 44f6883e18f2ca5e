//! Limits that all gateways share, in Redis: one script, one round trip, the server's clock. When Redis does not answer
//! within the bound, nothing is admitted: a limit that nobody keeps is none.
//!
//! # When Redis forgets
//!
//! Redis holds copies: windows and leases, which it may lose, and what was spent of budgets, which the ledger has too.
//! A loss is noticed by a token in Redis that names its generation ([`generation`]): it is gone after a flush, and written
//! anew when another server answers, which may have missed writes. Every gateway looks at it several times a second
//! ([`watch`]) and, when it has changed, hands over again what it has running: these requests are *adopted*, charged as
//! before, and never refused. Meanwhile nobody is admitted whose budget is unknown: it is read from the ledger at the
//! earliest `settling` after the loss, when everybody has adopted and the ledger has what ended before, and without the
//! requests that were adopted, so that each one is counted once. Windows and concurrency begin anew, with what is adopted.

mod generation;
mod lender;
mod live;
mod slices;
mod watch;
mod wire;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::RequestId;
use futures::{FutureExt as _, future::BoxFuture};
use redis::{
    Client, FromRedisValue, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Ask, BudgetSource, Denied, Explained, Extended, Granted, Left, Lends, LimitsUnavailable, Period, RateLimits,
    SEEDS_MAX, SLOT_MS, Used, budgets::Ledger,
};
use generation::{Generation, Generations};
pub use lender::SliceOptions;
use live::Live;
pub use slices::Due;
use slices::Slices;
use wire::{UNKNOWN, count, millis, nonsense};

/// The body of the script; where the time comes from is the only thing that differs in tests.
const BODY: &str = concat!(
    include_str!("script/keys.lua"),
    include_str!("script/windows.lua"),
    include_str!("script/money.lua"),
    include_str!("script/reservations.lua"),
    include_str!("script/reserve.lua"),
    include_str!("script/slices.lua"),
    include_str!("script/explain.lua"),
    include_str!("script/run.lua"),
);
const SERVER_CLOCK: &str =
    "local clock = redis.call('time') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n";
#[cfg(test)]
const CLOCK_OF_THE_TEST: &str = "local now = tonumber(table.remove(ARGV))\n";

/// Reconnects by itself. Every call ends within the timeout, whether Redis is down, hanging or slow; one that has to ask
/// the ledger for what was spent takes longer by at most `settling` and `ledger_wait`.
pub struct RedisLimits {
    shared: Arc<Shared>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Begins every key, so that several platforms can share one Redis.
    pub prefix: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Longest wait for what the ledger says.
    pub ledger_wait: Duration,
    /// From a loss of data to the first look into the ledger.
    pub settling: Duration,
    pub slices: SliceOptions,
    /// Milliseconds since 1970 in the place of the server's clock.
    #[cfg(test)]
    pub clock: Option<Arc<std::sync::atomic::AtomicU64>>,
}

/// What calls and the watch share.
struct Shared {
    connection: ConnectionManager,
    script: Script,
    options: RedisOptions,
    ledger: Ledger,
    generations: Generations,
    live: Live,
    slices: Slices,
}

impl RedisLimits {
    /// Does not connect yet: the first call does, and the ones after it when the connection was lost. What has been spent
    /// of budgets is read from `source` when Redis does not know it. Must be called within a runtime.
    pub fn new(url: &str, options: RedisOptions, source: Arc<dyn BudgetSource>) -> Result<Self, LimitsUnavailable> {
        let client = Client::open(url).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout))
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(options.timeout)
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(unavailable)?;
        let clock = SERVER_CLOCK;
        #[cfg(test)]
        let clock = options.clock.as_ref().map_or(clock, |_| CLOCK_OF_THE_TEST);
        let shared = Arc::new(Shared {
            connection,
            script: Script::new(&format!("{clock}{BODY}")),
            ledger: Ledger::new(source, options.ledger_wait),
            generations: Generations::new(&options.prefix, options.settling),
            live: Live::default(),
            slices: Slices::default(),
            options,
        });
        let tasks = [tokio::spawn(watch::watch(Arc::clone(&shared))), tokio::spawn(lender::lend(Arc::clone(&shared)))];
        Ok(Self { shared, _tasks: tasks.map(AbortOnDropHandle::new) })
    }
}

impl Shared {
    /// As [`Shared::call`]; money that Redis does not know is read from the ledger first. Says in which generation.
    async fn call_seeded(
        &self,
        operation: &str,
        ask: &Ask,
        arguments: &[i64],
    ) -> Result<(Vec<i64>, Generation), LimitsUnavailable> {
        let mut generation = self.generation().await?;
        for _ in 0..SEEDS_MAX {
            let answer: Vec<i64> = self.call(operation, ask, &generation, arguments).await?;
            let [UNKNOWN, day, month, scopes] = answer[..] else { return Ok((answer, generation)) };
            let before = generation.token.clone();
            generation = self.look().await?;
            if generation.token != before {
                continue;
            }
            tokio::time::sleep_until(generation.settled.into()).await;
            let adopted: Vec<String> = self.call("adopted", ask, &generation, &[]).await?;
            let adopted: Vec<_> = adopted.iter().filter_map(|id| id.parse().ok().map(RequestId::new)).collect();
            let number = |number: i64| u64::try_from(number).map_err(|_| nonsense());
            let period = Period { day: number(day)?, month: number(month)? };
            let spent = self.ledger.spent(ask, period, [scopes & 1 != 0, scopes & 2 != 0], &adopted).await?;
            let amounts = spent.map(|spent| spent.map_or([UNKNOWN; 2], |spent| [spent.day, spent.month].map(count)));
            let of = [day, month, count(adopted.len() as u64)];
            let _: Vec<i64> = self.call("seed", ask, &generation, &[&of[..], amounts.as_flattened()].concat()).await?;
        }
        Err(LimitsUnavailable::Silent("what was spent is forgotten again and again".to_owned()))
    }

    /// One run of the script.
    async fn call<T: FromRedisValue>(
        &self,
        operation: &str,
        ask: &Ask,
        generation: &Generation,
        arguments: &[i64],
    ) -> Result<T, LimitsUnavailable> {
        let Ask { id, tenant, key, .. } = ask;
        let prefix = &self.options.prefix;
        let mut call = self.script.prepare_invoke();
        for scope in [String::new(), format!("{key}:")] {
            for counted in ["requests", "input", "output", "leases", "money"] {
                call.key(format!("{prefix}:{{{tenant}}}:{scope}{counted}"));
            }
        }
        call.key(format!("{prefix}:{{{tenant}}}:reservations"));
        call.key(format!("{prefix}:{{{tenant}}}:adopted:{}", generation.token));
        call.arg(operation).arg(id.to_string()).arg(&*generation.token).arg(arguments);
        #[cfg(test)]
        if let Some(clock) = &self.options.clock {
            call.arg(clock.load(std::sync::atomic::Ordering::SeqCst));
        }
        let mut connection = self.connection.clone();
        self.within(call.invoke_async(&mut connection)).await
    }

    /// The generation as it was last seen.
    async fn generation(&self) -> Result<Generation, LimitsUnavailable> {
        match self.generations.known() {
            Some(generation) => Ok(generation),
            None => self.look().await,
        }
    }

    /// The generation as it is.
    async fn look(&self) -> Result<Generation, LimitsUnavailable> {
        let mut connection = self.connection.clone();
        self.within(self.generations.look(&mut connection)).await
    }

    /// After an error it may be another server that answers next.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, LimitsUnavailable> {
        let timeout = self.options.timeout;
        let answer = match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(LimitsUnavailable::Silent(format!("no answer in {} ms", timeout.as_millis()))),
        };
        answer.inspect_err(|_| self.generations.forget())
    }
}

impl RateLimits for RedisLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>> {
        async move {
            // Known as running before it is charged: should the answer be lost, it is ended all the same.
            self.shared.live.begins(ask);
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
        async move {
            self.shared.live.ends(ask, used);
            self.shared.settle(ask, used).await
        }
        .boxed()
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        async move {
            let generation = self.shared.generation().await?;
            let known: Vec<i64> = self.shared.call("renew", ask, &generation, &[millis(ask.lease)]).await?;
            Ok(known == [1] || self.shared.adopt(ask).await?)
        }
        .boxed()
    }

    fn left<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Vec<Left>> {
        async move {
            let told = async { self.shared.call("left", ask, &self.shared.generation().await?, &[]).await };
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
            self.shared.live.ended(ask);
        }
        drawn
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

    async fn settle(&self, ask: &Ask, used: Used) -> Result<bool, LimitsUnavailable> {
        let generation = self.generation().await?;
        let used = [used.input, used.output, ask.cost(used)].map(count);
        let known: Vec<i64> = self.call("settle", ask, &generation, &used).await?;
        self.live.ended(ask);
        Ok(known == [1])
    }

    /// Hands over a request of this gateway that was charged before Redis lost its data; `false` if there is none.
    async fn adopt(&self, ask: &Ask) -> Result<bool, LimitsUnavailable> {
        let generation = self.look().await?;
        let Some((begun, total)) = self.live.lost(ask, &generation.token) else { return Ok(false) };
        let _: Vec<i64> = self.call("adopt", ask, &generation, &wire::adopt(ask, begun, total)).await?;
        self.live.adopted(ask, &generation.token);
        self.slices.forget(ask);
        Ok(true)
    }
}

fn unavailable(error: redis::RedisError) -> LimitsUnavailable {
    LimitsUnavailable::Silent(error.to_string())
}
