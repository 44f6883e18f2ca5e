//! What model names mean: versions, and how they share an alias's requests.

use domain::{ApiKeyId, BasisPoints, Digest, Slug, VersionSelector};
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Pinned, TenantScope, aliases};
use crate::{Page, PageOf, Precondition, Resource, StoreError, rows::ReadRow};

/// A model as a list shows it: an adapter that has a `live` alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub adapter: Slug,
    pub display_name: String,
    /// Where `live` points now.
    pub digest: Digest,
    pub base_digest: Digest,
    /// Of the alias.
    pub updated_at: OffsetDateTime,
}

/// What a model name means now, for whoever asks: which of it is chosen for a request is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub stable: RouteVersion,
    pub canary: Option<RoutePart>,
    pub shadow: Option<RoutePart>,
    pub pins: Vec<RoutePin>,
    /// Of the alias, for its life; nil for a version that was named by its digest.
    pub salt: Uuid,
    pub display_name: String,
    /// Of the alias, or of the version when it was named by digest.
    pub updated_at: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteVersion {
    pub digest: Digest,
    /// The base that the version was judged against.
    pub base_digest: Digest,
}

/// A version beside the stable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePart {
    pub version: RouteVersion,
    pub share: BasisPoints,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePin {
    pub who: Pinned,
    /// With [`Pinned::ApiKey`].
    pub api_key: Option<ApiKeyId>,
    pub version: RouteVersion,
    pub expires_at: OffsetDateTime,
}

const LIST: &str = "models";

const ALIAS: &str = "
    select a.id as adapter_id, a.display_name, l.updated_at, l.salt, false as retired,
           l.digest, v.base_digest,
           l.canary_digest, l.canary_weight, c.base_digest as canary_base_digest,
           l.shadow_digest, l.shadow_rate, s.base_digest as shadow_base_digest
      from tenants t
      join adapters a on a.tenant_id = t.id and a.slug = $3
      join aliases l on l.tenant_id = t.id and l.adapter_id = a.id and l.name = $4
      join adapter_versions v on v.tenant_id = t.id and v.adapter_id = a.id and v.digest = l.digest
      left join adapter_versions c on c.tenant_id = t.id and c.adapter_id = a.id and c.digest = l.canary_digest
      left join adapter_versions s on s.tenant_id = t.id and s.adapter_id = a.id and s.digest = l.shadow_digest
     where t.id = $1 and t.slug = $2";

const VERSION: &str = "
    select a.id as adapter_id, a.display_name, v.created_at as updated_at,
           '00000000-0000-0000-0000-000000000000'::uuid as salt, s.state = 'retired' as retired,
           v.digest, v.base_digest,
           null::bytea as canary_digest, null::integer as canary_weight, null::bytea as canary_base_digest,
           null::bytea as shadow_digest, null::integer as shadow_rate, null::bytea as shadow_base_digest
      from tenants t
      join adapters a on a.tenant_id = t.id and a.slug = $3
      join adapter_versions v on v.tenant_id = t.id and v.adapter_id = a.id and v.digest = $4
      join version_states s on s.tenant_id = t.id and s.adapter_id = a.id and s.digest = v.digest
     where t.id = $1 and t.slug = $2";

const PINS: &str = "
    select p.kind, p.subject, p.api_key_id, p.digest, p.expires_at, v.base_digest
      from alias_pins p
      join adapter_versions v using (tenant_id, adapter_id, digest)
     where p.tenant_id = $1 and p.adapter_id = $2 and p.alias = $3 and p.expires_at > now()
     order by p.id";

impl TenantScope {
    /// What `<tenant>/<adapter>@<version>` means. Another tenant's name is not found, whether it exists or not.
    ///
    /// Errors: [`StoreError::NotFound`]; [`Precondition::VersionRetired`] for a retired version that is named by its digest.
    pub async fn route(&self, tenant: &Slug, adapter: &Slug, version: &VersionSelector) -> Result<Route, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let row = match version {
                    VersionSelector::Alias(alias) => {
                        sqlx::query(ALIAS)
                            .bind(self.id.uuid())
                            .bind(tenant.as_str())
                            .bind(adapter.as_str())
                            .bind(alias.as_str())
                            .fetch_optional(&mut *transaction)
                            .await?
                    }
                    VersionSelector::Digest(digest) => {
                        sqlx::query(VERSION)
                            .bind(self.id.uuid())
                            .bind(tenant.as_str())
                            .bind(adapter.as_str())
                            .bind(digest.as_bytes().as_slice())
                            .fetch_optional(&mut *transaction)
                            .await?
                    }
                };
                let row = row.ok_or_else(|| StoreError::not_found(Resource::Model, format!("{tenant}/{adapter}")))?;
                let pins = match version {
                    VersionSelector::Alias(alias) => {
                        sqlx::query(PINS)
                            .bind(self.id.uuid())
                            .bind(row.try_get::<Uuid, _>("adapter_id")?)
                            .bind(alias.as_str())
                            .fetch_all(&mut *transaction)
                            .await?
                    }
                    VersionSelector::Digest(_) => Vec::new(),
                };
                transaction.commit().await?;
                read_route(&row, &pins)
            })
            .await
    }

    /// By adapter.
    pub async fn list_models(&self, page: &Page) -> Result<PageOf<Model>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let rows = sqlx::query(
                    "select a.slug, a.display_name, v.digest, v.base_digest, l.updated_at
                       from adapters a
                       join aliases l on l.tenant_id = a.tenant_id and l.adapter_id = a.id and l.name = $4
                       join adapter_versions v
                         on v.tenant_id = a.tenant_id and v.adapter_id = a.id and v.digest = l.digest
                      where a.tenant_id = $1 and ($2::text is null or a.slug > $2)
                      order by a.slug
                      limit $3",
                )
                .bind(self.id.uuid())
                .bind(page.after(LIST)?)
                .bind(page.fetch())
                .bind(VersionSelector::LIVE)
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                let models = rows.iter().map(read).collect::<Result<_, _>>()?;
                Ok(page.cut(LIST, models, |model: &Model| model.adapter.to_string()))
            })
            .await
    }
}

fn read_route(row: &PgRow, pins: &[PgRow]) -> Result<Route, StoreError> {
    if row.try_get("retired")? {
        return Err(StoreError::FailedPrecondition(Precondition::VersionRetired));
    }
    let part = |digest: &str, share: &str, base: &str| -> Result<Option<RoutePart>, StoreError> {
        let Some(part) = aliases::part(row, digest, share)? else { return Ok(None) };
        let version = RouteVersion { digest: part.digest, base_digest: row.digest(base)? };
        Ok(Some(RoutePart { version, share: part.share }))
    };
    Ok(Route {
        stable: read_version(row)?,
        canary: part("canary_digest", "canary_weight", "canary_base_digest")?,
        shadow: part("shadow_digest", "shadow_rate", "shadow_base_digest")?,
        pins: pins.iter().map(read_pin).collect::<Result<_, _>>()?,
        salt: row.try_get("salt")?,
        display_name: row.try_get("display_name")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn read_version(row: &PgRow) -> Result<RouteVersion, StoreError> {
    Ok(RouteVersion { digest: row.digest("digest")?, base_digest: row.digest("base_digest")? })
}

fn read_pin(row: &PgRow) -> Result<RoutePin, StoreError> {
    Ok(RoutePin {
        who: Pinned::read(row)?,
        api_key: row.try_get::<Option<Uuid>, _>("api_key_id")?.map(ApiKeyId::new),
        version: read_version(row)?,
        expires_at: row.try_get("expires_at")?,
    })
}

fn read(row: &PgRow) -> Result<Model, StoreError> {
    Ok(Model {
        adapter: row.slug("slug")?,
        display_name: row.try_get("display_name")?,
        digest: row.digest("digest")?,
        base_digest: row.digest("base_digest")?,
        updated_at: row.try_get("updated_at")?,
    })
}
