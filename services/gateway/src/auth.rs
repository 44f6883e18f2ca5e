//! Who is calling: the operator by token, or a tenant by API key. What they may do stands in `access`.
//!
//! The key's form and checksum are checked before anything is looked up, the look-up is by an exact public id, and the
//! secret is only ever compared as HMAC-SHA256 under the pepper, in constant time. Whatever is wrong with credentials is
//! answered with the same words after the same work.

mod cache;
mod keys;
mod running;
mod uses;

use std::sync::Arc;

use chassis::config::Secret;
use domain::{ApiKeyText, Caller, Fault, KeyLimits, Limits, Outage, Reason, Share};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use store::{KnownKey, Store};
use subtle::{Choice, ConstantTimeEq as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::config::GatewayConfig;
pub use keys::Keys;
pub use running::KeyInUse;

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
    keys: Arc<Keys>,
    hasher: KeyHasher,
    operator: [u8; 32],
    /// None takes no auditor token.
    auditor: Option<[u8; 32]>,
    defaults: Limits,
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
    pub fn new(store: Store, config: &GatewayConfig) -> Self {
        let hasher = KeyHasher::new(&config.key_pepper);
        let operator = hasher.hash(config.operator_token.reveal());
        let auditor = (!config.auditor_token.is_empty()).then(|| hasher.hash(config.auditor_token.reveal()));
        let keys = Arc::new(Keys::new(store, &config.auth));
        Self { keys, hasher, operator, auditor, defaults: config.tenant_limits }
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The caller behind a bearer token.
    pub async fn authenticate(&self, token: Option<&str>) -> Result<Identity, Fault> {
        let token = token.ok_or_else(no_credentials)?;
        // Hashed first, so that the comparison says nothing about the length of the tokens either.
        let hash = self.hasher.hash(token);
        if bool::from(hash.ct_eq(&self.operator)) {
            return Ok(self.platform_identity(Caller::Operator));
        }
        if self.auditor.is_some_and(|auditor| bool::from(hash.ct_eq(&auditor))) {
            return Ok(self.platform_identity(Caller::Auditor));
        }
        let key = ApiKeyText::parse(token).map_err(|_| bad_credentials())?;
        let hash = self.hasher.hash(key.secret());
        let known = self.keys.find(key.public_id()).await?;
        let now = OffsetDateTime::now_utc();
        let matches = matches_secret(known.as_deref(), &hash, now);
        match known {
            Some(known) if matches => {
                self.keys.uses.note(&known, now);
                Ok(self.identity(&known))
            }
            _ => Err(bad_credentials()),
        }
    }

    /// For as long as the answer lives, the call ends when its key is revoked. None for callers without a key.
    pub fn enter(&self, caller: &Caller) -> Option<KeyInUse> {
        match caller {
            Caller::Tenant { public_id, .. } => Some(self.keys.running.enter(public_id)),
            Caller::Operator | Caller::Auditor => None,
        }
    }

    fn platform_identity(&self, caller: Caller) -> Identity {
        Identity {
            caller,
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
                public_id: known.public_id.clone(),
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

/// The same work for a key that is not known, and for one that was never rotated.
fn matches_secret(known: Option<&KnownKey>, hash: &[u8; 32], now: OffsetDateTime) -> bool {
    let (current, (previous, until)) = known.map_or(([0; 32], ([0; 32], now)), |known| {
        (known.secret_hash, known.previous_secret.unwrap_or(([0; 32], now)))
    });
    let matches = hash.ct_eq(&current) | (hash.ct_eq(&previous) & Choice::from(u8::from(until > now)));
    known.is_some() && bool::from(matches)
}

fn no_credentials() -> Fault {
    Fault::new(Reason::Unauthenticated, "credentials are missing: send metadata `authorization: Bearer <API key>`")
}

fn bad_credentials() -> Fault {
    Fault::new(Reason::Unauthenticated, "the credentials are not valid")
}
