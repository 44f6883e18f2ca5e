//! Refused changes, in the audit trail: of the caller's tenant, or of the platform for callers without one. What is done
//! gets there by itself, with the change. Each refusal is recorded before the caller hears of it; of a caller who is
//! refused without end, only so many a minute are, and how many were left out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{Caller, Fault, TenantId};
use store::{RefusedChange, Store};

use crate::{config::AuditConfig, guard::Session};

const MINUTE: Duration = Duration::from_secs(60);
/// Chains whose refusals are counted at the same time; beyond it all counts begin anew.
const CHAINS_MAX: usize = 10_000;

pub struct Refusals {
    store: Store,
    per_minute: u32,
    counts: Mutex<HashMap<Option<TenantId>, Count>>,
}

/// Of one chain.
struct Count {
    since: Instant,
    recorded: u32,
    unrecorded: u64,
}

impl Refusals {
    pub fn new(store: Store, config: &AuditConfig) -> Self {
        Self { store, per_minute: config.refusals_per_minute, counts: Mutex::default() }
    }

    pub async fn refused(&self, session: &Session, fault: &Fault) {
        let tenant = match session.identity.caller {
            Caller::Operator | Caller::Auditor => None,
            Caller::Tenant { tenant, .. } => Some(tenant),
        };
        let Some(unrecorded) = self.place(tenant, Instant::now()) else { return };
        let refused = RefusedChange { reason: fault.reason.as_str(), resource: session.about(), unrecorded };
        let store = self.store.acting(&session.actor());
        let recorded = match tenant {
            Some(tenant) => store.tenant(tenant).record_refusal(&refused).await,
            None => store.platform().record_refusal(&refused).await,
        };
        if let Err(error) = recorded {
            tracing::error!(%error, ?refused, "a refusal is not in the audit trail");
        }
    }

    /// Whether there is a place for one more in this minute; and how many went without since the last that had one.
    fn place(&self, tenant: Option<TenantId>, now: Instant) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= CHAINS_MAX && !counts.contains_key(&tenant) {
            counts.clear();
        }
        let count = counts.entry(tenant).or_insert(Count { since: now, recorded: 0, unrecorded: 0 });
        if now.duration_since(count.since) >= MINUTE {
            (count.since, count.recorded) = (now, 0);
        }
        if count.recorded < self.per_minute {
            count.recorded += 1;
            Some(std::mem::take(&mut count.unrecorded))
        } else {
            count.unrecorded += 1;
            None
        }
    }
}
