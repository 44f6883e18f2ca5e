//! What the limits say of a request that is not made: how each of them stands, and which one would decide.

use std::{cmp::Reverse, time::Duration};

use super::Limit;

/// How one limit stands towards a request. Money is in micro-units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub limit: Limit,
    pub most: u64,
    /// What is charged, that of running requests included.
    pub used: u64,
    /// Of that, by requests that are running.
    pub reserved: u64,
    /// What the request needs to be let in.
    pub needed: u64,
    pub refuses: bool,
    /// If it refuses, when it no longer does; else when the oldest of what is charged is free again. `None`: nothing is
    /// charged, or it never lets a request like this in.
    pub refills_after: Option<Duration>,
    /// Tokens of the answer that it leaves room for; `None` if it does not count them.
    pub room: Option<u64>,
}

/// All limits that are set, in the order of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub limits: Vec<Standing>,
    /// Tokens of the answer that were asked for.
    pub wanted: u64,
}

impl Standing {
    pub const fn remaining(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

impl Explained {
    pub fn admitted(&self) -> bool {
        !self.limits.iter().any(|one| one.refuses)
    }

    /// Tokens that an answer would be granted, as far as is known now.
    pub fn room(&self) -> u64 {
        if !self.admitted() {
            return 0;
        }
        self.limits.iter().filter_map(|one| one.room).fold(self.wanted, u64::min)
    }

    /// Of those that refuse, the one that does so longest; else the one that leaves the answer less than it asked for.
    pub fn decides(&self) -> Option<Limit> {
        // The first of equals: the order of the check.
        let refusing = self.limits.iter().filter(|one| one.refuses);
        let longest = refusing.rev().max_by_key(|one| one.refills_after.unwrap_or(Duration::MAX));
        let bounding = self.limits.iter().filter(|one| one.room.is_some_and(|room| room < self.wanted));
        let tightest = bounding.rev().max_by_key(|one| Reverse(one.room));
        longest.or(tightest).map(|one| one.limit)
    }

    /// When the request would be let in; `None` if it would be now, or never as it is.
    pub fn retry_after(&self) -> Option<Duration> {
        let refusing = self.limits.iter().filter(|one| one.refuses);
        let waits: Option<Vec<_>> = refusing.map(|one| one.refills_after).collect();
        waits?.into_iter().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Rate, Scope};

    fn standing(rate: Rate, refuses: bool, refills_ms: Option<u64>, room: Option<u64>) -> Standing {
        let limit = Limit { scope: Scope::Tenant, rate };
        let refills_after = refills_ms.map(Duration::from_millis);
        Standing { limit, most: 10, used: 4, reserved: 1, needed: 1, refuses, refills_after, room }
    }

    #[test]
    fn the_limit_that_refuses_longest_decides_and_else_the_one_that_leaves_least() {
        let (requests, output) = (Rate::RequestsPerMinute, Rate::OutputTokensPerMinute);
        let short = standing(requests, true, Some(5), None);
        let long = standing(Rate::InputTokensPerMinute, true, Some(9), None);
        let roomy = standing(output, false, None, Some(3));
        let refused = Explained { limits: vec![short, long, roomy], wanted: 8 };
        assert_eq!((refused.admitted(), refused.room()), (false, 0));
        assert_eq!(refused.decides(), Some(long.limit));
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(9)));
        let never = Explained { limits: vec![standing(requests, true, None, None), long], wanted: 8 };
        assert_eq!((never.decides().map(|limit| limit.rate), never.retry_after()), (Some(requests), None));
        let cut = Explained { limits: vec![standing(requests, false, None, None), roomy], wanted: 8 };
        assert_eq!((cut.admitted(), cut.room(), cut.decides()), (true, 3, Some(roomy.limit)));
        assert_eq!((Explained { wanted: 3, ..cut.clone() }.decides(), cut.retry_after()), (None, None));
    }
}
