//! Compares the ledger with everything that counts beside it. Each check is two numbers that must be the same; a
//! difference is shown, never put right here. Budget counters are read from Redis where gateways share them.
//!
//! While requests run, what one side has counted may be on its way to the other: a comparison of a quiet platform is exact.

use store::{Store, StoreError};

use crate::{
    ledger::Ledger,
    limits::{LimitsUnavailable, RateLimits},
    workers::Workers,
};

/// Answers that workers are asked about.
const ANSWERS_MAX: u16 = 256;

/// Two numbers that must be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub left: &'static str,
    pub left_value: i64,
    pub right: &'static str,
    pub right_value: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Limits(#[from] LimitsUnavailable),
}

/// All of them, of one moment as far as the ledger goes.
pub async fn reconcile(
    store: &Store,
    ledger: &Ledger,
    workers: &Workers,
    limits: &dyn RateLimits,
) -> Result<Vec<Check>, ReconcileError> {
    let log = ledger.status();
    let found = store.platform().ledger_balances().await?;
    let check = |name, left, left_value: u64, right, right_value: u64| Check {
        name,
        left,
        left_value: number(left_value),
        right,
        right_value: number(right_value),
    };
    let ended = found.posted + found.voided + found.expired;
    let mut checks = vec![
        check("double entry", "debits", found.debits, "credits", found.credits),
        Check {
            name: "held",
            left: "account held",
            left_value: found.held,
            right: "requests without an end",
            right_value: number(found.open_held),
        },
        check("requests", "reserved entries", found.reserved, "ended or open", ended + found.open),
        check("beginnings", "ends without one", found.without_beginning, "none", 0),
        check("posted requests", "posted entries", found.posted, "usage records", found.records),
        check("posted tokens", "posted entries", found.posted_tokens, "usage records", found.record_tokens),
        check("log", "unshipped", u64::from(!log.shipped), "none", 0),
        check("set aside", "since the start", log.set_aside, "none", 0),
    ];
    if let Some(compared) = limits.compare_budgets().await? {
        let by_counters = "Redis, without reserved and lent";
        checks.push(check("budgets", by_counters, compared.counted, "ledger", compared.spent));
        checks.push(check("budget counters", "unlike the ledger", compared.differing, "none", 0));
    }
    checks.push(worker_check(store, workers).await?);
    Ok(checks)
}

/// The newest answers that finished: their tokens by the workers that still know of them, and by the ledger. An answer
/// that was broken off is charged as far as it was delivered, which may be less than a worker has generated.
async fn worker_check(store: &Store, workers: &Workers) -> Result<Check, StoreError> {
    let records = store.platform().newest_finished(ANSWERS_MAX).await?;
    let ids: Vec<_> = records.iter().map(|(request, _)| *request).collect();
    let known = workers.known_of(&ids).await;
    let (mut by_workers, mut by_ledger) = (0, 0);
    for (request, tokens) in records {
        if let Some((used, true)) = known.used.get(&request) {
            by_workers += number(used.prompt_tokens + used.completion_tokens);
            by_ledger += number(tokens);
        }
    }
    let (left, right) = ("newest answers by workers", "usage records");
    Ok(Check { name: "worker tokens", left, left_value: by_workers, right, right_value: by_ledger })
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
