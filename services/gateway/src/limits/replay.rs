//! What other limits would have done: past requests run through the limits in memory, by the clock of their own time.
//!
//! An answer is charged when its request comes, where a running gateway charges it in steps; and requests that were refused
//! then are not among the past ones.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{ApiKeyId, Outage, Price, RequestId, TenantId};
use futures::FutureExt as _;

use super::{Ask, BudgetSource, Denied, Extended, InProcessLimits, Limit, RateLimits, Rates, Used};

/// Longer than any request runs.
const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// A request that was answered. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    pub id: RequestId,
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub began_ms: u64,
    pub ended_ms: u64,
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub price: Price,
    /// The limits to try on it.
    pub of_tenant: Rates,
    pub of_key: Rates,
}

/// What they would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub requests: u32,
    pub refused: u32,
    /// Let in, and ended before their end.
    pub cut_short: u32,
    /// Of the refused, and those that the cut ones would not have had.
    pub tokens: u64,
    /// In the order in which they first did something.
    pub effects: Vec<Effect>,
}

/// What one limit would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    pub limit: Limit,
    pub refused: u32,
    pub cut_short: u32,
    pub tokens: u64,
    pub first: RequestId,
    pub first_ms: u64,
    /// By how much the first was too much.
    pub first_over: u64,
}

/// Runs requests, oldest first. `spent` says what had been spent before the first.
pub fn replay(past: &[Past], spent: Arc<dyn BudgetSource>) -> Replayed {
    let clock = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&clock);
    let limits = InProcessLimits::with_clock(spent, Duration::ZERO, Arc::new(move || now.load(Ordering::Relaxed)));
    let mut replayed = Replayed::default();
    // By their end: which, and what each was granted.
    let mut running = BinaryHeap::<Reverse<(u64, usize)>>::new();
    let mut granted = BTreeMap::new();
    for (at, one) in past.iter().enumerate() {
        while let Some(&Reverse((ended_ms, ended))) = running.peek()
            && ended_ms <= one.began_ms
        {
            running.pop();
            clock.store(ended_ms, Ordering::Relaxed);
            settle(&limits, &past[ended], granted.remove(&ended).unwrap_or_default());
        }
        clock.store(one.began_ms, Ordering::Relaxed);
        if let Some(output) = replayed.run(&limits, one) {
            granted.insert(at, output);
            running.push(Reverse((one.ended_ms.max(one.began_ms), at)));
        }
    }
    replayed
}

impl Replayed {
    /// One request; how much of its answer it was granted, if it was let in.
    fn run(&mut self, limits: &InProcessLimits, one: &Past) -> Option<u64> {
        self.requests += 1;
        let ask = one.ask();
        match limits.reserve(&ask).now_or_never()? {
            Err(Denied::Refused(refusal)) => {
                let tokens = one.input + one.output;
                self.refused += 1;
                self.tokens += tokens;
                for exceeded in refusal.exceeded {
                    let effect = self.effect(exceeded.limit, one, exceeded.over);
                    effect.refused += 1;
                    effect.tokens += tokens;
                }
                None
            }
            Err(Denied::Unavailable(_)) => None,
            Ok(_) => {
                let wanted = u32::try_from(one.output).unwrap_or(u32::MAX);
                let extended = limits.extend(&ask, wanted).now_or_never()?;
                let Ok(Extended::Granted { total, stopped_by }) = extended else { return Some(one.output) };
                let lost = one.output.saturating_sub(total.into());
                if lost > 0 {
                    self.cut_short += 1;
                    self.tokens += lost;
                    for limit in stopped_by {
                        let effect = self.effect(limit, one, lost);
                        effect.cut_short += 1;
                        effect.tokens += lost;
                    }
                }
                Some(one.output - lost)
            }
        }
    }

    fn effect(&mut self, limit: Limit, one: &Past, over: u64) -> &mut Effect {
        let known = self.effects.iter().position(|effect| effect.limit == limit);
        let at = known.unwrap_or_else(|| {
            let (first, first_ms) = (one.id, one.began_ms);
            self.effects.push(Effect { limit, refused: 0, cut_short: 0, tokens: 0, first, first_ms, first_over: over });
            self.effects.len() - 1
        });
        &mut self.effects[at]
    }
}

impl Past {
    fn ask(&self) -> Ask {
        Ask {
            id: self.id,
            tenant: self.tenant,
            key: self.key,
            input_tokens: u32::try_from(self.input).unwrap_or(u32::MAX),
            output_tokens: 1,
            of_tenant: self.of_tenant,
            of_key: self.of_key,
            price: self.price,
            lease: LEASE,
            outage: Outage::Closed,
        }
    }
}

fn settle(limits: &InProcessLimits, one: &Past, output: u64) {
    let used = Used { input: one.input, cached: one.cached, output };
    // In memory it is done at once, and of a request that is known.
    let _ = limits.settle(&one.ask(), used).now_or_never();
}
