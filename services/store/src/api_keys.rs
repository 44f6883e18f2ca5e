//! API keys: the rows, and how they are read. The text form is `domain`'s, hashing and judging the gateway's.

use std::fmt;

use domain::{ApiKeyId, KeyLimits, Outage, Role, Share, Slug, TenantId, TenantLimits};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, PageOf, Resource, StoreError,
    error::Violations,
    limits::{ReadLimits, bind_key_limits},
    rows::ReadRow,
};

/// A key as its tenant may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// Not secret; the last segment of the key's name.
    pub public_id: String,
    pub display_name: String,
    pub role: Role,
    pub limits: KeyLimits,
    /// What it may be used for; `None` is everything.
    pub models: Option<Vec<String>>,
    pub methods: Option<Vec<String>>,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

pub struct NewApiKey {
    pub public_id: String,
    /// HMAC-SHA256 of the secret.
    pub secret_hash: [u8; 32],
    /// At most 256 characters.
    pub display_name: String,
    pub role: Role,
    /// Present ones are above zero.
    pub limits: KeyLimits,
    /// Not empty; `None` is everything.
    pub models: Option<Vec<String>>,
    /// Not empty; `None` is everything.
    pub methods: Option<Vec<String>>,
    pub expires_at: Option<OffsetDateTime>,
}

/// What admission needs: the key, its hash to compare with, and its tenant.
#[derive(Clone)]
pub struct KnownKey {
    pub id: ApiKeyId,
    pub secret_hash: [u8; 32],
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

impl fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownKey({} of {})", self.id, self.tenant_slug)
    }
}

const LIST: &str = "apiKeys";

pub(crate) async fn create(
    connection: &mut PgConnection,
    tenant: TenantId,
    new: &NewApiKey,
) -> Result<ApiKey, StoreError> {
    let query = sqlx::query(
        "insert into api_keys (tenant_id, id, public_id, secret_hash, display_name, role, expires_at, models, methods,
                               requests_per_minute, input_tokens_per_minute, output_tokens_per_minute,
                               concurrent_requests, budget_day_micros, budget_month_micros)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         returning *",
    )
    .bind(tenant.uuid())
    .bind(Uuid::now_v7())
    .bind(&new.public_id)
    .bind(new.secret_hash.as_slice())
    .bind(&new.display_name)
    .bind(new.role.as_str())
    .bind(new.expires_at)
    .bind(&new.models)
    .bind(&new.methods);
    let row =
        bind_key_limits(query, &new.limits).fetch_one(connection).await.violations(|constraint| match constraint {
            "api_keys_public_id_key" => {
                Some(StoreError::AlreadyExists { what: Resource::ApiKey, name: new.public_id.clone() })
            }
            "api_keys_tenant_fkey" => Some(StoreError::not_found(Resource::Tenant, tenant)),
            _ => None,
        })?;
    read(&row)
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
) -> Result<ApiKey, StoreError> {
    let row = sqlx::query(
        "select *
           from api_keys where tenant_id = $1 and public_id = $2",
    )
    .bind(tenant.uuid())
    .bind(public_id)
    .fetch_optional(connection)
    .await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::ApiKey, public_id))?)
}

/// Oldest first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    page: &Page,
) -> Result<PageOf<ApiKey>, StoreError> {
    let after = page.after(LIST)?.map(|key| Uuid::parse_str(&key)).transpose();
    let rows = sqlx::query(
        "select *
           from api_keys
          where tenant_id = $1 and ($2::uuid is null or id > $2)
          order by id
          limit $3",
    )
    .bind(tenant.uuid())
    .bind(after.map_err(|_| StoreError::InvalidPageToken)?)
    .bind(page.fetch())
    .fetch_all(connection)
    .await?;
    let keys = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, keys, |key: &ApiKey| key.id.to_string()))
}

/// A key that is revoked already keeps the time of its first revocation.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
) -> Result<ApiKey, StoreError> {
    let row = sqlx::query(
        "update api_keys set revoked_at = coalesce(revoked_at, now())
          where tenant_id = $1 and public_id = $2
         returning *",
    )
    .bind(tenant.uuid())
    .bind(public_id)
    .fetch_optional(connection)
    .await?;
    read(&row.ok_or_else(|| StoreError::not_found(Resource::ApiKey, public_id))?)
}

pub(crate) async fn find(connection: &mut PgConnection, public_id: &str) -> Result<Option<KnownKey>, StoreError> {
    let row = sqlx::query("select * from find_api_key($1)").bind(public_id).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let hash: &[u8] = row.try_get("secret_hash")?;
    Ok(Some(KnownKey {
        id: ApiKeyId::new(row.try_get("id")?),
        secret_hash: hash.try_into().map_err(StoreError::unreadable)?,
        role: role(&row)?,
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
    }))
}

fn read(row: &PgRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: ApiKeyId::new(row.try_get("id")?),
        public_id: row.try_get("public_id")?,
        display_name: row.try_get("display_name")?,
        role: role(row)?,
        limits: row.key_limits("")?,
        models: row.try_get("models")?,
        methods: row.try_get("methods")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

fn role(row: &PgRow) -> Result<Role, StoreError> {
    row.try_get::<String, _>("role")?.parse().map_err(StoreError::unreadable)
}
