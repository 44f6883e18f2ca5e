//! What a model's name means for a caller, now. From here on a version is pinned by its digest.

use std::sync::Arc;

use domain::{Caller, Fault, ModelName, Reason, TenantId};
use store::Store;
use time::OffsetDateTime;

use crate::{
    access,
    auth::Identity,
    store_fault::StoreFault as _,
    workers::{BaseModel, Pin, Workers},
};

#[derive(Clone)]
pub struct Models {
    store: Store,
    workers: Workers,
}

pub struct PinnedModel {
    pub base: Arc<BaseModel>,
    /// `None` for the base itself.
    pub pin: Option<Pin>,
    pub display_name: String,
    pub updated_at: Option<OffsetDateTime>,
}

impl Models {
    pub const fn new(store: Store, workers: Workers) -> Self {
        Self { store, workers }
    }

    /// Another tenant's model is not found, in the same words and by the same query as one that does not exist.
    pub async fn resolve(&self, identity: &Identity, name: &ModelName) -> Result<PinnedModel, Fault> {
        let (own, _) = tenant_of(identity)?;
        access::admit_model(name, identity.models.as_deref())?;
        let ModelName::Adapter { tenant, adapter, version } = name else {
            let base = self.workers.base()?;
            return Ok(PinnedModel { base, pin: None, display_name: "base model".to_owned(), updated_at: None });
        };
        let found = self.store.tenant(own).resolve(tenant, adapter, version).await;
        let found = found.map_err(|error| error.fault(name))?;
        let base = self.workers.base()?;
        if found.base_digest != base.digest {
            let message = format!("`{name}` was made for base {}, and {} is served", found.base_digest, base.digest);
            return Err(Fault::new(Reason::BaseMismatch, message));
        }
        Ok(PinnedModel {
            base,
            pin: Some(Pin { tenant: own, digest: found.digest }),
            display_name: found.display_name,
            updated_at: Some(found.updated_at),
        })
    }
}

/// The tenant whose key the caller holds, and the key.
pub fn tenant_of(identity: &Identity) -> Result<(TenantId, domain::ApiKeyId), Fault> {
    match identity.caller {
        Caller::Tenant { tenant, key, .. } => Ok((tenant, key)),
        Caller::Operator | Caller::Auditor => {
            Err(Fault::new(Reason::PermissionDenied, "this takes a tenant's API key"))
        }
    }
}
