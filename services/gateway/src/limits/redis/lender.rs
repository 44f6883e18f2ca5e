//! Borrows slices for hot keys before they are needed, and gives back what is left of them.
//!
//! A key is hot when it makes `hot_per_second` requests, or when its plan lives on slices while Redis is silent. It gets
//! what it will want for the time that a slice may be drawn from, but no more than a part of what is left of each limit.
//! What is left of a slice goes back when that time is over or nobody wants it any more; what runs on it stays, and its
//! seats are renewed, until the last request has ended. One that is not renewed gives its seats up, as a request does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::RequestId;
use futures::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::{
    Shared,
    slices::{Amounts, Pool, Slice, Whose},
    wire,
};
use crate::limits::{Ask, Limit, LimitsUnavailable, SLOT_MS};

/// How often it looks while a slice is valid.
const TICKS: u32 = 8;
/// Slices of one key that are drawn from at the same time.
const SLICES_MAX: usize = 4;
/// A key that wanted nothing for so long is forgotten, and no more is borrowed for it.
const IDLE: Duration = Duration::from_secs(60);
/// Calls at the same time.
const AT_ONCE: usize = 32;

/// How slices are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SliceOptions {
    /// Requests a second that make a key hot. 0: nothing is borrowed, but for plans that live on it.
    pub hot_per_second: u32,
    /// For how long a slice is drawn from.
    pub valid: Duration,
    /// After so long without a renewal its seats are given up.
    pub lease: Duration,
    /// What is left of a limit is divided into so many parts, of which a slice gets at most one.
    pub parts: u32,
}

enum Job {
    Borrow(Whose, Ask, Amounts),
    Resize(Whose, Ask, Said),
}

/// What Redis is told of a slice.
struct Said {
    slice: RequestId,
    holds: Amounts,
    goes_on: bool,
}

pub async fn lend(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval((shared.options.slices.valid / TICKS).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // While Redis is silent nothing is given back: it may be all that a plan lives on.
        let Ok(generation) = shared.look().await else { continue };
        let jobs = shared.slices.on(|book| {
            let now = Instant::now();
            book.pools.retain(|_, pool| !pool.slices.is_empty() || now - pool.wanted_at < IDLE);
            let pools = book.pools.iter_mut();
            pools
                .flat_map(|(whose, pool)| jobs_of(*whose, pool, &shared.options.slices, &generation.token, now))
                .collect()
        });
        work_off(&shared, jobs).await;
    }
}

/// Gives back all of a key's slices that is not in use; says whether there was anything.
pub async fn give_back(shared: &Shared, whose: Whose) -> bool {
    let jobs: Vec<_> = shared.slices.on(|book| {
        let Some(pool) = book.pools.get_mut(&whose) else { return Vec::new() };
        let ask = pool.ask.clone();
        let held = pool.slices.iter_mut().filter(|slice| !slice.trimmed && slice.left() != Amounts::default());
        held.filter_map(|slice| Some(Job::Resize(whose, ask.clone(), trim(slice, true)?))).collect()
    });
    let any = !jobs.is_empty();
    work_off(shared, jobs).await;
    any
}

/// Gives back everything that is not in use.
pub async fn give_all_back(shared: &Shared) {
    let all: Vec<_> = shared.slices.on(|book| book.pools.keys().copied().collect());
    for whose in all {
        give_back(shared, whose).await;
    }
}

fn jobs_of(whose: Whose, pool: &mut Pool, options: &SliceOptions, token: &str, now: Instant) -> Vec<Job> {
    pool.tick(now);
    // What was charged before Redis lost its data is no more; what runs on it is handed over one by one.
    pool.slices.retain(|slice| *slice.token == *token);
    let ask = pool.ask.clone();
    let idle = now - pool.wanted_at > options.valid && !pool.lives_on_slices();
    let mut jobs = Vec::new();
    for slice in &mut pool.slices {
        let over = now >= slice.valid_until || idle;
        let due = now - slice.renewed > options.lease / 3;
        let said = if (over && !slice.trimmed) || (slice.trimmed && slice.changed) {
            trim(slice, true)
        } else if due {
            trim(slice, false)
        } else {
            None
        };
        jobs.extend(said.map(|said| Job::Resize(whose, ask.clone(), said)));
    }
    let ticks = u64::from(TICKS);
    let per_second = pool.demand(ticks).requests.saturating_mul(1_000) / ms(options.valid).max(1);
    let hot = options.hot_per_second > 0 && per_second >= options.hot_per_second.into();
    let lives_on = pool.lives_on_slices() && now - pool.wanted_at < IDLE;
    let valid = pool.slices.iter().filter(|slice| !slice.trimmed).count();
    if (hot || lives_on) && valid < SLICES_MAX {
        let one = Amounts {
            requests: 1,
            input: ask.input_tokens.into(),
            output: ask.output_tokens.into(),
            ..Amounts::default()
        };
        let money = if ask.has_budget() { ask.cost_at_most(ask.output_tokens.into()) } else { 0 };
        let wanted = pool.demand(ticks).zip(Amounts { money, ..one }, u64::max);
        let wanted = Amounts { seats: wanted.requests, ..wanted };
        let half = wanted.zip(Amounts::default(), |wanted, _| wanted.div_ceil(2));
        if !(Amounts { seats: 1, ..half }).fits_into(pool.room(now)) {
            jobs.push(Job::Borrow(whose, ask, wanted));
        }
    }
    jobs
}

/// What Redis is to be told of a slice; from then on it holds no more than that. `None` while it is being told something.
fn trim(slice: &mut Slice, trimmed: bool) -> Option<Said> {
    if slice.busy {
        return None;
    }
    slice.busy = true;
    slice.trimmed |= trimmed;
    if slice.trimmed {
        slice.lent = slice.taken;
        slice.changed = false;
    }
    Some(Said { slice: slice.id, holds: slice.lent, goes_on: !slice.trimmed || slice.parts > 0 })
}

async fn work_off(shared: &Shared, jobs: Vec<Job>) {
    stream::iter(jobs)
        .for_each_concurrent(AT_ONCE, async |job| {
            let done = match job {
                Job::Borrow(whose, ask, wanted) => borrow(shared, whose, &ask, wanted).await,
                Job::Resize(whose, ask, said) => resize(shared, whose, &ask, said).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "not lent, or not given back yet");
            }
        })
        .await;
}

async fn borrow(shared: &Shared, whose: Whose, ask: &Ask, wanted: Amounts) -> Result<(), LimitsUnavailable> {
    let SliceOptions { valid, parts, .. } = shared.options.slices;
    let ask = Ask { id: RequestId::new(Uuid::now_v7()), ..ask.clone() };
    let (asked, token) = (Instant::now(), shared.generation().await?.token);
    let lent = shared.borrow(&ask, wanted, valid, parts).await;
    let nothing = Slice {
        id: ask.id,
        token,
        lent: Amounts::default(),
        taken: Amounts::default(),
        parts: 0,
        at_ms: 0,
        valid_until: asked,
        renewed: asked,
        changed: true,
        trimmed: true,
        busy: false,
        in_doubt_until: Some(asked + shared.options.slices.lease),
    };
    let (slice, done) = match lent {
        Ok(lent) => {
            let slice = Slice {
                token: lent.token,
                lent: lent.holds,
                at_ms: lent.at_ms,
                valid_until: asked + valid.min(lent.day_ends_in),
                changed: false,
                trimmed: false,
                in_doubt_until: None,
                ..nothing
            };
            (slice, Ok(()))
        }
        // It may be charged all the same, and goes back.
        Err(error) => (nothing, Err(error)),
    };
    shared.slices.on(|book| book.pools.get_mut(&whose).map(|pool| pool.slices.push(slice)));
    done
}

async fn resize(shared: &Shared, whose: Whose, ask: &Ask, said: Said) -> Result<(), LimitsUnavailable> {
    let asked = Instant::now();
    let lease = shared.options.slices.lease;
    let mut arguments: Vec<_> = said.holds.array().map(wire::count).into();
    arguments.extend([wire::millis(lease), said.goes_on.into()]);
    let ask = Ask { id: said.slice, ..ask.clone() };
    let told = match shared.generation().await {
        Ok(generation) => shared.call::<Vec<i64>>("resize", &ask, &generation, &arguments[..]).await,
        Err(error) => Err(error),
    };
    shared.slices.on(|book| {
        let Some(pool) = book.pools.get_mut(&whose) else { return };
        let Some(slice) = pool.slice(said.slice) else { return };
        slice.busy = false;
        match &told {
            Ok(_) => slice.renewed = asked,
            // It is said again.
            Err(_) => slice.changed |= slice.trimmed,
        }
        let unknown = told.as_ref().is_ok_and(|told| *told != [1]);
        let doubtful = unknown && slice.in_doubt_until.is_some_and(|until| asked < until);
        slice.changed |= doubtful;
        let over = told.is_ok() && !said.goes_on && !doubtful;
        pool.slices.retain(|slice| slice.id != said.slice || !over);
    });
    told.map(|_| ())
}

/// What Redis has lent.
pub struct Lent {
    pub holds: Amounts,
    pub token: Arc<str>,
    pub at_ms: u64,
    pub day_ends_in: Duration,
    /// The limits that kept output or money from being more.
    pub stopped_by: Vec<Limit>,
}

impl Shared {
    /// Charges a slice, known as `ask.id`, until it holds as much as `wanted` or as there is.
    pub async fn borrow(
        &self,
        ask: &Ask,
        wanted: Amounts,
        valid: Duration,
        parts: u32,
    ) -> Result<Lent, LimitsUnavailable> {
        let lease = self.options.slices.lease;
        let arguments = wire::borrow(ask, [wire::millis(valid), wire::millis(lease), parts.into()], wanted.array());
        let (answer, generation) = self.call_seeded("borrow", ask, &arguments).await?;
        let Some((lent, stopped_by)) = answer.split_first_chunk::<7>() else { return Err(wire::nonsense()) };
        let [requests, input, output, seats, money, slot, day_ends_in] =
            lent.map(|number| u64::try_from(number).unwrap_or_default());
        Ok(Lent {
            holds: Amounts { requests, input, output, seats, money },
            token: generation.token,
            at_ms: slot * SLOT_MS,
            day_ends_in: Duration::from_millis(day_ends_in),
            stopped_by: wire::limits(stopped_by)?,
        })
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
