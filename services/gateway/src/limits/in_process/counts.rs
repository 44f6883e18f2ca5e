//! What is counted in one scope, a tenant or a key: three windows and the running requests.

use std::{collections::BTreeMap, time::Duration};

use crate::limits::{CONCURRENCY_RETRY_MS, Exceeded, Limit, Rate, Rates, SLOT_MS, Scope, WINDOW_SLOTS};

/// What is counted in one scope.
#[derive(Default)]
pub struct Counts {
    pub requests: Window,
    pub input: Window,
    pub output: Window,
    /// Expiries of running requests.
    pub leases: BTreeMap<u64, u32>,
}

/// Amounts by slot.
#[derive(Default)]
pub struct Window(BTreeMap<u64, u64>);

impl Counts {
    /// The limits in the way of one request with this input and at least one token of output. Expects that what has passed
    /// is gone.
    pub fn exceeded(&self, scope: Scope, rates: &Rates, input: u32, now: u64) -> Vec<Exceeded> {
        let windows = [
            (Rate::RequestsPerMinute, &self.requests, 1),
            (Rate::InputTokensPerMinute, &self.input, u64::from(input)),
            (Rate::OutputTokensPerMinute, &self.output, 1),
        ];
        let windows = windows.into_iter().filter_map(|(rate, window, amount)| {
            let (over, retry_after) = window.exceeded(amount, rates.of(rate)?, now)?;
            Some(Exceeded { limit: Limit { scope, rate }, over, retry_after })
        });
        windows.chain(self.leases_exceeded(scope, rates.concurrent_requests, now)).collect()
    }

    pub fn leases_exceeded(&self, scope: Scope, most: Option<u32>, now: u64) -> Option<Exceeded> {
        let running: u64 = self.leases.values().map(|count| u64::from(*count)).sum();
        let over = (running + 1).checked_sub(most?.into()).filter(|over| *over > 0)?;
        let first = self.leases.keys().next().map_or(CONCURRENCY_RETRY_MS, |expires_ms| expires_ms - now);
        let retry_after = Some(Duration::from_millis(first.min(CONCURRENCY_RETRY_MS)));
        Some(Exceeded { limit: Limit { scope, rate: Rate::ConcurrentRequests }, over, retry_after })
    }

    pub fn end_lease(&mut self, expires_ms: u64) {
        if let Some(count) = self.leases.get_mut(&expires_ms) {
            *count -= 1;
            if *count == 0 {
                self.leases.remove(&expires_ms);
            }
        }
    }

    pub fn drop_passed(&mut self, now: u64) {
        for window in [&mut self.requests, &mut self.input, &mut self.output] {
            window.drop_passed(now);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && [&self.requests, &self.input, &self.output].iter().all(|window| window.0.is_empty())
    }
}

impl Window {
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// By how much `amount` more would be above `most`, if so, and when it will not be any more.
    pub fn exceeded(&self, amount: u64, most: u32, now: u64) -> Option<(u64, Option<Duration>)> {
        let most = u64::from(most);
        let over = (self.sum() + amount).checked_sub(most).filter(|over| *over > 0)?;
        let mut freed = 0;
        let roomy = self.0.iter().find(|(_, amount)| {
            freed += **amount;
            freed >= over
        });
        let retry_after = roomy
            .filter(|_| amount <= most)
            .map(|(slot, _)| Duration::from_millis((slot + WINDOW_SLOTS) * SLOT_MS - now));
        Some((over, retry_after))
    }

    pub fn add(&mut self, slot: u64, amount: u64) {
        *self.0.entry(slot).or_default() += amount;
    }

    /// Puts one amount in the place of another, unless the slot has passed.
    pub fn correct(&mut self, slot: u64, before: u64, after: u64, slot_now: u64) {
        if slot + WINDOW_SLOTS > slot_now {
            let amount = self.0.entry(slot).or_default();
            *amount = amount.saturating_sub(before) + after;
        }
    }

    pub fn drop_passed(&mut self, now: u64) {
        let slot = now / SLOT_MS;
        while self.0.first_key_value().is_some_and(|(oldest, _)| oldest + WINDOW_SLOTS <= slot) {
            self.0.pop_first();
        }
    }
}
