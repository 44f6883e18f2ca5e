//! Model names to versions: the look-up of every request.

use domain::{Digest, Slug, VersionSelector};
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;

use super::TenantScope;
use crate::{Page, PageOf, Resource, StoreError, rows::ReadRow};

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

/// What a model name means now; the digest is pinned from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    pub digest: Digest,
    /// The base that the version was judged against.
    pub base_digest: Digest,
    pub size_bytes: u64,
    pub display_name: String,
    /// Of the alias, or of the version when it was named by digest.
    pub updated_at: OffsetDateTime,
}

const LIST: &str = "models";

impl TenantScope {
    /// Resolves `<tenant>/<adapter>@<version>`. Another tenant's name is not found, whether it exists or not.
    pub async fn resolve(
        &self,
        tenant: &Slug,
        adapter: &Slug,
        version: &VersionSelector,
    ) -> Result<ResolvedModel, StoreError> {
        let (alias, digest) = match version {
            VersionSelector::Alias(alias) => (Some(alias.as_str()), None),
            VersionSelector::Digest(digest) => (None, Some(digest.as_bytes().as_slice())),
        };
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let row = sqlx::query(
                    "select v.digest, v.base_digest, v.size_bytes, a.display_name,
                            coalesce(l.updated_at, v.created_at) as updated_at
                       from tenants t
                       join adapters a on a.tenant_id = t.id and a.slug = $3
                       left join aliases l on l.tenant_id = t.id and l.adapter_id = a.id and l.name = $4
                       join adapter_versions v
                         on v.tenant_id = t.id and v.adapter_id = a.id and v.digest = coalesce($5, l.digest)
                      where t.id = $1 and t.slug = $2",
                )
                .bind(self.id.uuid())
                .bind(tenant.as_str())
                .bind(adapter.as_str())
                .bind(alias)
                .bind(digest)
                .fetch_optional(&mut *transaction)
                .await?;
                transaction.commit().await?;
                let row = row.ok_or_else(|| StoreError::not_found(Resource::Model, format!("{tenant}/{adapter}")))?;
                Ok(ResolvedModel {
                    digest: row.digest("digest")?,
                    base_digest: row.digest("base_digest")?,
                    size_bytes: row.count("size_bytes")?,
                    display_name: row.try_get("display_name")?,
                    updated_at: row.try_get("updated_at")?,
                })
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

fn read(row: &PgRow) -> Result<Model, StoreError> {
    Ok(Model {
        adapter: row.slug("slug")?,
        display_name: row.try_get("display_name")?,
        digest: row.digest("digest")?,
        base_digest: row.digest("base_digest")?,
        updated_at: row.try_get("updated_at")?,
    })
}
