//! What was forgotten lately, so that an answer which was asked for before and comes after is not remembered.

use std::{collections::VecDeque, time::Instant};

use domain::TenantId;

/// More are forgotten themselves, and then stand for everything.
const MAX: usize = 256;

#[derive(Default)]
pub struct Forgotten {
    notes: VecDeque<(Instant, What)>,
    /// When the newest note that is no longer kept was made.
    dropped: Option<Instant>,
}

#[derive(PartialEq, Eq)]
pub enum What {
    Key(String),
    Tenant(TenantId),
    Everything,
}

impl Forgotten {
    pub fn note(&mut self, what: What) {
        if self.notes.len() == MAX {
            self.dropped = self.notes.pop_front().map(|(at, _)| at);
        }
        self.notes.push_back((Instant::now(), what));
    }

    /// Whether this key of this tenant was forgotten after `asked_at`. Without a tenant, what is noted of tenants counts
    /// for it too.
    pub fn since(&self, asked_at: Instant, public_id: &str, tenant: Option<TenantId>) -> bool {
        let concerns = |what: &What| match what {
            What::Key(key) => key == public_id,
            What::Tenant(of) => tenant.is_none_or(|tenant| tenant == *of),
            What::Everything => true,
        };
        self.dropped.is_some_and(|at| at >= asked_at)
            || self.notes.iter().rev().take_while(|(at, _)| *at >= asked_at).any(|(_, what)| concerns(what))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_answer_is_stale_when_its_key_its_tenant_or_everything_was_forgotten_since_the_question() {
        let before = Instant::now();
        let (own, other) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let stale = |what: Option<What>| {
            let mut forgotten = Forgotten::default();
            what.into_iter().for_each(|what| forgotten.note(what));
            let after = Instant::now() + Duration::from_secs(1);
            assert!(!forgotten.since(after, "key", Some(own)), "asked for after it was forgotten");
            forgotten.since(before, "key", Some(own))
        };
        assert!(!stale(None));
        assert!(stale(Some(What::Key("key".to_owned()))));
        assert!(!stale(Some(What::Key("another".to_owned()))));
        assert!(stale(Some(What::Tenant(own))));
        assert!(!stale(Some(What::Tenant(other))));
        assert!(stale(Some(What::Everything)));
    }

    #[test]
    fn what_is_no_longer_noted_counts_as_everything() {
        let before = Instant::now();
        let mut forgotten = Forgotten::default();
        for i in 0..=MAX {
            forgotten.note(What::Key(i.to_string()));
        }
        assert!(forgotten.since(before, "another", None));
        assert!(!forgotten.since(Instant::now() + Duration::from_secs(1), "another", None));
    }
}
