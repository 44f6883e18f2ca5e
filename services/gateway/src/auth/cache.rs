//! What the database said about keys a moment ago. An answer counts for the time to live, reckoned from when it was asked
//! for, and use never makes it younger: that bounds the time until a revocation takes effect, under any load. A change
//! that is heard of ends it at once. The secret is compared on every call, hit or miss.

mod forgotten;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::TenantId;
use store::KnownKey;

use crate::config::{AuthConfig, ms};
use forgotten::{Forgotten, What};

pub struct Cache {
    ttl: Duration,
    /// How much longer an answer counts while the database does not answer.
    stale: Duration,
    unknown_ttl: Duration,
    known_max: usize,
    unknown_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<String, Entry>,
    /// Keys that nobody may use, and when that was asked.
    unknown: HashMap<String, Instant>,
    forgotten: Forgotten,
    /// The last question was not answered.
    unanswered: bool,
}

struct Entry {
    known: Arc<KnownKey>,
    asked_at: Instant,
    /// Since the last [`Cache::take_used`].
    used: bool,
}

#[derive(Debug)]
pub enum Remembered {
    Known(Arc<KnownKey>),
    Unknown,
    Nothing,
}

impl Cache {
    pub fn new(config: &AuthConfig) -> Self {
        Self {
            ttl: ms(config.cache_ttl_ms),
            stale: ms(config.stale_max_ms),
            unknown_ttl: ms(config.unknown_ttl_ms),
            known_max: config.cache_max,
            unknown_max: config.unknown_max,
            state: Mutex::default(),
        }
    }

    pub fn get(&self, public_id: &str, now: Instant) -> Remembered {
        let mut state = self.state();
        let lives = if state.unanswered { self.ttl + self.stale } else { self.ttl };
        if let Some(entry) = state.known.get_mut(public_id)
            && now.saturating_duration_since(entry.asked_at) < lives
        {
            entry.used = true;
            return Remembered::Known(Arc::clone(&entry.known));
        }
        match state.unknown.get(public_id) {
            Some(asked_at) if now.saturating_duration_since(*asked_at) < self.unknown_ttl => Remembered::Unknown,
            _ => Remembered::Nothing,
        }
    }

    /// A key that may be used. When full of entries that still count, nothing is kept: the next call asks again.
    pub fn put(&self, known: Arc<KnownKey>, asked_at: Instant) {
        let mut state = self.state();
        state.unanswered = false;
        if state.forgotten.since(asked_at, &known.public_id, Some(known.tenant)) {
            return;
        }
        state.unknown.remove(&known.public_id);
        if let Some(entry) = state.known.get_mut(&known.public_id) {
            // The later question counts, whichever answer comes first.
            if entry.asked_at <= asked_at {
                (entry.known, entry.asked_at) = (known, asked_at);
            }
            return;
        }
        if state.known.len() >= self.known_max {
            let lives = self.ttl + self.stale;
            state.known.retain(|_, entry| asked_at.saturating_duration_since(entry.asked_at) < lives);
        }
        if state.known.len() < self.known_max && !self.ttl.is_zero() {
            state.known.insert(known.public_id.clone(), Entry { known, asked_at, used: false });
        }
    }

    /// A key that nobody may use: there is none, or it is revoked or expired.
    pub fn put_unknown(&self, public_id: &str, asked_at: Instant) {
        let mut state = self.state();
        state.unanswered = false;
        if state.forgotten.since(asked_at, public_id, None) {
            return;
        }
        state.known.remove(public_id);
        if state.unknown.len() >= self.unknown_max {
            let lives = self.unknown_ttl;
            state.unknown.retain(|_, at| asked_at.saturating_duration_since(*at) < lives);
        }
        if state.unknown.len() < self.unknown_max {
            state.unknown.insert(public_id.to_owned(), asked_at);
        }
    }

    /// The database does not answer.
    pub fn unanswered(&self) {
        self.state().unanswered = true;
    }

    /// Whether the last question was left without an answer.
    pub fn is_unanswered(&self) -> bool {
        self.state().unanswered
    }

    /// The keys that were used since this was asked last.
    pub fn take_used(&self) -> Vec<String> {
        let mut state = self.state();
        let keys = state.known.iter_mut();
        keys.filter_map(|(public_id, entry)| std::mem::take(&mut entry.used).then(|| public_id.clone())).collect()
    }

    pub fn forget_key(&self, public_id: &str) {
        let mut state = self.state();
        state.known.remove(public_id);
        state.unknown.remove(public_id);
        state.forgotten.note(What::Key(public_id.to_owned()));
    }

    pub fn forget_tenant(&self, tenant: TenantId) {
        let mut state = self.state();
        state.known.retain(|_, entry| entry.known.tenant != tenant);
        state.forgotten.note(What::Tenant(tenant));
    }

    pub fn forget_all(&self) {
        let mut state = self.state();
        state.known.clear();
        state.unknown.clear();
        state.forgotten.note(What::Everything);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
