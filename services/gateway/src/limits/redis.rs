//! Limits that all gateways share, in Redis: one script, one round trip, the server's clock. When Redis does not answer
//! within the bound, nothing is admitted: a limit that nobody keeps is none.
//!
//! # When Redis forgets
//!
//! Redis holds copies: windows and leases, which it may lose, and what was spent of budgets, which the ledger has too.
//! A loss is noticed by a token in Redis that names its generation ([`generation`]): it is gone after a flush, and written
//! anew when another server answers, which may have missed writes. Every gateway looks at it several times a second
//! ([`watch`]) and, when it has changed, hands over again what it has running: these requests are *adopted*, charged as
//! before, and never refused. Meanwhile nobody is admitted whose budget is unknown: it is read from the ledger at the
//! earliest `settling` after the loss, when everybody has adopted and the ledger has what ended before, and without the
//! requests that were adopted, so that each one is counted once. Windows and concurrency begin anew, with what is adopted.
//!
//! A gateway that has heard of it too late to have everything in the ledger within `settling` may have let requests through
//! that others have not found there. So may one whose `open` plans lived on its own memory. It begins another generation, as
//! if Redis had forgotten once more: then the ledger is read again. Of two generations one is the later, and money that is
//! counted in the later one is never begun anew by a call that knows the earlier one only.
//!
//! # When a gateway dies
//!
//! What a dead gateway had charged to windows passes, and its leases expire; what it had charged to budgets comes back when
//! the ledger has the end of all that it let through. A budget's counter is the sum of what each process of a gateway has
//! charged to it, which stands beside it: its requests, whether they have ended or not, and all of its slices. The ledger
//! says of every request which process let it through. A process is gone when the next one has taken its log; it is
//! *closed* ([`processes`]) when that log is shipped and none of its requests is open, so that what the ledger has of it
//! changes no more. Then that takes the place of what it had charged, in one step, by whoever has its log. At no moment is
//! less charged than the ledger holds and will post: before, the part of a process is at least that, as everything is
//! charged before it runs, and afterwards it is exactly that. Doing so again changes nothing.

mod calls;
mod generation;
mod lender;
mod live;
mod processes;
mod purses;
mod requests;
mod slices;
mod watch;
mod wire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{BudgetSource, LimitsUnavailable, Posts, budgets::Ledger};
use generation::Generations;
pub use lender::SliceOptions;
use live::Live;
pub use slices::Due;
use slices::Slices;

/// The body of the script; where the time comes from is the only thing that differs in tests.
const BODY: &str = concat!(
    include_str!("script/keys.lua"),
    include_str!("script/windows.lua"),
    include_str!("script/money.lua"),
    include_str!("script/reservations.lua"),
    include_str!("script/reserve.lua"),
    include_str!("script/slices.lua"),
    include_str!("script/explain.lua"),
    include_str!("script/run.lua"),
);
const SERVER_CLOCK: &str =
    "local clock = redis.call('time') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n";
#[cfg(test)]
const CLOCK_OF_THE_TEST: &str = "local now = tonumber(table.remove(ARGV))\n";

/// Reconnects by itself. Every call ends within the timeout, whether Redis is down, hanging or slow; one that has to ask
/// the ledger for what was spent takes longer by at most `settling` and `ledger_wait`.
pub struct RedisLimits {
    shared: Arc<Shared>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Begins every key, so that several platforms can share one Redis.
    pub prefix: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Longest wait for what the ledger says.
    pub ledger_wait: Duration,
    /// From a loss of data to the first look into the ledger.
    pub settling: Duration,
    pub slices: SliceOptions,
    /// Milliseconds since 1970 in the place of the server's clock.
    #[cfg(test)]
    pub clock: Option<Arc<std::sync::atomic::AtomicU64>>,
}

/// What calls and the watch share.
struct Shared {
    /// What is charged is charged by this one.
    process: Uuid,
    connection: ConnectionManager,
    script: Script,
    options: RedisOptions,
    ledger: Ledger,
    generations: Generations,
    /// What this process lets through reaches the ledger through it; without one it is there at once.
    log: OnceLock<Arc<dyn Posts>>,
    live: Live,
    slices: Slices,
}

impl RedisLimits {
    /// Does not connect yet: the first call does, and the ones after it when the connection was lost. What has been spent
    /// of budgets is read from `source` when Redis does not know it. Must be called within a runtime.
    pub fn new(url: &str, options: RedisOptions, source: Arc<dyn BudgetSource>) -> Result<Self, LimitsUnavailable> {
        let client = Client::open(url).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout))
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(options.timeout)
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(unavailable)?;
        let clock = SERVER_CLOCK;
        #[cfg(test)]
        let clock = options.clock.as_ref().map_or(clock, |_| CLOCK_OF_THE_TEST);
        let shared = Arc::new(Shared {
            process: Uuid::now_v7(),
            connection,
            script: Script::new(&format!("{clock}{BODY}")),
            ledger: Ledger::new(source, options.ledger_wait),
            generations: Generations::new(&options.prefix, options.settling),
            log: OnceLock::new(),
            live: Live::default(),
            slices: Slices::default(),
            options,
        });
        let tasks = [tokio::spawn(watch::watch(Arc::clone(&shared))), tokio::spawn(lender::lend(Arc::clone(&shared)))];
        Ok(Self { shared, _tasks: tasks.map(AbortOnDropHandle::new) })
    }
}

fn unavailable(error: redis::RedisError) -> LimitsUnavailable {
    LimitsUnavailable::Silent(error.to_string())
}
