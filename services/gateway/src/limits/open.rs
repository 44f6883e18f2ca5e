//! The limits that a configuration names, over the platform's ledger.

use std::{collections::HashMap, sync::Arc};

use domain::{ApiKeyId, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use store::Store;

use super::{
    BudgetSource, ByProcess, InProcessLimits, LimitsUnavailable, OutageLimits, Period, RateLimits, RedisLimits,
    RedisOptions, SliceOptions, Spent,
};
use crate::config::{LimitsConfig, ms};

/// Limits that all gateways share, if there is a Redis, and else of this process alone. Does not connect yet.
pub fn open(redis: &str, config: &LimitsConfig, store: &Store) -> Result<Arc<dyn RateLimits>, LimitsUnavailable> {
    let source = Arc::new(Ledger(store.clone()));
    let wait = ms(config.ledger_timeout_ms);
    if redis.is_empty() {
        return Ok(Arc::new(InProcessLimits::new(source, wait)));
    }
    let options = RedisOptions {
        prefix: config.redis_prefix.clone(),
        timeout: ms(config.redis_timeout_ms),
        ledger_wait: wait,
        settling: ms(config.settling_ms),
        slices: SliceOptions {
            hot_per_second: config.slice_hot_per_second,
            valid: ms(config.slice_valid_ms),
            lease: ms(config.slice_lease_ms),
            parts: config.slice_parts,
        },
        #[cfg(test)]
        clock: None,
    };
    let shared = RedisLimits::new(redis, options, Arc::clone(&source) as _)?;
    let pause = ms(config.breaker_pause_ms);
    Ok(Arc::new(OutageLimits::new(shared, config.breaker_failures_max, pause, source, wait)))
}

/// What was spent stands in the ledger: what was charged, and the most that open requests may come to.
struct Ledger(Store);

impl BudgetSource for Ledger {
    fn spent<'a>(
        &'a self,
        tenant: TenantId,
        key: Option<ApiKeyId>,
        period: Period,
        except: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        async move {
            let rows = self.0.tenant(tenant);
            let [day, month] = period.starts();
            let [day_ends, month_ends] = period.ends();
            let spent = async |from, to| {
                let spent = rows.spent_by_process(key, from, to, except).await;
                spent.map_err(|error| LimitsUnavailable::Ledger(error.to_string()))
            };
            let mut parts = HashMap::<_, Spent>::new();
            for (process, micros) in spent(day, day_ends).await? {
                parts.entry(process).or_default().day = micros;
            }
            for (process, micros) in spent(month, month_ends).await? {
                parts.entry(process).or_default().month = micros;
            }
            Ok(parts.into_iter().collect())
        }
        .boxed()
    }
}
