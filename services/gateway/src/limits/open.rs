//! The limits that a configuration names, over the platform's ledger.

use std::sync::Arc;

use store::Store;

use super::{InProcessLimits, LimitsUnavailable, NothingSpent, OutageLimits, RateLimits, RedisLimits};
use crate::config::{LimitsConfig, ms};

/// Limits that all gateways share, if there is a Redis, and else of this process alone. Does not connect yet.
pub fn open(redis: &str, config: &LimitsConfig, _store: &Store) -> Result<Arc<dyn RateLimits>, LimitsUnavailable> {
    let source = Arc::new(NothingSpent);
    let wait = ms(config.ledger_timeout_ms);
    if redis.is_empty() {
        return Ok(Arc::new(InProcessLimits::new(source, wait)));
    }
    let shared =
        RedisLimits::new(redis, &config.redis_prefix, ms(config.redis_timeout_ms), Arc::clone(&source) as _, wait)?;
    let pause = ms(config.breaker_pause_ms);
    Ok(Arc::new(OutageLimits::new(shared, config.breaker_failures_max, pause, source, wait)))
}
