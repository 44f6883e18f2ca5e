//! Runs of the script, each within the bound; what has to be known of the generation and of the ledger for them.

use domain::{ApiKeyId, RequestId, TenantId};
use redis::{FromRedisValue, ToRedisArgs};

use super::{
    Shared,
    generation::Generation,
    unavailable,
    wire::{self, NOTHING, UNKNOWN, count, nonsense},
};
use crate::limits::{Ask, LimitsUnavailable, Period, SEEDS_MAX};

impl Shared {
    /// As [`Shared::call`]; money that Redis does not know is read from the ledger first. Says in which generation.
    pub async fn call_seeded(
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
            let adopted: Vec<String> = self.call("adopted", ask, &generation, NOTHING).await?;
            let adopted: Vec<_> = adopted.iter().filter_map(|id| id.parse().ok().map(RequestId::new)).collect();
            let number = |number: i64| u64::try_from(number).map_err(|_| nonsense());
            let period = Period { day: number(day)?, month: number(month)? };
            let spent = self.ledger.spent(ask, period, [scopes & 1 != 0, scopes & 2 != 0], &adopted).await?;
            let of = [day, month, count(adopted.len() as u64), scopes];
            let seeded: Vec<i64> = self.call("seed", ask, &generation, wire::seed(of, &spent)).await?;
            if let [0, later] = seeded[..] {
                self.generations.met(number(later)?);
            }
        }
        Err(LimitsUnavailable::Silent("what was spent is forgotten again and again".to_owned()))
    }

    /// One run of the script.
    pub async fn call<T: FromRedisValue>(
        &self,
        operation: &str,
        ask: &Ask,
        generation: &Generation,
        arguments: impl ToRedisArgs,
    ) -> Result<T, LimitsUnavailable> {
        self.call_for(operation, (ask.id, ask.tenant, ask.key), generation, arguments).await
    }

    /// As [`Shared::call`], of a tenant and a key that nobody asks for.
    pub async fn call_for<T: FromRedisValue>(
        &self,
        operation: &str,
        (id, tenant, key): (RequestId, TenantId, ApiKeyId),
        generation: &Generation,
        arguments: impl ToRedisArgs,
    ) -> Result<T, LimitsUnavailable> {
        let prefix = &self.options.prefix;
        let mut call = self.script.prepare_invoke();
        for scope in [String::new(), format!("{key}:")] {
            for counted in ["requests", "input", "output", "leases", "money"] {
                call.key(format!("{prefix}:{{{tenant}}}:{scope}{counted}"));
            }
        }
        call.key(format!("{prefix}:{{{tenant}}}:reservations"));
        call.key(format!("{prefix}:{{{tenant}}}:adopted:{}", generation.token));
        call.key(format!("{prefix}:{{{tenant}}}:owed"));
        call.key(format!("{prefix}:{{{tenant}}}:seatless"));
        call.arg(operation).arg(id.to_string()).arg(&*generation.token);
        call.arg(self.process.to_string()).arg(arguments);
        #[cfg(test)]
        if let Some(clock) = &self.options.clock {
            call.arg(clock.load(std::sync::atomic::Ordering::SeqCst));
        }
        let mut connection = self.connection.clone();
        self.within(call.invoke_async(&mut connection)).await
    }

    /// The generation as it was last seen.
    pub async fn generation(&self) -> Result<Generation, LimitsUnavailable> {
        match self.generations.known() {
            Some(generation) => Ok(generation),
            None => self.look().await,
        }
    }

    /// The generation as it is.
    pub async fn look(&self) -> Result<Generation, LimitsUnavailable> {
        let mut connection = self.connection.clone();
        self.within(self.generations.look(&mut connection)).await
    }

    /// Begins another generation than this one if something was not counted in it.
    pub async fn begin_where_uncounted(&self, generation: &Generation) -> Result<(), LimitsUnavailable> {
        let mut connection = self.connection.clone();
        self.within(self.generations.begin_where_uncounted(generation, &mut connection)).await
    }

    /// After an error it may be another server that answers next.
    pub async fn within<T>(
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
