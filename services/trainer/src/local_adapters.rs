//! Adapters for an engine in this process, without a registry: judged once, kept in memory, handed to the loader
//! threads when they ask.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use adapters::{Base, Files, Limits, Refusal};
use domain::TenantId;
use engine::{AdapterFault, AdapterKey, AdapterSource};
use uuid::Uuid;

/// Files by version. The engine judges them again, as it does with those of a registry.
#[derive(Default)]
pub struct LocalAdapters {
    files: Mutex<HashMap<AdapterKey, Files>>,
    bytes_max: u64,
}

impl LocalAdapters {
    /// Keeps an adapter, if it fits `base`.
    ///
    /// # Errors
    /// Every refusal.
    pub fn add(&mut self, files: Files, base: &Base, limits: &Limits) -> Result<AdapterKey, Vec<Refusal>> {
        let plan = files.judge(base, limits)?;
        let key = AdapterKey { tenant: nobody(), digest: plan.digest };
        self.bytes_max = self.bytes_max.max(files.weights.len() as u64);
        self.files.get_mut().unwrap_or_else(PoisonError::into_inner).insert(key, files);
        Ok(key)
    }

    /// Memory that the largest one may take when loaded: half-precision weights become f32, and DoRA adds norms.
    pub const fn loaded_bytes_max(&self) -> u64 {
        self.bytes_max.saturating_mul(4)
    }
}

/// The share group of everything that runs without a tenant.
pub const fn nobody() -> TenantId {
    TenantId::new(Uuid::nil())
}

impl AdapterSource for LocalAdapters {
    fn load(&self, key: &AdapterKey) -> Result<Files, AdapterFault> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(key).cloned().ok_or(AdapterFault::NotFound)
    }
}
