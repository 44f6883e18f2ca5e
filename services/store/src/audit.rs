//! The audit trail. Triggers write what was changed (`migrations/0012_audit.sql`), in the transaction of the change; what
//! this adds is who acts, the refusals, and reading it.

mod actor;

use domain::{AuditChain, AuditLink, ChainHead, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{Page, PageOf, Platform, Store, StoreError, TenantScope, connection::Scope, rows::ReadRow};
pub use actor::{Actor, Who};

/// A change that was asked for and refused.
#[derive(Clone, Debug)]
pub struct RefusedChange {
    /// The machine-readable reason.
    pub reason: &'static str,
    /// What it was about; empty when it was refused before that was known.
    pub resource: String,
    /// Refusals before this one that were not recorded, because they were too many.
    pub unrecorded: u64,
}

const LIST: &str = "auditEntries";

impl Store {
    /// The same rows, and what is written through it is done by `actor`.
    #[must_use]
    pub fn acting(&self, actor: &Actor) -> Self {
        let mut acting = self.clone();
        acting.actor = Some(actor.json().into());
        acting
    }
}

impl TenantScope {
    /// In the tenant's chain.
    pub async fn record_refusal(&self, refused: &RefusedChange) -> Result<(), StoreError> {
        record_refusal(&self.store, Scope::Tenant(self.id), refused).await
    }

    /// The tenant's chain, newest first.
    pub async fn list_audit(&self, page: &Page) -> Result<PageOf<AuditLink>, StoreError> {
        list(&self.store, Scope::Tenant(self.id), AuditChain::Tenant(self.id), page).await
    }

    /// Links of the tenant's chain after this position, oldest first.
    pub async fn audit_after(&self, position: u64, limit: u16) -> Result<Vec<AuditLink>, StoreError> {
        after(&self.store, Scope::Tenant(self.id), AuditChain::Tenant(self.id), position, limit).await
    }

    /// The newest link of the tenant's chain, as it is kept apart. `None`: nothing was ever recorded.
    pub async fn audit_head(&self) -> Result<Option<ChainHead>, StoreError> {
        head(&self.store, Scope::Tenant(self.id), AuditChain::Tenant(self.id)).await
    }
}

/// The platform's chain, as [`TenantScope`] has the tenant's.
impl Platform {
    pub async fn record_refusal(&self, refused: &RefusedChange) -> Result<(), StoreError> {
        record_refusal(&self.store, Scope::Platform, refused).await
    }

    pub async fn list_audit(&self, page: &Page) -> Result<PageOf<AuditLink>, StoreError> {
        list(&self.store, Scope::Platform, AuditChain::Platform, page).await
    }

    pub async fn audit_after(&self, position: u64, limit: u16) -> Result<Vec<AuditLink>, StoreError> {
        after(&self.store, Scope::Platform, AuditChain::Platform, position, limit).await
    }

    pub async fn audit_head(&self) -> Result<Option<ChainHead>, StoreError> {
        head(&self.store, Scope::Platform, AuditChain::Platform).await
    }
}

async fn record_refusal(store: &Store, scope: Scope, refused: &RefusedChange) -> Result<(), StoreError> {
    let mut entry = serde_json::json!({ "reason": refused.reason, "resource": refused.resource });
    if refused.unrecorded > 0 {
        entry["unrecorded"] = refused.unrecorded.into();
    }
    store
        .bounded(async {
            let mut transaction = store.begin(scope).await?;
            sqlx::query("select append_audit_refusal($1)").bind(&entry).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
}

async fn list(store: &Store, scope: Scope, chain: AuditChain, page: &Page) -> Result<PageOf<AuditLink>, StoreError> {
    let before = page.after(LIST)?.map(|key| key.parse::<i64>()).transpose();
    let before = before.map_err(|_| StoreError::InvalidPageToken)?;
    store
        .bounded(async {
            let mut transaction = store.begin(scope).await?;
            let rows = sqlx::query(
                "select * from audit_entries
                  where chain = $1 and ($2::bigint is null or position < $2) order by position desc limit $3",
            )
            .bind(chain.id())
            .bind(before)
            .bind(page.fetch())
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let links = rows.iter().map(read).collect::<Result<_, _>>()?;
            Ok(page.cut(LIST, links, |link: &AuditLink| link.position.to_string()))
        })
        .await
}

async fn after(
    store: &Store,
    scope: Scope,
    chain: AuditChain,
    position: u64,
    limit: u16,
) -> Result<Vec<AuditLink>, StoreError> {
    store
        .bounded(async {
            let mut transaction = store.begin(scope).await?;
            let links = links_after(&mut transaction, chain, position, limit).await?;
            transaction.commit().await?;
            Ok(links)
        })
        .await
}

async fn links_after(
    connection: &mut PgConnection,
    chain: AuditChain,
    position: u64,
    limit: u16,
) -> Result<Vec<AuditLink>, StoreError> {
    let rows = sqlx::query("select * from audit_entries where chain = $1 and position > $2 order by position limit $3")
        .bind(chain.id())
        .bind(crate::rows::bigint(position))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

async fn head(store: &Store, scope: Scope, chain: AuditChain) -> Result<Option<ChainHead>, StoreError> {
    store
        .bounded(async {
            let mut transaction = store.begin(scope).await?;
            let row = sqlx::query("select position, hash from audit_heads where chain = $1")
                .bind(chain.id())
                .fetch_optional(&mut *transaction)
                .await?;
            transaction.commit().await?;
            row.map(|row| Ok(ChainHead { position: row.count("position")?, hash: row.digest("hash")? })).transpose()
        })
        .await
}

fn read(row: &PgRow) -> Result<AuditLink, StoreError> {
    Ok(AuditLink {
        chain: chain(row.try_get("tenant_id")?),
        position: row.count("position")?,
        content: row.try_get("content")?,
        previous_hash: row.digest("previous_hash")?,
        hash: row.digest("hash")?,
    })
}

fn chain(tenant: Option<Uuid>) -> AuditChain {
    tenant.map_or(AuditChain::Platform, |tenant| AuditChain::Tenant(TenantId::new(tenant)))
}
