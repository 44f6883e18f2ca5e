//! What stands in the way of a request, and how a client is told.

use std::{fmt, time::Duration};

use domain::{Detail, Fault, Reason};

use super::Ask;

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
    BudgetDay,
    BudgetMonth,
}

/// Every limit that stands in the way of one request; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub exceeded: Vec<Exceeded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub limit: Limit,
    /// How much too much it would be; of a budget in micro-units.
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
pub enum LimitsUnavailable {
    #[error("the rate limits do not answer: {0}")]
    Silent(String),
    /// What has been spent of a budget has to be read from the ledger, and cannot be.
    #[error("the ledger does not say what has been spent: {0}")]
    Ledger(String),
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
            Rate::BudgetDay => "budget_day",
            Rate::BudgetMonth => "budget_month",
        };
        write!(f, "{scope}{rate}")
    }
}

impl Rate {
    /// In the order of the check.
    pub const ALL: [Self; 6] = [
        Self::RequestsPerMinute,
        Self::InputTokensPerMinute,
        Self::OutputTokensPerMinute,
        Self::ConcurrentRequests,
        Self::BudgetDay,
        Self::BudgetMonth,
    ];

    const fn unit(self) -> &'static str {
        match self {
            Self::BudgetDay | Self::BudgetMonth => " micro-units",
            _ => "",
        }
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
            let unit = limit.rate.unit();
            names.push(limit.to_string());
            fault = fault.detail(Detail::Quota {
                subject: limit.to_string(),
                description: format!(
                    "{limit} of the {whose} is {most}{unit}, and this request would be {over}{unit} above it{hint}"
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
