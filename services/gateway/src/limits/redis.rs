//! Rate limits that all gateways share, in Redis: one script, one round trip, the server's clock. When Redis does not
//! answer within the bound, nothing is admitted: a limit that nobody keeps is none.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    Ask, BudgetSource, Denied, Exceeded, Extended, Granted, Limit, LimitsUnavailable, Period, Rate, RateLimits, Rates,
    Refusal, SEEDS_MAX, SLOT_MS, Scope, Used, ask::worst, budgets::Ledger,
};

/// The body of the script; where the time comes from is the only thing that differs in tests.
const BODY: &str = concat!(
    include_str!("script/keys.lua"),
    include_str!("script/windows.lua"),
    include_str!("script/money.lua"),
    include_str!("script/reservations.lua"),
    include_str!("script/reserve.lua"),
    include_str!("script/run.lua"),
);
const SERVER_CLOCK: &str =
    "local clock = redis.call('time') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n";
#[cfg(test)]
const CLOCK_OF_THE_TEST: &str = "local now = tonumber(table.remove(ARGV))\n";

/// Reconnects by itself. Every call ends within the timeout, whether Redis is down, hanging or slow.
pub struct RedisLimits {
    connection: ConnectionManager,
    script: Script,
    prefix: String,
    timeout: Duration,
    ledger: Ledger,
    #[cfg(test)]
    pub(super) clock: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl RedisLimits {
    /// Does not connect yet: the first call does, and the ones after it when the connection was lost.
    /// `prefix` begins every key, so that several platforms can share one Redis.
    /// What has been spent of budgets is read from `source` when Redis does not know it; that is waited for for
    /// `ledger_wait`.
    pub fn new(
        url: &str,
        prefix: &str,
        timeout: Duration,
        source: Arc<dyn BudgetSource>,
        ledger_wait: Duration,
    ) -> Result<Self, LimitsUnavailable> {
        let client = Client::open(url).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(timeout)
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(unavailable)?;
        Ok(Self {
            connection,
            script: Script::new(&format!("{SERVER_CLOCK}{BODY}")),
            prefix: prefix.to_owned(),
            timeout,
            ledger: Ledger::new(source, ledger_wait),
            #[cfg(test)]
            clock: None,
        })
    }

    #[cfg(test)]
    pub(super) fn with_clock(mut self, clock: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        self.script = Script::new(&format!("{CLOCK_OF_THE_TEST}{BODY}"));
        self.clock = Some(clock);
        self
    }

    /// As [`RedisLimits::call`]; money that Redis does not know is read from the ledger first.
    async fn call_seeded(&self, operation: &str, ask: &Ask, arguments: &[i64]) -> Result<Vec<i64>, LimitsUnavailable> {
        for _ in 0..SEEDS_MAX {
            let answer = self.call(operation, ask, arguments).await?;
            let [UNKNOWN, day, month, scopes] = answer[..] else { return Ok(answer) };
            let number = |number: i64| u64::try_from(number).map_err(|_| nonsense());
            let period = Period { day: number(day)?, month: number(month)? };
            let spent = self.ledger.spent(ask, period, [scopes & 1 != 0, scopes & 2 != 0]).await?;
            let amounts = spent.map(|spent| spent.map_or([UNKNOWN; 2], |spent| [spent.day, spent.month].map(count)));
            self.call("seed", ask, &[&[day, month][..], amounts.as_flattened()].concat()).await?;
        }
        Err(LimitsUnavailable::Silent("what was spent is forgotten again and again".to_owned()))
    }

    async fn call(&self, operation: &str, ask: &Ask, arguments: &[i64]) -> Result<Vec<i64>, LimitsUnavailable> {
        let Ask { id, tenant, key, .. } = ask;
        let mut call = self.script.prepare_invoke();
        for scope in [String::new(), format!("{key}:")] {
            for counted in ["requests", "input", "output", "leases", "money"] {
                call.key(format!("{}:{{{tenant}}}:{scope}{counted}", self.prefix));
            }
        }
        call.key(format!("{}:{{{tenant}}}:reservations", self.prefix));
        call.arg(operation).arg(id.to_string()).arg(arguments);
        #[cfg(test)]
        if let Some(clock) = &self.clock {
            call.arg(clock.load(std::sync::atomic::Ordering::SeqCst));
        }
        let mut connection = self.connection.clone();
        match tokio::time::timeout(self.timeout, call.invoke_async(&mut connection)).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(LimitsUnavailable::Silent(format!("no answer in {} ms", self.timeout.as_millis()))),
        }
    }
}

impl RateLimits for RedisLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>> {
        async move {
            let mut arguments = vec![ask.input_tokens.into(), ask.output_tokens.into(), millis(ask.lease)];
            for rates in [ask.of_tenant, ask.of_key] {
                arguments.extend(RATES.map(|rate| most(rates, rate)));
            }
            arguments.extend(price(ask));
            let answer = self.call_seeded("reserve", ask, &arguments).await.map_err(Denied::Unavailable)?;
            match answer[..] {
                [output, slot] => match (u32::try_from(output), u64::try_from(slot)) {
                    (Ok(output), Ok(slot)) => Ok(Granted { output, at_ms: slot * SLOT_MS }),
                    _ => Err(Denied::Unavailable(nonsense())),
                },
                ref refusals => Err(read_refusal(refusals)),
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>> {
        async move {
            let mut arguments = vec![total.into()];
            for rates in [ask.of_tenant, ask.of_key] {
                let stopping = [Rate::OutputTokensPerMinute, Rate::BudgetDay, Rate::BudgetMonth];
                arguments.extend(stopping.map(|rate| most(rates, rate)));
            }
            arguments.extend(price(ask));
            let answer = self.call_seeded("extend", ask, &arguments).await?;
            let Some((&total, stopped_by)) = answer.split_first() else { return Ok(Extended::Unknown) };
            let total = u32::try_from(total).map_err(|_| nonsense())?;
            let stopped_by = stopped_by.chunks(2).map(|one| limit(*one.first()?, *one.get(1)?)).collect::<Option<_>>();
            Ok(Extended::Granted { total, stopped_by: stopped_by.ok_or_else(nonsense)? })
        }
        .boxed()
    }

    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        let used = [used.input, used.output, ask.cost(used)].map(count);
        async move { Ok(self.call("settle", ask, &used).await? == [1]) }.boxed()
    }

    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>> {
        async move { Ok(self.call("renew", ask, &[millis(ask.lease)]).await? == [1]) }.boxed()
    }
}

/// In the order of the script's numbers for them, which begin at 1.
const RATES: [Rate; 6] = [
    Rate::RequestsPerMinute,
    Rate::InputTokensPerMinute,
    Rate::OutputTokensPerMinute,
    Rate::ConcurrentRequests,
    Rate::BudgetDay,
    Rate::BudgetMonth,
];
const NO_LIMIT: i64 = -1;
/// Begins an answer that says of which money nothing is known.
const UNKNOWN: i64 = -1;

fn most(rates: Rates, rate: Rate) -> i64 {
    rates.of(rate).map_or(NO_LIMIT, count)
}

/// Of the prompt, then of each token of the answer: whole micro-units and millionths of one.
fn price(ask: &Ask) -> [i64; 4] {
    const MILLION: u128 = 1_000_000;
    let price = worst(ask.price);
    let prompt = u128::from(ask.input_tokens) * u128::from(price.input);
    [prompt, price.output.into()]
        .map(|millionths| [millionths / MILLION, millionths % MILLION])
        .as_flattened()
        .first_chunk::<4>()
        .map_or([0; 4], |parts| parts.map(|part| count(u64::try_from(part).unwrap_or(u64::MAX))))
}

fn limit(scope: i64, rate: i64) -> Option<Limit> {
    let scope = match scope {
        1 => Scope::Tenant,
        2 => Scope::Key,
        _ => return None,
    };
    let rate = RATES.get(usize::try_from(rate).ok()?.checked_sub(1)?)?;
    Some(Limit { scope, rate: *rate })
}

fn read_refusal(answer: &[i64]) -> Denied {
    let exceeded = answer.chunks(4).map(|one| {
        let [scope, rate, over, retry_ms] = one else { return None };
        let retry_after = u64::try_from(*retry_ms).ok().map(Duration::from_millis);
        Some(Exceeded { limit: limit(*scope, *rate)?, over: u64::try_from(*over).ok()?, retry_after })
    });
    match exceeded.collect::<Option<Vec<_>>>() {
        Some(exceeded) if !exceeded.is_empty() => Denied::Refused(Refusal { exceeded }),
        _ => Denied::Unavailable(nonsense()),
    }
}

fn nonsense() -> LimitsUnavailable {
    LimitsUnavailable::Silent("an answer that the script never gives".to_owned())
}

/// At most 2^53, as the script needs it: more than any limit.
fn count(amount: u64) -> i64 {
    i64::try_from(amount.min(1 << 53)).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::from(u32::MAX))
}

fn unavailable(error: redis::RedisError) -> LimitsUnavailable {
    LimitsUnavailable::Silent(error.to_string())
}
