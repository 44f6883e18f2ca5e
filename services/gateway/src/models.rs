//! What a model's name means for a caller, now. From here on a version is pinned by its digest.

mod cache;
mod choice;

use std::{sync::Arc, time::Instant};

use domain::{Caller, Digest, Fault, ModelName, Reason, Slug, TenantId};
use store::{Route, RouteVersion, ShadowPair, Store, StoreError};
use time::OffsetDateTime;

use crate::{
    access,
    auth::Identity,
    changes::Listener,
    config::{ModelsConfig, ms},
    store_fault::StoreFault as _,
    workers::{BaseModel, Pin, Workers},
};
use cache::{Found, RouteCache};

/// Cheap to clone.
#[derive(Clone)]
pub struct Models {
    store: Store,
    workers: Workers,
    cache: Arc<RouteCache>,
}

pub struct PinnedModel {
    pub base: Arc<BaseModel>,
    /// `None` for the base itself.
    pub pin: Option<Pin>,
    /// What also answers this request, unseen.
    pub shadow: Option<ShadowPair>,
    pub display_name: String,
    pub updated_at: Option<OffsetDateTime>,
}

impl Models {
    pub fn new(store: Store, workers: Workers, config: &ModelsConfig) -> Self {
        let cache = Arc::new(RouteCache::new(ms(config.staleness_max_ms), config.cache_max));
        Self { store, workers, cache }
    }

    /// The version that answers a request. Another tenant's model is not found, in the same words and by the same query as
    /// one that does not exist.
    pub async fn resolve(
        &self,
        identity: &Identity,
        name: &ModelName,
        routing_key: Option<&str>,
    ) -> Result<PinnedModel, Fault> {
        let (own, key) = tenant_of(identity)?;
        let Some(route) = self.route(identity, name).await? else { return self.base_itself() };
        let now = OffsetDateTime::now_utc();
        let chosen = choice::choose(&route, key, routing_key, now, || rand::random_range(0..choice::WHOLE));
        let model = self.pinned(own, name, &route, chosen.version)?;
        // A shadow for another base cannot answer, which is no reason for the request not to be.
        let shadow = chosen.shadow.filter(|shadow| shadow.base_digest == model.base.digest);
        let shadow = shadow.and_then(|shadow| pair(name, chosen.version.digest, shadow.digest));
        Ok(PinnedModel { shadow, ..model })
    }

    /// The version that an alias points at, whoever asks.
    pub async fn describe(&self, identity: &Identity, name: &ModelName) -> Result<PinnedModel, Fault> {
        let (own, _) = tenant_of(identity)?;
        let Some(route) = self.route(identity, name).await? else { return self.base_itself() };
        self.pinned(own, name, &route, route.stable)
    }

    /// Hears of changes that other gateways make.
    pub fn listener(&self) -> Arc<dyn Listener> {
        Arc::clone(&self.cache) as _
    }

    /// Something about this adapter has changed.
    pub fn forget(&self, tenant: TenantId, adapter: &Slug) {
        self.cache.forget(tenant, adapter);
    }

    /// `None` for the base.
    async fn route(&self, identity: &Identity, name: &ModelName) -> Result<Option<Arc<Route>>, Fault> {
        let (own, _) = tenant_of(identity)?;
        access::admit_model(name, identity.models.as_deref())?;
        let ModelName::Adapter { tenant, adapter, version } = name else { return Ok(None) };
        let now = Instant::now();
        let known = match self.cache.get(own, name, now) {
            Found::Fresh(route) => return Ok(Some(route)),
            Found::Ageing(route) => Some(route),
            Found::Nothing => None,
        };
        let asked = self.cache.asking();
        match self.store.tenant(own).route(tenant, adapter, version).await {
            Ok(route) => {
                let route = Arc::new(route);
                self.cache.put(own, name, Arc::clone(&route), now, asked);
                Ok(Some(route))
            }
            // What is known still holds while it may.
            Err(StoreError::Unavailable(cause)) if known.is_some() => {
                tracing::warn!(%cause, "what a model means cannot be looked up anew");
                Ok(known)
            }
            Err(error) => Err(error.fault(name)),
        }
    }

    fn pinned(
        &self,
        own: TenantId,
        name: &ModelName,
        route: &Route,
        version: RouteVersion,
    ) -> Result<PinnedModel, Fault> {
        let base = self.workers.base()?;
        if version.base_digest != base.digest {
            let message = format!("`{name}` was made for base {}, and {} is served", version.base_digest, base.digest);
            return Err(Fault::new(Reason::BaseMismatch, message));
        }
        Ok(PinnedModel {
            base,
            pin: Some(Pin { tenant: own, digest: version.digest }),
            shadow: None,
            display_name: route.display_name.clone(),
            updated_at: Some(route.updated_at),
        })
    }

    fn base_itself(&self) -> Result<PinnedModel, Fault> {
        let display_name = "base model".to_owned();
        Ok(PinnedModel { base: self.workers.base()?, pin: None, shadow: None, display_name, updated_at: None })
    }
}

/// Only an alias has a shadow.
fn pair(name: &ModelName, digest: Digest, shadow_digest: Digest) -> Option<ShadowPair> {
    let ModelName::Adapter { adapter, version: domain::VersionSelector::Alias(alias), .. } = name else { return None };
    Some(ShadowPair { adapter: adapter.clone(), alias: alias.clone(), digest, shadow_digest })
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
