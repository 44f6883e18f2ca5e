//! The limits that a configuration names, over the platform's ledger.

use std::sync::Arc;

use store::Store;

use super::{InProcessLimits, LimitsUnavailable, NothingSpent, OutageLimits, RateLimits, RedisLimits, RedisOptions};
use crate::config::{LimitsConfig, ms};

/// Limits that all gateways share, if there is a Redis, and else of this process alone. Does not connect yet.
pub fn open(redis: &str, config: &LimitsConfig, _store: &Store) -> Result<Arc<dyn RateLimits>, LimitsUnavailable> {
    let source = Arc::new(NothingSpent);
    let wait = ms(config.ledger_timeout_ms);
    if redis.is_empty() {
        return Ok(Arc::new(InProcessLimits::new(source, wait)));
    }
    let options = RedisOptions {
        prefix: config.redis_prefix.clone(),
        timeout: ms(config.redis_timeout_ms),
        ledger_wait: wait,
        settling: ms(config.settling_ms),
        #[cfg(test)]
        clock: None,
    };
    let shared = RedisLimits::new(redis, options, Arc::clone(&source) as _)?;
    let pause = ms(config.breaker_pause_ms);
    Ok(Arc::new(OutageLimits::new(shared, config.breaker_failures_max, pause, source, wait)))
}
