//! How often a tenant may be told again what was answered before. A replay reserves nothing and costs nothing, so no other
//! limit counts it; it still is work for this gateway and the database.
//!
//! As a bucket that is full of a minute's replays at first and fills up again evenly.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{Detail, Fault, Reason, TenantId};

/// The setting that a refusal names.
const LIMIT: &str = "idempotency.replays_per_minute";
const MINUTE: Duration = Duration::from_secs(60);
/// Tenants remembered before those with a full bucket are looked for.
const SWEEP_AT_LEAST: usize = 1024;

pub struct Replays {
    per_minute: u32,
    state: Mutex<State>,
}

struct State {
    /// When each tenant's bucket is full again; a tenant whose is full now may be missing.
    full_at: HashMap<TenantId, Instant>,
    /// Of so many tenants those with a full bucket are forgotten.
    sweep_at: usize,
}

impl Replays {
    pub fn new(per_minute: u32) -> Self {
        let state = State { full_at: HashMap::new(), sweep_at: SWEEP_AT_LEAST };
        Self { per_minute, state: Mutex::new(state) }
    }

    /// One replay.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time until there is another one.
    pub fn take(&self, tenant: TenantId, now: Instant) -> Result<(), Fault> {
        let each = MINUTE / self.per_minute;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = state.full_at.get(&tenant).map_or(now, |full_at| (*full_at).max(now)) + each;
        let wait = full_at.saturating_duration_since(now + MINUTE);
        if !wait.is_zero() {
            return Err(self.refusal(wait));
        }
        state.full_at.insert(tenant, full_at);
        if state.full_at.len() >= state.sweep_at {
            state.full_at.retain(|_, full_at| *full_at > now);
            state.sweep_at = (2 * state.full_at.len()).max(SWEEP_AT_LEAST);
        }
        Ok(())
    }

    fn refusal(&self, wait: Duration) -> Fault {
        let most = self.per_minute;
        let words = format!("this tenant has had {most} answers repeated within a minute, which is the most");
        let quota = Detail::Quota { subject: LIMIT.to_owned(), description: format!("{LIMIT} is {most}") };
        Fault::new(Reason::RateLimited, words).detail(quota).retry_after(wait)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_tenant_has_a_minutes_replays_at_once_and_then_one_after_the_other() {
        let (replays, start) = (Replays::new(4), Instant::now());
        let take = |of: u128, ms| replays.take(TenantId::new(Uuid::from_u128(of)), start + Duration::from_millis(ms));
        for _ in 0..4 {
            take(1, 0).expect("within the limit");
        }
        let refused = take(1, 5_000).expect_err("the fifth");
        assert_eq!((refused.reason, refused.retry_hint()), (Reason::RateLimited, Some(Duration::from_secs(10))));
        take(2, 5_000).expect("another tenant's");
        take(1, 15_000).expect("one has come back");
        assert_eq!(take(1, 15_000).expect_err("only one").retry_hint(), Some(Duration::from_secs(15)));
        for _ in 0..4 {
            take(1, 200_000).expect("all have come back, and no more");
        }
        take(1, 200_000).expect_err("the fifth");
    }

    #[test]
    fn tenants_with_a_full_bucket_are_forgotten() {
        let (replays, start) = (Replays::new(60), Instant::now());
        for of in 0..10_000 {
            let now = start + Duration::from_millis(10) * of;
            replays.take(TenantId::new(Uuid::from_u128(of.into())), now).expect("its first");
        }
        assert!(replays.state.lock().expect("unpoisoned").full_at.len() <= SWEEP_AT_LEAST);
    }
}
