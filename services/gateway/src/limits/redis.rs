//! Rate limits that all gateways share, in Redis: one script, one round trip, the server's clock. When Redis does not
//! answer within the bound, nothing is admitted: a limit that nobody keeps is none.

use std::time::Duration;

use domain::{RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{Ask, Denied, Exceeded, Limit, LimitsUnavailable, RateLimits, Refusal};

/// The body of the script; where the time comes from is the only thing that differs in tests.
const BODY: &str = include_str!("reserve.lua");
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
    #[cfg(test)]
    pub(super) clock: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl RedisLimits {
    /// Does not connect yet: the first call does, and the ones after it when the connection was lost.
    /// `prefix` begins every key, so that several platforms can share one Redis.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self, LimitsUnavailable> {
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

    async fn call(
        &self,
        operation: &str,
        tenant: TenantId,
        id: RequestId,
        arguments: &[u64],
    ) -> Result<Vec<i64>, LimitsUnavailable> {
        let mut call = self.script.prepare_invoke();
        for key in ["requests", "tokens", "leases", "reservations"] {
            call.key(format!("{}:{{{tenant}}}:{key}", self.prefix));
        }
        call.arg(operation).arg(id.to_string()).arg(arguments);
        #[cfg(test)]
        if let Some(clock) = &self.clock {
            call.arg(clock.load(std::sync::atomic::Ordering::SeqCst));
        }
        let mut connection = self.connection.clone();
        match tokio::time::timeout(self.timeout, call.invoke_async(&mut connection)).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(LimitsUnavailable(format!("no answer in {} ms", self.timeout.as_millis()))),
        }
    }
}

impl RateLimits for RedisLimits {
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), Denied>> {
        async move {
            let arguments = [
                ask.tokens.into(),
                ask.requests_per_minute.into(),
                ask.tokens_per_minute.into(),
                ask.concurrent_requests.into(),
                millis(ask.lease),
            ];
            let answer = self.call("reserve", ask.tenant, ask.id, &arguments).await.map_err(Denied::Unavailable)?;
            if answer.is_empty() { Ok(()) } else { Err(read_refusal(&answer)) }
        }
        .boxed()
    }

    fn settle(&self, tenant: TenantId, id: RequestId, used: u64) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        async move { Ok(self.call("settle", tenant, id, &[used]).await? == [1]) }.boxed()
    }

    fn renew(
        &self,
        tenant: TenantId,
        id: RequestId,
        lease: Duration,
    ) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        async move { Ok(self.call("renew", tenant, id, &[millis(lease)]).await? == [1]) }.boxed()
    }
}

fn read_refusal(answer: &[i64]) -> Denied {
    let exceeded = answer.chunks(3).map(|triple| {
        let [limit, over, retry_ms] = triple else { return None };
        let limit = match limit {
            1 => Limit::RequestsPerMinute,
            2 => Limit::TokensPerMinute,
            3 => Limit::ConcurrentRequests,
            _ => return None,
        };
        let retry_after = u64::try_from(*retry_ms).ok().map(Duration::from_millis);
        Some(Exceeded { limit, over: u64::try_from(*over).ok()?, retry_after })
    });
    match exceeded.collect() {
        Some(exceeded) => Denied::Refused(Refusal { exceeded }),
        None => Denied::Unavailable(LimitsUnavailable("an answer that the script never gives".to_owned())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::from(u32::MAX))
}

fn unavailable(error: redis::RedisError) -> LimitsUnavailable {
    LimitsUnavailable(error.to_string())
}
