//! What admission needs of a key: looked up before its tenant is known, for many keys at once.

use std::fmt;

use domain::{ApiKeyId, KeyLimits, Outage, Role, Share, Slug, TenantId, TenantLimits};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::role;
use crate::{Store, StoreError, connection::Scope, limits::ReadLimits, rows::ReadRow};

/// The key, its hashes to compare with, and its tenant.
#[derive(Clone)]
pub struct KnownKey {
    pub id: ApiKeyId,
    /// By which it was asked for.
    pub public_id: String,
    pub secret_hash: [u8; 32],
    /// Of the secret before the last rotation, and until when that is good too.
    pub previous_secret: Option<([u8; 32], OffsetDateTime)>,
    pub role: Role,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
    pub tenant: TenantId,
    pub tenant_slug: Slug,
    pub share_group: Uuid,
    /// The tenant's, with its plan's filled in.
    pub limits: TenantLimits,
    /// The key's own, beside the tenant's.
    pub key_limits: KeyLimits,
    /// What the key may be used for; `None` is everything.
    pub models: Option<Vec<String>>,
    pub methods: Option<Vec<String>>,
    pub share: Share,
    pub outage: Outage,
}

impl Store {
    /// One of [`Store::find_api_keys`].
    pub async fn find_api_key(&self, public_id: &str) -> Result<Option<KnownKey>, StoreError> {
        Ok(self.find_api_keys(&[public_id]).await?.pop())
    }

    /// The keys with these public ids and what admission needs to know of their tenants, in no order; expired and revoked
    /// keys too: the caller judges.
    pub async fn find_api_keys(&self, public_ids: &[&str]) -> Result<Vec<KnownKey>, StoreError> {
        self.bounded(async {
            let mut transaction = self.begin(Scope::Nobody).await?;
            let found = find(&mut transaction, public_ids).await?;
            transaction.commit().await?;
            Ok(found)
        })
        .await
    }
}

impl fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownKey({} of {})", self.id, self.tenant_slug)
    }
}

async fn find(connection: &mut PgConnection, public_ids: &[&str]) -> Result<Vec<KnownKey>, StoreError> {
    let rows = sqlx::query("select * from find_api_keys($1)").bind(public_ids).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<KnownKey, StoreError> {
    let hash = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(StoreError::unreadable);
    let previous: Option<&[u8]> = row.try_get("previous_secret_hash")?;
    let previous_expires_at: Option<OffsetDateTime> = row.try_get("previous_expires_at")?;
    Ok(KnownKey {
        id: ApiKeyId::new(row.try_get("id")?),
        public_id: row.try_get("public_id")?,
        secret_hash: hash(row.try_get("secret_hash")?)?,
        previous_secret: previous.map(hash).transpose()?.zip(previous_expires_at),
        role: role(row)?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        tenant: TenantId::new(row.try_get("tenant_id")?),
        tenant_slug: row.slug("tenant_slug")?,
        share_group: row.try_get("share_group")?,
        limits: row.tenant_limits()?,
        key_limits: row.key_limits("key_")?,
        models: row.try_get("models")?,
        methods: row.try_get("methods")?,
        share: row.share()?,
        outage: row.outage()?,
    })
}
