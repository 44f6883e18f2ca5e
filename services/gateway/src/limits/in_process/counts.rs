//! What is counted in one scope, a tenant or a key: three windows, the running requests, and money.

use std::{collections::BTreeMap, time::Duration};

use crate::limits::{
    Ask, CONCURRENCY_RETRY_MS, Exceeded, Limit, Period, Rate, Rates, SLOT_MS, Scope, Spent, Standing, WINDOW_SLOTS,
};

/// What is counted in one scope.
#[derive(Default)]
pub struct Counts {
    pub requests: Window,
    pub input: Window,
    pub output: Window,
    /// Expiries of running requests.
    pub leases: BTreeMap<u64, u32>,
    pub money: Money,
}

/// Micro-units by day and by month, as far as they are known.
#[derive(Default)]
pub struct Money {
    days: BTreeMap<u64, u64>,
    months: BTreeMap<u64, u64>,
}

/// Amounts by slot.
#[derive(Default)]
pub struct Window(BTreeMap<u64, u64>);

impl Counts {
    /// The limits in the way of one request with this input and at least one token of output. Expects that what has passed
    /// is gone, and that money is known where there are budgets.
    pub fn exceeded(&self, scope: Scope, rates: &Rates, ask: &Ask, period: Period, now: u64) -> Vec<Exceeded> {
        let windows = [
            (Rate::RequestsPerMinute, &self.requests, 1),
            (Rate::InputTokensPerMinute, &self.input, u64::from(ask.input_tokens)),
            (Rate::OutputTokensPerMinute, &self.output, 1),
        ];
        let windows = windows.into_iter().filter_map(|(rate, window, amount)| {
            let (over, retry_after) = window.exceeded(amount, rates.of(rate)?, now)?;
            Some(Exceeded { limit: Limit { scope, rate }, over, retry_after })
        });
        let leases = self.leases_exceeded(scope, rates.concurrent_requests, now);
        windows.chain(leases).chain(self.budgets_exceeded(scope, rates, ask.cost_at_most(1), period, now)).collect()
    }

    /// How every limit of the scope that is set stands; what is reserved, and room for output, are left to the caller.
    /// Expects as [`Counts::exceeded`].
    pub fn standings(&self, scope: Scope, ask: &Ask, period: Period, now: u64) -> Vec<Standing> {
        let rates = ask.rates(scope);
        let exceeded = self.exceeded(scope, &rates, ask, period, now);
        let running: u64 = self.leases.values().map(|count| u64::from(*count)).sum();
        let first = self.leases.keys().next().map(|expires_ms| (expires_ms - now).min(CONCURRENCY_RETRY_MS));
        let spent = self.money.spent(period).unwrap_or_default();
        let [day_ends, month_ends] = period.ends_ms().map(|end_ms| end_ms - now);
        let cost = ask.cost_at_most(1);
        let standing = |rate: Rate| {
            let (used, free_ms, needed) = match rate {
                Rate::RequestsPerMinute => (self.requests.sum(), self.requests.free_in(now), 1),
                Rate::InputTokensPerMinute => (self.input.sum(), self.input.free_in(now), ask.input_tokens.into()),
                Rate::OutputTokensPerMinute => (self.output.sum(), self.output.free_in(now), 1),
                Rate::ConcurrentRequests => (running, first, 1),
                Rate::BudgetDay => (spent.day, (spent.day > 0).then_some(day_ends), cost),
                Rate::BudgetMonth => (spent.month, (spent.month > 0).then_some(month_ends), cost),
            };
            let limit = Limit { scope, rate };
            let refusal = exceeded.iter().find(|one| one.limit == limit);
            Some(Standing {
                limit,
                most: rates.of(rate)?,
                used,
                reserved: 0,
                needed,
                refuses: refusal.is_some(),
                refills_after: refusal.map_or(free_ms.map(Duration::from_millis), |one| one.retry_after),
                room: None,
            })
        };
        Rate::ALL.into_iter().filter_map(standing).collect()
    }

    fn budgets_exceeded(&self, scope: Scope, rates: &Rates, cost: u64, period: Period, now: u64) -> Vec<Exceeded> {
        let spent = self.money.spent(period).unwrap_or_default().by_rate();
        let budgets = spent.into_iter().zip(period.ends_ms()).filter_map(|((rate, spent), end_ms)| {
            let most = rates.of(rate).filter(|_| cost > 0)?;
            let over = (spent + cost).checked_sub(most).filter(|over| *over > 0)?;
            let retry_after = (cost <= most).then(|| Duration::from_millis(end_ms - now));
            Some(Exceeded { limit: Limit { scope, rate }, over, retry_after })
        });
        budgets.collect()
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
        // Of the last day and month something may still run.
        let Period { day, month } = Period::of(now);
        self.money.days.retain(|one, _| *one + 2 >= day);
        self.money.months.retain(|one, _| *one + 1 >= month);
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.money.months.is_empty()
            && [&self.requests, &self.input, &self.output].iter().all(|window| window.0.is_empty())
    }
}

impl Money {
    pub fn spent(&self, period: Period) -> Option<Spent> {
        Some(Spent { day: *self.days.get(&period.day)?, month: *self.months.get(&period.month)? })
    }

    /// What is known stays.
    pub fn seed(&mut self, period: Period, spent: Spent) {
        self.days.entry(period.day).or_insert(spent.day);
        self.months.entry(period.month).or_insert(spent.month);
    }

    /// Puts one amount in the place of another. Where nothing is known it stays so: the ledger has it.
    pub fn correct(&mut self, period: Period, before: u64, after: u64) {
        for amount in [self.days.get_mut(&period.day), self.months.get_mut(&period.month)].into_iter().flatten() {
            *amount = amount.saturating_sub(before).saturating_add(after);
        }
    }
}

impl Window {
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// Milliseconds until all of it has passed.
    pub fn passes_ms(&self, now: u64) -> u64 {
        self.0.last_key_value().map_or(0, |(slot, _)| ((slot + WINDOW_SLOTS) * SLOT_MS).saturating_sub(now))
    }

    /// By how much `amount` more would be above `most`, if so, and when it will not be any more.
    pub fn exceeded(&self, amount: u64, most: u64, now: u64) -> Option<(u64, Option<Duration>)> {
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

    /// Milliseconds until the oldest of what is charged has passed.
    pub fn free_in(&self, now: u64) -> Option<u64> {
        let oldest = self.0.iter().find(|(_, amount)| **amount > 0)?;
        Some((oldest.0 + WINDOW_SLOTS) * SLOT_MS - now)
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
