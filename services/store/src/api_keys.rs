//! API keys: the rows, and how they are read. The text form is `domain`'s, hashing and judging the gateway's.

mod known;
mod uses;

use std::time::Duration;

use domain::{ApiKeyId, KeyLimits, Role, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, PageOf, Precondition, Resource, StoreError,
    error::Violations,
    limits::{ReadLimits, bind_key_limits},
    rows::ReadRow,
};
pub use known::KnownKey;
pub use uses::KeyUse;

/// A key as its tenant may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// Not secret; the last segment of the key's name.
    pub public_id: String,
    pub role: Role,
    pub fields: ApiKeyFields,
    pub created_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
    /// Until when the secret before the last rotation is good, or was.
    pub previous_secret_expires_at: Option<OffsetDateTime>,
    /// Written a little late, and apart from the key.
    pub last_used_at: Option<OffsetDateTime>,
    /// Another one after every change.
    pub etag: String,
}

pub struct NewApiKey {
    pub public_id: String,
    /// HMAC-SHA256 of the secret.
    pub secret_hash: [u8; 32],
    pub role: Role,
    pub fields: ApiKeyFields,
}

/// What may be changed of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyFields {
    /// At most 256 characters.
    pub display_name: String,
    /// Present ones are above zero.
    pub limits: KeyLimits,
    /// Not empty; `None` is everything.
    pub models: Option<Vec<String>>,
    /// Not empty; `None` is everything.
    pub methods: Option<Vec<String>>,
    pub expires_at: Option<OffsetDateTime>,
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
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(tenant.uuid())
    .bind(Uuid::now_v7())
    .bind(&new.public_id)
    .bind(new.secret_hash.as_slice())
    .bind(&new.fields.display_name)
    .bind(new.role.as_str())
    .bind(new.fields.expires_at)
    .bind(&new.fields.models)
    .bind(&new.fields.methods);
    let made = bind_key_limits(query, &new.fields.limits).execute(&mut *connection).await;
    made.violations(|constraint| match constraint {
        "api_keys_public_id_key" => {
            Some(StoreError::AlreadyExists { what: Resource::ApiKey, name: new.public_id.clone() })
        }
        "api_keys_tenant_fkey" => Some(StoreError::not_found(Resource::Tenant, tenant)),
        _ => None,
    })?;
    get(connection, tenant, &new.public_id).await
}

pub(crate) async fn get(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
) -> Result<ApiKey, StoreError> {
    let row = sqlx::query(
        "select k.*, u.used_at
           from api_keys k left join api_key_uses u on u.tenant_id = k.tenant_id and u.api_key_id = k.id
          where k.tenant_id = $1 and k.public_id = $2",
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
        "select k.*, u.used_at
           from api_keys k left join api_key_uses u on u.tenant_id = k.tenant_id and u.api_key_id = k.id
          where k.tenant_id = $1 and ($2::uuid is null or k.id > $2)
          order by k.id
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

/// As the last change left it; until the end of the transaction nobody else changes it.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
    etag: Option<&str>,
) -> Result<ApiKey, StoreError> {
    sqlx::query("select from api_keys where tenant_id = $1 and public_id = $2 for update")
        .bind(tenant.uuid())
        .bind(public_id)
        .execute(&mut *connection)
        .await?;
    let key = get(connection, tenant, public_id).await?;
    match etag {
        Some(etag) if etag != key.etag => Err(StoreError::conflict(Resource::ApiKey, public_id)),
        _ => Ok(key),
    }
}

pub(crate) async fn update(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
    fields: &ApiKeyFields,
) -> Result<ApiKey, StoreError> {
    let query = sqlx::query(
        "update api_keys
            set display_name = $3, expires_at = $4, models = $5, methods = $6, revision = $7,
                requests_per_minute = $8, input_tokens_per_minute = $9, output_tokens_per_minute = $10,
                concurrent_requests = $11, budget_day_micros = $12, budget_month_micros = $13
          where tenant_id = $1 and public_id = $2",
    )
    .bind(tenant.uuid())
    .bind(public_id)
    .bind(&fields.display_name)
    .bind(fields.expires_at)
    .bind(&fields.models)
    .bind(&fields.methods)
    .bind(Uuid::now_v7());
    bind_key_limits(query, &fields.limits).execute(&mut *connection).await?;
    get(connection, tenant, public_id).await
}

/// Of a key that is locked.
pub(crate) async fn rotate(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
    secret_hash: &[u8; 32],
    overlap: Duration,
) -> Result<ApiKey, StoreError> {
    sqlx::query(
        "update api_keys
            set previous_secret_hash = secret_hash, previous_expires_at = now() + make_interval(secs => $4),
                secret_hash = $3, revision = $5
          where tenant_id = $1 and public_id = $2",
    )
    .bind(tenant.uuid())
    .bind(public_id)
    .bind(secret_hash.as_slice())
    .bind(overlap.as_secs_f64())
    .bind(Uuid::now_v7())
    .execute(&mut *connection)
    .await?;
    get(connection, tenant, public_id).await
}

/// A key that is revoked already is left as it is.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    tenant: TenantId,
    public_id: &str,
) -> Result<ApiKey, StoreError> {
    sqlx::query(
        "update api_keys set revoked_at = now(), revision = $3
          where tenant_id = $1 and public_id = $2 and revoked_at is null",
    )
    .bind(tenant.uuid())
    .bind(public_id)
    .bind(Uuid::now_v7())
    .execute(&mut *connection)
    .await?;
    get(connection, tenant, public_id).await
}

impl ApiKey {
    /// Errors: [`Precondition::KeyIsRevoked`].
    pub(crate) fn expect_not_revoked(&self) -> Result<(), StoreError> {
        match self.revoked_at {
            Some(_) => Err(StoreError::FailedPrecondition(Precondition::KeyIsRevoked)),
            None => Ok(()),
        }
    }
}

fn read(row: &PgRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: ApiKeyId::new(row.try_get("id")?),
        public_id: row.try_get("public_id")?,
        role: role(row)?,
        fields: ApiKeyFields {
            display_name: row.try_get("display_name")?,
            limits: row.key_limits("")?,
            models: row.try_get("models")?,
            methods: row.try_get("methods")?,
            expires_at: row.try_get("expires_at")?,
        },
        created_at: row.try_get("created_at")?,
        revoked_at: row.try_get("revoked_at")?,
        previous_secret_expires_at: row.try_get("previous_expires_at")?,
        last_used_at: row.try_get("used_at")?,
        etag: row.etag()?,
    })
}

fn role(row: &PgRow) -> Result<Role, StoreError> {
    row.try_get::<String, _>("role")?.parse().map_err(StoreError::unreadable)
}
