//! Limits of a tenant and of its key together: requests, input tokens and output tokens per minute, requests at the same
//! time, and money for a day and a month. One reservation asks for all of them at once, all or nothing; while its answer
//! streams it is extended in steps, and settling it gives back what was not used. The ledger is elsewhere: what is counted
//! here of money is a copy of it, to decide by.
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
//! - **Budgets**: micro-units for a day and a month of UTC, by the same clock. A request is charged what it costs at most:
//!   its whole prompt, none of it cached, and the tokens of its answer that are granted, which are no more than there is
//!   money for. The cost of a request is rounded up to a whole micro-unit once, as in the ledger ([`domain::Price`]); what
//!   is charged for it is the cost of all that is granted, rounded in the same way, and no smaller than what will be
//!   posted. So the rows of the ledger never sum to more than the budget: the overshoot is zero. All of it belongs to the
//!   day and month in which the request began. A counter that is missing is not zero: it is read from the ledger.
//! - **Scopes**: every limit of the tenant and every limit of the key must have room. A key without limits of its own is
//!   not counted.
//! - **Settling** puts the tokens really used in the place of what was charged, in the slots that were charged, and ends
//!   the lease. What was used beyond it is a debt: it counts from then on, and the window may be above its limit until it
//!   has passed. Whatever is unknown (settled twice, lease expired) changes nothing, but that money is settled once even
//!   after the lease; so a charge whose gateway died stays in a window until its slot has passed.
//! - **A request id is charged once**: asking again with it while its lease lives is granted the same and changes nothing;
//!   so does an extension to a total that is granted already.

mod admission;
mod ask;
mod breaker;
mod budgets;
mod compared;
#[cfg(test)]
mod crowd_test;
mod explain;
pub mod in_process;
mod left;
#[cfg(test)]
mod model_test;
mod open;
mod outage;
pub mod redis;
mod refusal;
mod replay;
#[cfg(test)]
mod slices_test;
#[cfg(test)]
mod uncounted_test;

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

pub(crate) use admission::unavailable;
pub use admission::{Admission, Lease, Reservation};
pub use ask::{Ask, Extended, Granted, Rates, Used};
pub use budgets::{BudgetSource, ByProcess, NothingSpent, Period, Posts, Spent};
pub use compared::BudgetsCompared;
pub use explain::{Explained, Standing};
pub use in_process::InProcessLimits;
pub use left::Left;
pub use open::open;
pub use outage::OutageLimits;
pub use redis::{Due, RedisLimits, RedisOptions, SliceOptions};
pub use refusal::{Denied, Exceeded, Limit, LimitsUnavailable, Rate, Refusal, Scope};
pub use replay::{Effect, Past, Replayed, replay};

/// Milliseconds of one slot.
const SLOT_MS: u64 = 1_000;
/// Slots that count: the one that is running and the 60 before it.
const WINDOW_SLOTS: u64 = 61;
/// When to ask again for a slot of concurrency, at the latest: nobody knows when a request ends.
const CONCURRENCY_RETRY_MS: u64 = 1_000;
/// How often unknown money is read from the ledger for one call. Once, unless it is forgotten in between.
const SEEDS_MAX: u32 = 3;

/// What keeps count. Every call returns within a bound that the implementation states.
pub trait RateLimits: Send + Sync + 'static {
    /// Charges all that is asked for, or nothing.
    fn reserve<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Granted, Denied>>;

    /// Charges output tokens until `total` are granted in all, or as many as there is room for.
    fn extend<'a>(&'a self, ask: &'a Ask, total: u32) -> BoxFuture<'a, Result<Extended, LimitsUnavailable>>;

    /// Ends a reservation with the tokens that were used; `false` if it was unknown (settled before, or expired).
    fn settle<'a>(&'a self, ask: &'a Ask, used: Used) -> BoxFuture<'a, Result<bool, LimitsUnavailable>>;

    /// Lets a reservation live for its lease from now; `false` if it is unknown.
    fn renew<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<bool, LimitsUnavailable>>;

    /// What is left now of the limits per minute that such a request has; charges nothing. Who does not know says nothing.
    fn left<'a>(&'a self, _ask: &'a Ask) -> BoxFuture<'a, Vec<Left>> {
        futures::future::ready(Vec::new()).boxed()
    }

    /// What `reserve` would say now, and how every limit stands; changes nothing.
    fn explain<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Explained, LimitsUnavailable>>;

    /// Names this process where others share what is charged for it; nil where nobody does.
    fn process(&self) -> Uuid {
        Uuid::nil()
    }

    /// Of a process that is gone, when all that it let through has ended and is in the ledger: puts what the ledger has of
    /// it in the place of what it had charged to budgets. `true` if there was nothing of it.
    fn close_process(&self, _gone: Uuid) -> BoxFuture<'_, Result<bool, LimitsUnavailable>> {
        futures::future::ready(Ok(true)).boxed()
    }

    /// Every counter of a budget beside the ledger; `None` where nobody shares them. Reads both whole.
    fn compare_budgets(&self) -> BoxFuture<'_, Result<Option<BudgetsCompared>, LimitsUnavailable>> {
        futures::future::ready(Ok(None)).boxed()
    }

    /// What this process lets through reaches the ledger through this log, which is told of it first. Said once, before
    /// anything is reserved.
    fn posts_through(&self, _log: Arc<dyn Posts>) {}

    /// Gives back what was borrowed ahead, before the process ends.
    fn close(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }
}

/// Limits that lend some of what is left ahead of requests, which are then served from memory: nothing here waits.
pub trait Lends: RateLimits {
    /// As [`RateLimits::reserve`], of what was lent; `None` if it does not suffice.
    fn draw(&self, ask: &Ask, due: Due) -> Option<Granted>;

    /// As [`RateLimits::extend`], of what was lent; `None` if the request was not drawn, or it does not suffice.
    fn extend_drawn(&self, ask: &Ask, total: u32, due: Due) -> Option<Extended>;

    /// The request was asked for in vain and is counted by somebody else now: what may have been charged for it goes back.
    fn goes_on_elsewhere(&self, ask: &Ask);

    /// The request has ended with so much; it is settled now or later.
    fn has_ended(&self, ask: &Ask, used: Used);

    /// A request that was counted by somebody else has ended.
    fn ended_elsewhere(&self, ask: &Ask);

    /// As [`RateLimits::settle`], if the request was drawn.
    fn settle_drawn(&self, ask: &Ask, used: Used) -> bool;

    /// Its lease is renewed with what was lent.
    fn is_drawn(&self, ask: &Ask) -> bool;
}
