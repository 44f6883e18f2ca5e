//! Pins: callers who get one version of an alias until a time, wherever the alias points meanwhile. Making and deleting
//! one changes the alias's etag, as every other change of what the alias means does.

use domain::{ApiKeyId, Digest, Slug, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{TenantScope, adapters, aliases};
use crate::{Resource, Stock, StoreError, rows::ReadRow};

/// Who is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pinned {
    /// All requests of the tenant.
    Tenant,
    /// By its public id.
    ApiKey(String),
    /// Requests with this routing key.
    RoutingKey(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub id: Uuid,
    pub who: Pinned,
    /// With [`Pinned::ApiKey`].
    pub api_key: Option<ApiKeyId>,
    pub digest: Digest,
    pub reason: String,
    /// Who made it.
    pub actor: String,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

#[derive(Clone, Debug)]
pub struct NewPin {
    pub who: Pinned,
    pub digest: Digest,
    pub reason: String,
    pub expires_at: OffsetDateTime,
}

impl TenantScope {
    /// Pins, in place of an earlier pin of the same caller. With an `etag` only if the alias still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for adapter, alias, version and API key, [`StoreError::Conflict`] for the etag,
    /// [`crate::Precondition::VersionRetired`], [`StoreError::QuotaExceeded`] beyond `pins_max` of the alias.
    pub async fn create_pin(
        &self,
        adapter: &Slug,
        alias: &Slug,
        new: NewPin,
        pins_max: u32,
        etag: Option<&str>,
    ) -> Result<Pin, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                aliases::expect(&mut transaction, self.id, adapter, alias, etag).await?;
                self.versions(adapter).lock_to_name(&mut transaction, new.digest).await?;
                clear(&mut transaction, self.id, adapter, alias, &new.who).await?;
                let used = count(&mut transaction, self.id, adapter, alias).await?;
                if used >= u64::from(pins_max) {
                    let max = u64::from(pins_max);
                    return Err(StoreError::QuotaExceeded { stock: Stock::Pins, max, used, wanted: 1 });
                }
                let api_key = match &new.who {
                    Pinned::ApiKey(public_id) => Some(key_id(&mut transaction, self.id, public_id).await?),
                    Pinned::Tenant | Pinned::RoutingKey(_) => None,
                };
                let pin = self.insert_pin(&mut transaction, adapter, alias, &new, api_key).await?;
                aliases::touch(&mut transaction, self.id, adapter, alias).await?;
                transaction.commit().await?;
                Ok(pin)
            })
            .await
    }

    /// Of an alias, oldest first; without those that are over.
    pub async fn list_pins(&self, adapter: &Slug, alias: &Slug) -> Result<Vec<Pin>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let rows = sqlx::query(
                    "select * from alias_pins
                      where tenant_id = $1 and adapter_id = $2 and alias = $3 and expires_at > now()
                      order by id",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(alias.as_str())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                rows.iter().map(read).collect()
            })
            .await
    }

    /// Errors: [`StoreError::NotFound`] for adapter, alias and pin, [`StoreError::Conflict`] for the etag.
    pub async fn delete_pin(
        &self,
        adapter: &Slug,
        alias: &Slug,
        pin: Uuid,
        etag: Option<&str>,
    ) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                aliases::expect(&mut transaction, self.id, adapter, alias, etag).await?;
                let deleted = sqlx::query(
                    "delete from alias_pins where tenant_id = $1 and adapter_id = $2 and alias = $3 and id = $4",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(alias.as_str())
                .bind(pin)
                .execute(&mut *transaction)
                .await?;
                if deleted.rows_affected() == 0 {
                    return Err(StoreError::not_found(Resource::Pin, pin));
                }
                aliases::touch(&mut transaction, self.id, adapter, alias).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    async fn insert_pin(
        &self,
        connection: &mut PgConnection,
        adapter: Uuid,
        alias: &Slug,
        new: &NewPin,
        api_key: Option<ApiKeyId>,
    ) -> Result<Pin, StoreError> {
        let row = sqlx::query(
            "insert into alias_pins (tenant_id, id, adapter_id, alias, kind, subject, api_key_id, digest, reason, actor,
                                     expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             returning *",
        )
        .bind(self.id.uuid())
        .bind(Uuid::now_v7())
        .bind(adapter)
        .bind(alias.as_str())
        .bind(new.who.kind())
        .bind(new.who.subject())
        .bind(api_key.map(ApiKeyId::uuid))
        .bind(new.digest.as_bytes().as_slice())
        .bind(&new.reason)
        .bind(self.actor())
        .bind(new.expires_at)
        .fetch_one(connection)
        .await?;
        read(&row)
    }
}

impl Pinned {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::ApiKey(_) => "api_key",
            Self::RoutingKey(_) => "routing_key",
        }
    }

    fn subject(&self) -> &str {
        match self {
            Self::Tenant => "",
            Self::ApiKey(subject) | Self::RoutingKey(subject) => subject,
        }
    }

    pub(super) fn read(row: &PgRow) -> Result<Self, StoreError> {
        let subject: String = row.try_get("subject")?;
        match row.try_get::<&str, _>("kind")? {
            "tenant" => Ok(Self::Tenant),
            "api_key" => Ok(Self::ApiKey(subject)),
            "routing_key" => Ok(Self::RoutingKey(subject)),
            other => Err(StoreError::unreadable(format!("`{other}` is no kind of pin"))),
        }
    }
}

/// Those that are over, and that of the same caller.
async fn clear(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
    who: &Pinned,
) -> Result<(), StoreError> {
    sqlx::query(
        "delete from alias_pins
          where tenant_id = $1 and adapter_id = $2 and alias = $3
            and (expires_at <= now() or kind = $4 and subject = $5)",
    )
    .bind(tenant.uuid())
    .bind(adapter)
    .bind(alias.as_str())
    .bind(who.kind())
    .bind(who.subject())
    .execute(connection)
    .await?;
    Ok(())
}

async fn count(
    connection: &mut PgConnection,
    tenant: TenantId,
    adapter: Uuid,
    alias: &Slug,
) -> Result<u64, StoreError> {
    let row =
        sqlx::query("select count(*) as pins from alias_pins where tenant_id = $1 and adapter_id = $2 and alias = $3")
            .bind(tenant.uuid())
            .bind(adapter)
            .bind(alias.as_str())
            .fetch_one(connection)
            .await?;
    row.count("pins")
}

async fn key_id(connection: &mut PgConnection, tenant: TenantId, public_id: &str) -> Result<ApiKeyId, StoreError> {
    let id: Option<Uuid> = sqlx::query_scalar("select id from api_keys where tenant_id = $1 and public_id = $2")
        .bind(tenant.uuid())
        .bind(public_id)
        .fetch_optional(connection)
        .await?;
    id.map(ApiKeyId::new).ok_or_else(|| StoreError::not_found(Resource::ApiKey, public_id))
}

fn read(row: &PgRow) -> Result<Pin, StoreError> {
    Ok(Pin {
        id: row.try_get("id")?,
        who: Pinned::read(row)?,
        api_key: row.try_get::<Option<Uuid>, _>("api_key_id")?.map(ApiKeyId::new),
        digest: row.digest("digest")?,
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}
