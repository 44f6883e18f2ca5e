//! When keys were last used, noted on the way and written now and then. Nothing waits for it, and what is lost in a crash
//! is a few seconds of a time that is coarse anyway.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use domain::{ApiKeyId, TenantId};
use store::{KeyUse, KnownKey, Store};
use time::OffsetDateTime;

pub struct Uses {
    max: usize,
    noted: Mutex<HashMap<ApiKeyId, (TenantId, OffsetDateTime)>>,
}

impl Uses {
    /// Remembers so many keys until they are written; others are not noted.
    pub fn new(max: usize) -> Self {
        Self { max, noted: Mutex::default() }
    }

    pub fn note(&self, known: &KnownKey, at: OffsetDateTime) {
        let mut noted = self.noted();
        if noted.len() < self.max || noted.contains_key(&known.id) {
            noted.insert(known.id, (known.tenant, at));
        }
    }

    /// What cannot be written is left for the next time.
    pub async fn write(&self, store: &Store) {
        let taken = std::mem::take(&mut *self.noted());
        let uses: Vec<_> =
            taken.iter().map(|(key, (tenant, at))| KeyUse { tenant: *tenant, key: *key, at: *at }).collect();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = store.platform().record_key_uses(&uses).await {
            tracing::warn!(%error, "when keys were last used is not written yet");
            let mut noted = self.noted();
            for (key, used) in taken {
                if noted.len() < self.max {
                    noted.entry(key).or_insert(used);
                }
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<ApiKeyId, (TenantId, OffsetDateTime)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
