//! Slices of the limits that this gateway has borrowed ahead, by tenant and key, and what has been drawn from them: hot
//! keys are served from memory, without a round trip. Borrowing and giving back is the work of [`super::lender`].
//!
//! All of a slice is charged in Redis before anything is drawn from it, so that what all gateways have drawn and hold never
//! exceeds a limit. What does not fit into a slice is asked of Redis.

mod amounts;
mod pool;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use domain::{ApiKeyId, RequestId, TenantId};

pub use amounts::Amounts;
pub use pool::{Pool, Slice};

use crate::limits::{Ask, Extended, Granted, Used};

/// A pool's name.
pub type Whose = (TenantId, ApiKeyId);

/// How late a slice may be drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// While Redis knows it to be in use.
    InTime,
    /// Whenever: Redis is silent, and the plan lets its requests go on with what was borrowed.
    Late,
}

#[derive(Default)]
pub struct Slices(Mutex<Book>);

#[derive(Default)]
pub struct Book {
    pub pools: HashMap<Whose, Pool>,
    drawn: HashMap<RequestId, Drawn>,
}

/// A request that runs on slices.
struct Drawn {
    whose: Whose,
    /// It was admitted from this one, and has its seat there.
    first: RequestId,
    input: u64,
    parts: Vec<Part>,
}

/// Tokens of the answer, and money, from one slice.
struct Part {
    slice: RequestId,
    output: u64,
    money: u64,
}

impl Slices {
    /// Draws all that a request asks for, if there is as much. Says also in which generation it is charged.
    pub fn draw(&self, ask: &Ask, due: Due, generation: Option<&str>) -> Option<(Granted, Arc<str>)> {
        self.on(|book| {
            if book.drawn.contains_key(&ask.id) {
                return None;
            }
            let need = Amounts {
                requests: 1,
                input: ask.input_tokens.into(),
                output: ask.output_tokens.into(),
                seats: 1,
                money: money(ask, ask.output_tokens.into()),
            };
            let whose = (ask.tenant, ask.key);
            let pool = book.pools.get_mut(&whose)?;
            let Some(slice) = pool.fitting(ask, need, due, generation) else {
                pool.missed += 1;
                return None;
            };
            slice.taken += need;
            slice.parts += 1;
            let part = Part { slice: slice.id, output: need.output, money: need.money };
            let drawn = Drawn { whose, first: slice.id, input: need.input, parts: vec![part] };
            let granted = (Granted { output: ask.output_tokens, at_ms: slice.at_ms }, Arc::clone(&slice.token));
            pool.count(need);
            book.drawn.insert(ask.id, drawn);
            Some(granted)
        })
    }

    /// Whether a request runs on slices.
    pub fn has(&self, ask: &Ask) -> bool {
        self.on(|book| book.drawn.contains_key(&ask.id))
    }

    /// More tokens for a request that runs on slices, if there are as many as that; `None` if Redis must be asked.
    pub fn extend(&self, ask: &Ask, total: u32, due: Due, generation: Option<&str>) -> Option<Extended> {
        self.on(|book| {
            let drawn = book.drawn.get_mut(&ask.id)?;
            let granted = drawn.granted();
            let total = u64::from(total).max(granted);
            let need = Amounts {
                output: total - granted,
                money: money(ask, total).saturating_sub(drawn.money()),
                ..Amounts::default()
            };
            if need.output > 0 {
                let pool = book.pools.get_mut(&drawn.whose)?;
                let slice = pool.fitting(ask, need, due, generation)?;
                slice.taken += need;
                slice.parts += 1;
                drawn.parts.push(Part { slice: slice.id, output: need.output, money: need.money });
                pool.count(need);
            }
            Some(Extended::Granted { total: u32::try_from(total).unwrap_or(u32::MAX), stopped_by: Vec::new() })
        })
    }

    /// The slice that a request was admitted from, and what that should hold for the request to be granted `total`. It is
    /// busy until [`Slices::raised`]; `None` if it is busy already, or gone.
    pub fn to_raise(&self, ask: &Ask, total: u32) -> Option<(RequestId, Amounts)> {
        self.on(|book| {
            let drawn = book.drawn.get(&ask.id)?;
            let slice = book.pools.get_mut(&drawn.whose)?.slice(drawn.first).filter(|slice| !slice.busy)?;
            slice.busy = true;
            let granted = drawn.granted();
            let more = u64::from(total).saturating_sub(granted);
            let cost = money(ask, granted + more).saturating_sub(drawn.money());
            let output = slice.lent.output.max(slice.taken.output) + more;
            let money = slice.lent.money.max(slice.taken.money) + cost;
            Some((slice.id, Amounts { output, money, ..slice.lent }))
        })
    }

    /// Gives a request what its slice has been raised by, as far as it reaches; says how many tokens that makes in all.
    pub fn raised(&self, ask: &Ask, total: u32, lent: Option<Amounts>) -> Option<u32> {
        self.on(|book| {
            let drawn = book.drawn.get_mut(&ask.id)?;
            let slice = book.pools.get_mut(&drawn.whose)?.slice(drawn.first)?;
            slice.busy = false;
            // Else it may have been raised or not: what it holds is said again.
            slice.changed |= lent.is_none();
            slice.lent = lent?;
            let room = slice.left();
            let (granted, paid) = (drawn.granted(), drawn.money());
            let most = u64::from(total).max(granted).min(granted + room.output);
            let fits = |total: &u64| money(ask, *total).saturating_sub(paid) <= room.money;
            let total = (granted..=most).rev().find(fits).unwrap_or(granted);
            let (output, money) = (total - granted, money(ask, total).saturating_sub(paid));
            slice.taken += Amounts { output, money, ..Amounts::default() };
            slice.parts += 1;
            drawn.parts.push(Part { slice: slice.id, output, money });
            u32::try_from(total).ok()
        })
    }

    /// Ends a request that ran on slices; `false` if there is none.
    pub fn settle(&self, ask: &Ask, used: Used) -> bool {
        self.on(|book| {
            let Some(drawn) = book.drawn.remove(&ask.id) else { return false };
            let Some(pool) = book.pools.get_mut(&drawn.whose) else { return true };
            let (mut output, mut money) = (used.output, if ask.has_budget() { ask.cost(used) } else { 0 });
            let last = drawn.parts.len().saturating_sub(1);
            for (at, part) in drawn.parts.iter().enumerate() {
                // What was used beyond all that was drawn is a debt of the last one.
                let [tokens, cost] = [(output, part.output), (money, part.money)]
                    .map(|(left, drawn)| if at == last { left } else { left.min(drawn) });
                (output, money) = (output - tokens, money - cost);
                let Some(slice) = pool.slice(part.slice) else { continue };
                slice.parts -= 1;
                slice.taken.output = slice.taken.output.saturating_sub(part.output) + tokens;
                slice.taken.money = slice.taken.money.saturating_sub(part.money) + cost;
                slice.changed = true;
            }
            if let Some(slice) = pool.slice(drawn.first) {
                slice.taken.seats = slice.taken.seats.saturating_sub(1);
                slice.taken.input = slice.taken.input.saturating_sub(drawn.input) + used.input;
            }
            true
        })
    }

    /// A request has been handed over to Redis as one of its own.
    pub fn forget(&self, ask: &Ask) {
        self.on(|book| book.drawn.remove(&ask.id));
    }

    /// A request was admitted by Redis: its key may be hot.
    pub fn noticed(&self, ask: &Ask, granted: Granted, now: Instant) {
        self.on(|book| {
            let pool = book.pools.entry((ask.tenant, ask.key)).or_insert_with(|| Pool::new(ask.clone(), now));
            pool.asks_like(ask);
            pool.count(Amounts {
                requests: 1,
                input: ask.input_tokens.into(),
                output: granted.output.into(),
                seats: 0,
                money: money(ask, granted.output.into()),
            });
        });
    }

    pub fn on<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drawn {
    fn granted(&self) -> u64 {
        self.parts.iter().map(|part| part.output).sum()
    }

    fn money(&self) -> u64 {
        self.parts.iter().map(|part| part.money).sum()
    }
}

/// What so many tokens of the answer cost with the prompt, where there is a budget.
fn money(ask: &Ask, output: u64) -> u64 {
    if ask.has_budget() { ask.cost_at_most(output) } else { 0 }
}
