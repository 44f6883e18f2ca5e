//! Who has asked for which adapter: what a tenant brings into memory is bounded, however much there is. Counted are
//! adapters that are ready or on their way, in use or not, for whoever asked for them first.

use std::collections::{HashMap, HashSet};

use domain::TenantId;

use super::AdapterKey;

#[derive(Default)]
pub struct Owners {
    owner: HashMap<AdapterKey, TenantId>,
    owned: HashMap<TenantId, HashSet<AdapterKey>>,
}

impl Owners {
    pub fn insert(&mut self, key: AdapterKey, owner: TenantId) {
        self.owner.insert(key, owner);
        self.owned.entry(owner).or_default().insert(key);
    }

    /// It is neither in memory nor on its way any more.
    pub fn remove(&mut self, key: &AdapterKey) {
        let Some(owner) = self.owner.remove(key) else { return };
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.remove(key);
            if owned.is_empty() {
                self.owned.remove(&owner);
            }
        }
    }

    pub fn of(&self, owner: TenantId) -> impl Iterator<Item = &AdapterKey> {
        self.owned.get(&owner).into_iter().flatten()
    }

    pub fn count(&self, owner: TenantId) -> usize {
        self.owned.get(&owner).map_or(0, HashSet::len)
    }
}
