//! Rate limits of a tenant and of its key together: requests, input tokens and output tokens per minute, and requests at
//! the same time. One reservation asks for all of them at once, all or nothing; while its answer streams it is extended
//! in steps, and settling it gives back what was not used. Nothing here knows about money: these are short windows that
//! protect the platform, not the ledger.
//!
//! # The algorithm (the same in [`in_process`] and in [`redis`]; integers and one clock throughout)
//!
//! - **Windows** (requests, input tokens, output tokens): amounts are counted in slots of one second. A charge counts for
//!   the rest of its own second and 60 whole ones after it, so that no 60 seconds anywhere hold more than the limit. A
//!   request is admitted if the live slots and its own amount together do not exceed the limit; if not, the refusal says
//!   when enough slots will have passed.
//! - **Output** is granted as far as there is room: a request is admitted if there is room for one token, and told how
//!   many it was granted. An extension is granted as far as there is room then, in the slot of that moment.
//! - **Concurrency**: a lease for each running request, which expires unless renewed. A gateway that dies leaves leases
//!   behind, and they expire.
//! - **Scopes**: every limit of the tenant and every limit of the key must have room. A key without limits of its own is
//!   not counted.
//! - **Settling** puts the tokens really used in the place of what was charged, in the slots that were charged, and ends
//!   the lease. What was used beyond it is a debt: it counts from then on, and the window may be above its limit until it
//!   has passed. Whatever is unknown (settled twice, lease expired) changes nothing, so a charge whose gateway died stays
//!   until its slot has passed.
//! - **A request id is charged once**: asking again with it while its lease lives is granted the same and changes nothing;
//!   so does an extension to a total that is granted already.

mod admission;
mod breaker;
pub mod in_process;
#[cfg(test)]
mod model_test;
mod outage;
pub mod redis;

use std::{fmt, time::Duration};

use domain::{ApiKeyId, Detail, Fault, KeyLimits, Limits, Outage, Reason, RequestId, TenantId};
use futures::future::BoxFuture;

pub use admission::{Admission, Lease, Reservation};
pub use in_process::InProcessLimits;
pub use outage::OutageLimits;
pub use redis::RedisLimits;

/// Milliseconds of one slot.
const SLOT_MS: u64 = 1_000;
/// Slots that count: the one that is running and the 60 before it.
const WINDOW_SLOTS: u64 = 61;
/// When to ask again for a slot of concurrency, at the latest: nobody knows when a request ends.
const CONCURRENCY_RETRY_MS: u64 = 1_000;

/// What keeps count. Every call returns within a bound that the implementation states.
pub trait RateLimits: Send + Sync + 'static {
    /// Charges all that is asked for, or nothing. Says how many output tokens are granted: at least one.
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<u32, Denied>>;

    /// Charges output tokens until `total` are granted in all, or as many as there is room for.
    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>>;

    /// Ends a reservation with the tokens that were used; `false` if it was unknown (settled before, or expired).
    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>>;

    /// Lets a reservation live for its lease from now; `false` if it is unknown.
    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>>;
}

/// A request for admission; also what its reservation is known by.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: RequestId,
    pub tenant: TenantId,
    pub key: ApiKeyId,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer that are wanted for its beginning, at least one.
    pub output_tokens: u32,
    pub of_tenant: Rates,
    /// Beside the tenant's.
    pub of_key: Rates,
    pub lease: Duration,
    pub outage: Outage,
}

/// The limits of one scope; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub requests_per_minute: Option<u32>,
    pub input_tokens_per_minute: Option<u32>,
    pub output_tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
}

/// Tokens that a request has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub input: u64,
    pub output: u64,
}

/// What came of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// Tokens of the answer that are granted in all, and which limits kept them from being as many as was asked for.
    Granted { total: u32, stopped_by: Vec<Limit> },
    /// Nobody knows the reservation: its lease has expired.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    pub scope: Scope,
    pub rate: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Tenant,
    Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    RequestsPerMinute,
    InputTokensPerMinute,
    OutputTokensPerMinute,
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

impl Rates {
    /// Whether there is anything to count.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn of(&self, rate: Rate) -> Option<u32> {
        match rate {
            Rate::RequestsPerMinute => self.requests_per_minute,
            Rate::InputTokensPerMinute => self.input_tokens_per_minute,
            Rate::OutputTokensPerMinute => self.output_tokens_per_minute,
            Rate::ConcurrentRequests => self.concurrent_requests,
        }
    }
}

impl From<Limits> for Rates {
    fn from(limits: Limits) -> Self {
        Self {
            requests_per_minute: Some(limits.requests_per_minute),
            input_tokens_per_minute: Some(limits.input_tokens_per_minute),
            output_tokens_per_minute: Some(limits.output_tokens_per_minute),
            concurrent_requests: Some(limits.concurrent_requests),
        }
    }
}

impl From<KeyLimits> for Rates {
    fn from(limits: KeyLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            input_tokens_per_minute: limits.input_tokens_per_minute,
            output_tokens_per_minute: limits.output_tokens_per_minute,
            concurrent_requests: limits.concurrent_requests,
        }
    }
}

/// `<limit>` of the tenant, `key.<limit>` of the key.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::Tenant => "",
            Scope::Key => "key.",
        };
        let rate = match self.rate {
            Rate::RequestsPerMinute => "requests_per_minute",
            Rate::InputTokensPerMinute => "input_tokens_per_minute",
            Rate::OutputTokensPerMinute => "output_tokens_per_minute",
            Rate::ConcurrentRequests => "concurrent_requests",
        };
        write!(f, "{scope}{rate}")
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
            let (whose, rates) = match limit.scope {
                Scope::Tenant => ("tenant", ask.of_tenant),
                Scope::Key => ("key", ask.of_key),
            };
            let most = rates.of(limit.rate).unwrap_or_default();
            let hint = if retry_after.is_none() { "; no wait helps: send a shorter prompt" } else { "" };
            names.push(limit.to_string());
            fault = fault.detail(Detail::Quota {
                subject: limit.to_string(),
                description: format!(
                    "{limit} of the {whose} is {most}, and this request would be {over} above it{hint}"
                ),
            });
        }
        fault.message = format!("rate limit reached: {}", names.join(", "));
        match self.retry_after() {
            Some(after) => fault.retry_after(after),
            None => fault,
        }
    }
}
