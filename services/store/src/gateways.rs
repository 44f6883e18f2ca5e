//! The gateways that read the change feed, and how far each has read. A gateway whose row is not renewed is gone, or cut
//! off from the database; either way nothing that it remembers holds for longer than it may.

use std::time::Duration;

use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Platform, StoreError, connection::Scope};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRow {
    /// Of the process: another one after every start.
    pub id: Uuid,
    pub name: String,
    pub started_at: OffsetDateTime,
    /// By the database's clock, as all times here.
    pub seen_at: OffsetDateTime,
    /// All changes up to this position hold in this gateway.
    pub seen_change: i64,
}

impl Platform {
    /// This gateway lives and has seen the changes up to here. `name` counts the first time; at most 256 characters.
    pub async fn gateway_seen(&self, id: Uuid, name: &str, seen_change: i64) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                sqlx::query(
                    "insert into gateways (id, name, seen_change) values ($1, left($2, 256), $3)
                     on conflict on constraint gateways_pkey
                     do update set seen_at = now(), seen_change = excluded.seen_change",
                )
                .bind(id)
                .bind(name)
                .bind(seen_change)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    /// It has stopped.
    pub async fn gateway_gone(&self, id: Uuid) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                sqlx::query("delete from gateways where id = $1").bind(id).execute(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    /// Those that were seen within this time, by start.
    pub async fn list_gateways(&self, seen_within: Duration) -> Result<Vec<GatewayRow>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let rows = sqlx::query(
                    "select * from gateways where seen_at >= now() - make_interval(secs => $1) order by started_at, id",
                )
                .bind(seen_within.as_secs_f64())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                rows.iter().map(read).collect()
            })
            .await
    }

    /// Forgets gateways that were not seen for so long.
    pub async fn prune_gateways(&self, unseen_for: Duration) -> Result<u64, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let pruned = sqlx::query("delete from gateways where seen_at < now() - make_interval(secs => $1)")
                    .bind(unseen_for.as_secs_f64())
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                Ok(pruned.rows_affected())
            })
            .await
    }
}

fn read(row: &PgRow) -> Result<GatewayRow, StoreError> {
    Ok(GatewayRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        started_at: row.try_get("started_at")?,
        seen_at: row.try_get("seen_at")?,
        seen_change: row.try_get("seen_change")?,
    })
}
