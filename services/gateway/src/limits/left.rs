//! What is left of the limits that are counted per minute, for those who want to know before they are refused.

use std::time::Duration;

use super::{Ask, Limit, Rate, Scope};

/// The limits in the order in which [`Windows`] has them.
pub const COUNTED: [Rate; 3] = [Rate::RequestsPerMinute, Rate::InputTokensPerMinute, Rate::OutputTokensPerMinute];

/// What stands in the windows of the tenant and of the key: the sum, and milliseconds until all of it has passed.
pub type Windows = [[(u64, u64); 3]; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub limit: Limit,
    pub most: u64,
    pub left: u64,
    /// When nothing counts any more of what counts now.
    pub full_after: Duration,
}

impl Left {
    /// Every limit that the request has.
    pub fn of(ask: &Ask, windows: &Windows) -> Vec<Self> {
        let scopes = [(Scope::Tenant, ask.of_tenant), (Scope::Key, ask.of_key)];
        let limits = scopes.into_iter().zip(windows).flat_map(|((scope, rates), windows)| {
            COUNTED.into_iter().zip(windows).filter_map(move |(rate, (sum, passes_ms))| {
                let most = rates.of(rate)?;
                Some(Self {
                    limit: Limit { scope, rate },
                    most,
                    left: most.saturating_sub(*sum),
                    full_after: Duration::from_millis(*passes_ms),
                })
            })
        });
        limits.collect()
    }
}
