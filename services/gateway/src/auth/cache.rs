//! Keys that were found good a moment ago. An entry is as old as the question that it answers and never renewed, so a
//! revocation takes effect within the time to live, under any load. The secret is compared on every call, hit or miss.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use store::KnownKey;

pub struct Cache {
    ttl: Duration,
    max: usize,
    entries: Mutex<HashMap<String, (KnownKey, Instant)>>,
}

impl Cache {
    pub fn new(ttl: Duration, max: usize) -> Self {
        Self { ttl, max, entries: Mutex::default() }
    }

    pub fn get(&self, public_id: &str, now: Instant) -> Option<KnownKey> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, asked_at) = entries.get(public_id)?;
        (now.saturating_duration_since(*asked_at) < self.ttl).then(|| known.clone())
    }

    /// When full of entries that still count, nothing is kept: the next call looks up again.
    pub fn put(&self, public_id: &str, known: KnownKey, asked_at: Instant) {
        if self.ttl.is_zero() {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.max {
            entries.retain(|_, (_, at)| asked_at.saturating_duration_since(*at) < self.ttl);
        }
        if entries.len() < self.max {
            entries.insert(public_id.to_owned(), (known, asked_at));
        }
    }
}
