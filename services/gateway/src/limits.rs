//! Rate limits of a tenant: requests and tokens per minute, and requests at the same time. One reservation asks for all
//! three at once, all or nothing; settling it gives back what was not used. Nothing here knows about money: these are
//! short windows that protect the platform, not the ledger.
//!
//! # The algorithm (the same in [`in_process`] and in [`redis`]; integers and one clock throughout)
//!
//! - **Windows** (requests, tokens): amounts are counted in slots of one second. A charge counts for the rest of its own
//!   second and 60 whole ones after it, so that no 60 seconds anywhere hold more than the limit. A request is admitted if
//!   the live slots and its own amount together do not exceed the limit; if not, the refusal says when enough slots will
//!   have passed.
//! - **Concurrency**: a lease for each running request, which expires unless renewed. A gateway that dies leaves leases
//!   behind, and they expire.
//! - **Settling** puts the tokens really used in the place of the estimate, in the slot that was charged, and ends the
//!   lease. Whatever is unknown (settled twice, lease expired) changes nothing, so an estimate whose gateway died stays
//!   charged until its slot has passed.
//! - **A request id is charged once**: asking again with it while its lease lives is granted and changes nothing.

mod admission;
pub mod in_process;
#[cfg(test)]
mod model_test;
pub mod redis;

use std::{fmt, time::Duration};

use domain::{Detail, Fault, Reason, RequestId, TenantId};
use futures::future::BoxFuture;

pub use admission::{Admission, Lease, Reservation};
pub use in_process::InProcessLimits;
pub use redis::RedisLimits;

/// Milliseconds of one slot.
const SLOT_MS: u64 = 1_000;
/// Slots that count: the one that is running and the 60 before it.
const WINDOW_SLOTS: u64 = 61;
/// When to ask again for a slot of concurrency, at the latest: nobody knows when a request ends.
const CONCURRENCY_RETRY_MS: u64 = 1_000;

/// What keeps count. Every call returns within a bound that the implementation states.
pub trait RateLimits: Send + Sync + 'static {
    /// Charges all that is asked for, or nothing.
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), Denied>>;

    /// Ends a reservation with the tokens that were used; `false` if it was unknown (settled before, or expired).
    fn settle(&self, tenant: TenantId, id: RequestId, used: u64) -> BoxFuture<'_, Result<bool, LimitsUnavailable>>;

    /// Lets a reservation live for `lease` from now; `false` if it is unknown.
    fn renew(&self, tenant: TenantId, id: RequestId, lease: Duration)
    -> BoxFuture<'_, Result<bool, LimitsUnavailable>>;
}

/// A request for admission.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: RequestId,
    pub tenant: TenantId,
    /// The most tokens that this request can use: prompt and answer.
    pub tokens: u32,
    pub requests_per_minute: u32,
    pub tokens_per_minute: u32,
    pub concurrent_requests: u32,
    pub lease: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    RequestsPerMinute,
    TokensPerMinute,
    ConcurrentRequests,
}

/// Every limit that stands in the way of one request; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub exceeded: Vec<Exceeded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub limit: Limit,
    /// How much too much it would be.
    pub over: u64,
    /// When there will be room, as far as is known now; `None` if there never is: the request alone is above the limit.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    Refused(Refusal),
    Unavailable(LimitsUnavailable),
}

/// The keeper of the counts did not answer in time. Whether it charged is unknown: settle anyway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limits do not answer: {0}")]
pub struct LimitsUnavailable(pub String);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::ConcurrentRequests => "concurrent_requests",
        })
    }
}

impl Refusal {
    /// When all of the limits will have room; `None` if one of them never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.exceeded.iter().map(|one| one.retry_after).try_fold(Duration::ZERO, |max, one| one.map(|d| d.max(max)))
    }

    /// As a client sees it.
    pub fn fault(&self, ask: &Ask) -> Fault {
        let mut names = Vec::new();
        let mut fault = Fault::new(Reason::RateLimited, "");
        for Exceeded { limit, over, retry_after } in &self.exceeded {
            let most = match limit {
                Limit::RequestsPerMinute => ask.requests_per_minute,
                Limit::TokensPerMinute => ask.tokens_per_minute,
                Limit::ConcurrentRequests => ask.concurrent_requests,
            };
            let hint = if retry_after.is_none() { "; no wait helps: ask for fewer tokens" } else { "" };
            names.push(limit.to_string());
            fault = fault.detail(Detail::Quota {
                subject: limit.to_string(),
                description: format!("the tenant's {limit} is {most}, and this request would be {over} above it{hint}"),
            });
        }
        fault.message = format!("rate limit reached: {}", names.join(", "));
        match self.retry_after() {
            Some(after) => fault.retry_after(after),
            None => fault,
        }
    }
}
