//! How many shadows were not begun, until the next comparison of the same pair writes it down.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use domain::TenantId;
use store::ShadowPair;

pub struct Skipped {
    /// Pairs that are counted at the same time.
    max: usize,
    counts: Mutex<HashMap<(TenantId, ShadowPair), u64>>,
}

impl Skipped {
    pub fn new(max: usize) -> Self {
        Self { max, counts: Mutex::default() }
    }

    /// Something of the pair, or of others, is under way, or this would not be called. Beyond the most, nothing is counted.
    pub fn add(&self, tenant: TenantId, pair: &ShadowPair) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counts.len() >= self.max;
        let key = (tenant, pair.clone());
        if let Some(count) = counts.get_mut(&key) {
            *count += 1;
        } else if !full {
            counts.insert(key, 1);
        }
    }

    pub fn take(&self, tenant: TenantId, pair: &ShadowPair) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&(tenant, pair.clone())).unwrap_or_default()
    }
}
