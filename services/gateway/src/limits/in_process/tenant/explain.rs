//! How the limits of a tenant stand; nothing is changed.

use domain::ApiKeyId;

use super::{Money, Tenant};
use crate::limits::{
    Ask, Explained, Left, Period, Rate, SLOT_MS, Scope, WINDOW_SLOTS,
    in_process::{Unknown, counts::Window},
};

impl Tenant {
    /// What [`Tenant::reserve`] would say, and how every limit stands.
    pub fn explain(&mut self, ask: &Ask, now: u64) -> Result<Explained, Unknown> {
        let key = ask.of_key.any().then_some(ask.key);
        let (period, wanted) = (Period::of(now), u64::from(ask.output_tokens));
        self.known_money(ask, period, ask.budgeted())?;
        let money = Money { period, budgeted: ask.budgeted(), cost: 0 };
        let rooms = self.bounds(key, ask, &money, 0, wanted);
        let mut limits = Vec::new();
        for (scope, of_key) in
            [(Scope::Tenant, None), (Scope::Key, key)].into_iter().take(1 + usize::from(key.is_some()))
        {
            let held = Rate::ALL.map(|rate| self.held_by_running(scope, of_key, rate, now));
            let counts = match of_key {
                None => &self.own,
                Some(key) => self.keys.entry(key).or_default(),
            };
            let of_scope = counts.standings(scope, ask, period, now).into_iter().map(|mut standing| {
                standing.reserved = held[standing.limit.rate as usize];
                standing.room = rooms.iter().find(|(limit, _)| *limit == standing.limit).map(|(_, room)| *room);
                standing
            });
            limits.extend(of_scope);
        }
        Ok(Explained { limits, wanted })
    }

    /// What the running requests of a scope hold of a limit.
    fn held_by_running(&self, scope: Scope, key: Option<ApiKeyId>, rate: Rate, now: u64) -> u64 {
        let lives = |slot: &u64| slot + WINDOW_SLOTS > now / SLOT_MS;
        let period = Period::of(now);
        let running = self.reservations.values().filter(|held| key.is_none() || held.key == key);
        let amounts = running.map(|held| {
            let Money { period: of, budgeted, cost } = held.money;
            let cost = if budgeted[scope as usize] { cost } else { 0 };
            match rate {
                Rate::RequestsPerMinute => u64::from(lives(&held.slot)),
                Rate::InputTokensPerMinute if lives(&held.slot) => held.input,
                Rate::InputTokensPerMinute => 0,
                Rate::OutputTokensPerMinute => {
                    held.grants.iter().filter(|(slot, _)| lives(slot)).map(|(_, amount)| amount).sum()
                }
                Rate::ConcurrentRequests => 1,
                Rate::BudgetDay if of.day == period.day => cost,
                Rate::BudgetMonth if of.month == period.month => cost,
                Rate::BudgetDay | Rate::BudgetMonth => 0,
            }
        });
        amounts.sum()
    }

    pub fn left(&self, ask: &Ask, now: u64) -> Vec<Left> {
        let windows = [Some(&self.own), self.keys.get(&ask.key)].map(|counts| {
            let of = |window: &Window| (window.sum(), window.passes_ms(now));
            counts.map(|counts| [of(&counts.requests), of(&counts.input), of(&counts.output)]).unwrap_or_default()
        });
        Left::of(ask, &windows)
    }
}
