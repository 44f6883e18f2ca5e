//! Who is calling: the operator by token, or a tenant by API key. What they may do stands in `access`.
//!
//! The key's form and checksum are checked before anything is looked up, the look-up is by an exact public id, and the
//! secret is only ever compared as HMAC-SHA256 under the pepper, in constant time. Whatever is wrong with credentials is
//! answered with the same words after the same work.

mod cache;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chassis::config::Secret;
use domain::{ApiKeyText, Caller, Fault, KeyLimits, Limits, Outage, Reason, Share};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use store::{KnownKey, Store};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{config::AuthConfig, store_fault::StoreFault as _};
use cache::Cache;

/// A proven caller, and what admission needs to know of its tenant.
#[derive(Clone, Debug)]
pub struct Identity {
    pub caller: Caller,
    /// With the platform's defaults filled in.
    pub limits: Limits,
    /// The key's own, beside the tenant's.
    pub key_limits: KeyLimits,
    /// What the key may be used for; `None` is everything.
    pub models: Option<Arc<[String]>>,
    pub methods: Option<Arc<[String]>>,
    /// The tenant's part in each worker.
    pub share: Share,
    /// What becomes of its requests while the shared limits do not answer.
    pub outage: Outage,
    /// Whose KV prefixes may be shared.
    pub share_group: Uuid,
}

pub struct Authenticator {
    store: Store,
    hasher: KeyHasher,
    operator: [u8; 32],
    defaults: Limits,
    cache: Cache,
}

/// Hashes the secret half of API keys.
#[derive(Clone)]
pub struct KeyHasher {
    mac: Hmac<Sha256>,
}

impl KeyHasher {
    pub fn new(pepper: &Secret) -> Self {
        let mac = Hmac::new_from_slice(pepper.reveal().as_bytes()).expect("HMAC takes keys of any length");
        Self { mac }
    }

    pub fn hash(&self, secret: &str) -> [u8; 32] {
        self.mac.clone().chain_update(secret.as_bytes()).finalize().into_bytes().into()
    }
}

impl Authenticator {
    pub fn new(store: Store, pepper: &Secret, operator_token: &Secret, defaults: Limits, config: &AuthConfig) -> Self {
        let hasher = KeyHasher::new(pepper);
        let operator = hasher.hash(operator_token.reveal());
        let cache = Cache::new(Duration::from_millis(config.cache_ttl_ms), config.cache_max);
        Self { store, hasher, operator, defaults, cache }
    }

    /// The caller behind a bearer token.
    pub async fn authenticate(&self, token: Option<&str>) -> Result<Identity, Fault> {
        let token = token.ok_or_else(no_credentials)?;
        // Hashed first, so that the comparison says nothing about the length of the operator's token either.
        if bool::from(self.hasher.hash(token).ct_eq(&self.operator)) {
            return Ok(self.operator_identity());
        }
        let key = ApiKeyText::parse(token).map_err(|_| bad_credentials())?;
        let hash = self.hasher.hash(key.secret());
        let known = self.look_up(key.public_id()).await?;
        let expected = known.as_ref().map_or([0; 32], |known| known.secret_hash);
        let matches = bool::from(hash.ct_eq(&expected));
        match known {
            Some(known) if matches && is_valid(&known) => Ok(self.identity(&known)),
            _ => Err(bad_credentials()),
        }
    }

    async fn look_up(&self, public_id: &str) -> Result<Option<KnownKey>, Fault> {
        let now = Instant::now();
        if let Some(known) = self.cache.get(public_id, now) {
            return Ok(Some(known));
        }
        let found = self.store.find_api_key(public_id).await.map_err(|error| error.fault("API key"))?;
        if let Some(known) = found.as_ref().filter(|known| is_valid(known)) {
            // As old as the question, not as the answer: a revocation in between is seen in time.
            self.cache.put(public_id, known.clone(), now);
        }
        Ok(found)
    }

    fn operator_identity(&self) -> Identity {
        Identity {
            caller: Caller::Operator,
            limits: self.defaults,
            key_limits: KeyLimits::default(),
            models: None,
            methods: None,
            share: Share::default(),
            outage: Outage::default(),
            share_group: Uuid::nil(),
        }
    }

    fn identity(&self, known: &KnownKey) -> Identity {
        Identity {
            caller: Caller::Tenant {
                tenant: known.tenant,
                slug: known.tenant_slug.clone(),
                key: known.id,
                role: known.role,
            },
            limits: self.defaults.with(known.limits),
            key_limits: known.key_limits,
            models: known.models.as_deref().map(Arc::from),
            methods: known.methods.as_deref().map(Arc::from),
            share: known.share,
            outage: known.outage,
            share_group: known.share_group,
        }
    }
}

fn is_valid(known: &KnownKey) -> bool {
    known.revoked_at.is_none() && known.expires_at.is_none_or(|at| at > OffsetDateTime::now_utc())
}

fn no_credentials() -> Fault {
    Fault::new(Reason::Unauthenticated, "credentials are missing: send metadata `authorization: Bearer <API key>`")
}

fn bad_credentials() -> Fault {
    Fault::new(Reason::Unauthenticated, "the credentials are not valid")
}
