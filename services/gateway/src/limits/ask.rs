//! What the limits are asked, and what they grant.

use std::time::Duration;

use domain::{ApiKeyId, KeyLimits, Limits, Outage, Price, RequestId, TenantId};

use super::{Limit, Rate, Scope};

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
    /// What its tokens cost, from its beginning to its end.
    pub price: Price,
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
    /// Micro-units of currency, at most [`domain::BUDGET_MAX`].
    pub budget_day: Option<u64>,
    /// Micro-units of currency, at most [`domain::BUDGET_MAX`].
    pub budget_month: Option<u64>,
}

/// What a request may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Tokens of the answer, at least one.
    pub output: u32,
    /// When it was charged, by the clock of the limits: milliseconds since 1970, in whole seconds. What it costs belongs to
    /// the day and the month of this moment, however long it runs.
    pub at_ms: u64,
}

/// What came of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// Tokens of the answer that are granted in all, and which limits kept them from being as many as was asked for.
    Granted { total: u32, stopped_by: Vec<Limit> },
    /// Nobody knows the reservation: its lease has expired.
    Unknown,
}

/// Tokens that a request has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub input: u64,
    /// Those of the input that came from the prefix cache.
    pub cached: u64,
    pub output: u64,
}

impl Ask {
    /// Micro-units for the whole prompt, none of it cached, and so many tokens of an answer: no outcome costs more.
    pub fn cost_at_most(&self, output: u64) -> u64 {
        worst(self.price).cost(self.input_tokens.into(), 0, output)
    }

    /// Micro-units for what was used.
    pub fn cost(&self, used: Used) -> u64 {
        self.price.cost(used.input, used.cached, used.output)
    }

    pub const fn rates(&self, scope: Scope) -> Rates {
        match scope {
            Scope::Tenant => self.of_tenant,
            Scope::Key => self.of_key,
        }
    }

    /// Whether the tenant, and whether the key, has a budget.
    pub const fn budgeted(&self) -> [bool; 2] {
        [self.of_tenant.budgeted(), self.of_key.budgeted()]
    }

    /// Whether one of the two has.
    pub const fn has_budget(&self) -> bool {
        self.of_tenant.budgeted() || self.of_key.budgeted()
    }
}

/// A price list may ask more for a cached token than for another one.
pub(super) fn worst(price: Price) -> Price {
    Price { input: price.input.max(price.cached_input), ..price }
}

impl Rates {
    /// Whether there is anything to count.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    pub const fn budgeted(&self) -> bool {
        self.budget_day.is_some() || self.budget_month.is_some()
    }

    pub(super) fn of(&self, rate: Rate) -> Option<u64> {
        match rate {
            Rate::RequestsPerMinute => self.requests_per_minute.map(u64::from),
            Rate::InputTokensPerMinute => self.input_tokens_per_minute.map(u64::from),
            Rate::OutputTokensPerMinute => self.output_tokens_per_minute.map(u64::from),
            Rate::ConcurrentRequests => self.concurrent_requests.map(u64::from),
            Rate::BudgetDay => self.budget_day,
            Rate::BudgetMonth => self.budget_month,
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
            budget_day: limits.budget_day,
            budget_month: limits.budget_month,
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
            budget_day: limits.budget_day,
            budget_month: limits.budget_month,
        }
    }
}
