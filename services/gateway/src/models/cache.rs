//! What model names meant a moment ago. An entry is as old as the question that it answers and is dropped when it is told
//! of a change, or when it is as old as it may get: no change stays unseen for longer, whatever becomes of the telling.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::{ModelName, Slug, TenantId};
use store::{Change, ChangeKind, Route};

use crate::changes::Listener;

pub struct RouteCache {
    staleness_max: Duration,
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tenants: HashMap<TenantId, HashMap<ModelName, Entry>>,
    entries: usize,
    /// How often something was forgotten.
    changes: u64,
}

struct Entry {
    route: Arc<Route>,
    asked_at: Instant,
    /// Somebody has been told to ask again.
    ageing: bool,
}

pub enum Found {
    Fresh(Arc<Route>),
    /// It may be used, and this caller is the one to ask again.
    Ageing(Arc<Route>),
    Nothing,
}

/// How much was forgotten when a question was asked: an answer that is older than a change is not kept.
#[derive(Clone, Copy)]
pub struct Asked(u64);

impl RouteCache {
    pub fn new(staleness_max: Duration, max: usize) -> Self {
        Self { staleness_max, max, state: Mutex::default() }
    }

    pub fn get(&self, tenant: TenantId, name: &ModelName, now: Instant) -> Found {
        let mut state = self.lock();
        let entry = state.tenants.get_mut(&tenant).and_then(|names| names.get_mut(name));
        let Some(entry) = entry else { return Found::Nothing };
        let age = now.saturating_duration_since(entry.asked_at);
        if age >= self.staleness_max {
            return Found::Nothing;
        }
        // Early enough that the others never wait for it.
        if age >= self.staleness_max / 2 && !entry.ageing {
            entry.ageing = true;
            return Found::Ageing(Arc::clone(&entry.route));
        }
        Found::Fresh(Arc::clone(&entry.route))
    }

    /// To be called before the database is asked.
    pub fn asking(&self) -> Asked {
        Asked(self.lock().changes)
    }

    /// When full of entries that still count, nothing is kept: the next request asks again.
    pub fn put(&self, tenant: TenantId, name: &ModelName, route: Arc<Route>, asked_at: Instant, asked: Asked) {
        let mut state = self.lock();
        if state.changes != asked.0 || self.staleness_max.is_zero() {
            return;
        }
        if state.entries >= self.max {
            state.retain(|entry| asked_at.saturating_duration_since(entry.asked_at) < self.staleness_max);
        }
        if state.entries >= self.max {
            return;
        }
        let entry = Entry { route, asked_at, ageing: false };
        if state.tenants.entry(tenant).or_default().insert(name.clone(), entry).is_none() {
            state.entries += 1;
        }
    }

    /// All names of an adapter.
    pub fn forget(&self, tenant: TenantId, changed: &Slug) {
        let mut state = self.lock();
        state.changes += 1;
        let Some(names) = state.tenants.get_mut(&tenant) else { return };
        let before = names.len();
        names.retain(|name, _| !matches!(name, ModelName::Adapter { adapter, .. } if adapter == changed));
        let gone = before - names.len();
        state.entries -= gone;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for RouteCache {
    fn changed(&self, change: &Change) {
        let adapter = match change.kind {
            ChangeKind::Adapter => change.subject.as_str(),
            ChangeKind::Alias => change.subject.split('@').next().unwrap_or_default(),
            _ => return,
        };
        match (change.tenant, adapter.parse()) {
            (Some(tenant), Ok(adapter)) => self.forget(tenant, &adapter),
            _ => self.forget_all(),
        }
    }

    fn forget_all(&self) {
        let mut state = self.lock();
        state.changes += 1;
        state.tenants.clear();
        state.entries = 0;
    }
}

impl State {
    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.tenants.retain(|_, names| {
            names.retain(|_, entry| keep(entry));
            !names.is_empty()
        });
        self.entries = self.tenants.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use domain::Digest;
    use store::RouteVersion;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    const MOST: Duration = Duration::from_millis(1_000);

    fn route(byte: u8) -> Arc<Route> {
        let version = RouteVersion { digest: Digest::new([byte; 32]), base_digest: Digest::new([0; 32]) };
        Arc::new(Route {
            stable: version,
            canary: None,
            shadow: None,
            pins: Vec::new(),
            salt: Uuid::nil(),
            display_name: String::new(),
            updated_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn name(text: &str) -> ModelName {
        text.parse().expect("a model name")
    }

    #[test]
    fn one_caller_asks_again_while_the_others_go_on_and_nothing_is_kept_too_long() {
        let (cache, tenant, start) = (RouteCache::new(MOST, 9), TenantId::new(Uuid::nil()), Instant::now());
        let claims = name("acme/claims");
        cache.put(tenant, &claims, route(1), start, cache.asking());
        let at = |ms| cache.get(tenant, &claims, start + Duration::from_millis(ms));
        assert!(matches!(at(499), Found::Fresh(_)));
        assert!(matches!(at(500), Found::Ageing(_)));
        assert!(matches!(at(500), Found::Fresh(_)), "one is enough");
        assert!(matches!(at(1_000), Found::Nothing));
    }

    #[test]
    fn a_change_is_forgotten_at_once_and_an_answer_from_before_it_is_not_kept() {
        let (cache, tenant, now) = (RouteCache::new(MOST, 9), TenantId::new(Uuid::nil()), Instant::now());
        let (live, canary, other) = (name("acme/claims"), name("acme/claims@canary"), name("acme/other"));
        for name in [&live, &canary, &other] {
            cache.put(tenant, name, route(1), now, cache.asking());
        }
        let asked = cache.asking();
        cache.forget(tenant, &"claims".parse().expect("a slug"));
        cache.put(tenant, &live, route(1), now, asked);
        for (name, known) in [(&live, false), (&canary, false), (&other, true)] {
            assert_eq!(matches!(cache.get(tenant, name, now), Found::Fresh(_)), known, "{name}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let (cache, tenant, now) = (RouteCache::new(MOST, 2), TenantId::new(Uuid::nil()), Instant::now());
        let names = ["acme/a1", "acme/b1", "acme/c1"].map(name);
        for name in &names {
            cache.put(tenant, name, route(1), now, cache.asking());
        }
        assert!(matches!(cache.get(tenant, &names[2], now), Found::Nothing));
        let later = now + MOST;
        cache.put(tenant, &names[2], route(1), later, cache.asking());
        assert!(matches!(cache.get(tenant, &names[2], later), Found::Fresh(_)), "what is over gives way");
    }
}
