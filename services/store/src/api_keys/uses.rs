//! When keys were last used: beside the keys, never in them.

use domain::{ApiKeyId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Platform, StoreError, connection::Scope};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub at: OffsetDateTime,
}

impl Platform {
    /// All of them in one transaction. A later use that is known already stays, and keys that are gone are passed over.
    pub async fn record_key_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        let tenants: Vec<Uuid> = uses.iter().map(|used| used.tenant.uuid()).collect();
        let keys: Vec<Uuid> = uses.iter().map(|used| used.key.uuid()).collect();
        let times: Vec<OffsetDateTime> = uses.iter().map(|used| used.at).collect();
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                // In one order for all writers, so that none waits for another in a circle.
                sqlx::query(
                    "insert into api_key_uses (tenant_id, api_key_id, used_at)
                     select k.tenant_id, k.id, max(u.at)
                       from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as u (tenant, key, at)
                       join api_keys k on k.tenant_id = u.tenant and k.id = u.key
                      group by k.tenant_id, k.id
                      order by k.tenant_id, k.id
                     on conflict on constraint api_key_uses_pkey
                     do update set used_at = greatest(api_key_uses.used_at, excluded.used_at)",
                )
                .bind(tenants)
                .bind(keys)
                .bind(times)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }
}
