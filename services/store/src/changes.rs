//! The change feed: what has changed of that which gateways remember, in order. Triggers write it, in the transaction of
//! the change; `migrations/0007_changes.sql` says why a reader misses nothing.

use std::time::Duration;

use domain::TenantId;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{Platform, StoreError, connection::Scope};

/// One change. What it changed to is read where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// `None`: of no tenant in particular.
    pub tenant: Option<TenantId>,
    /// What has changed: see [`ChangeKind`].
    pub subject: String,
}

/// What the subject of a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A public id.
    ApiKey,
    /// A tenant's slug.
    Tenant,
    /// A plan's slug.
    Plan,
    /// An adapter's slug; also when one of its versions was deleted.
    Adapter,
    /// `<adapter>@<alias>`.
    Alias,
    /// What the prices are of.
    Price,
    /// Of a kind that this build does not know.
    Other,
}

/// What has changed since a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Up to where this tells everything; never below the position asked for, unless the feed itself is another one.
    pub position: i64,
    pub what: Changed,
    /// There is more behind `position`.
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    These(Vec<Change>),
    /// More than is still kept: anything may have changed.
    Anything,
}

impl Platform {
    /// The newest position: whoever has seen it has seen every change that was committed before this was asked.
    pub async fn change_head(&self) -> Result<i64, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let head = sqlx::query_scalar("select position from change_head").fetch_one(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(head)
            })
            .await
    }

    /// What has changed after `position`, oldest first, at most `limit` changes.
    pub async fn changes_after(&self, position: i64, limit: u16) -> Result<Changes, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let changes = after(&mut transaction, position, limit).await?;
                transaction.commit().await?;
                Ok(changes)
            })
            .await
    }

    /// Forgets changes that are older than this. Says how many they were.
    pub async fn prune_changes(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let pruned =
                    sqlx::query("delete from changes where created_at < clock_timestamp() - make_interval(secs => $1)")
                        .bind(older_than.as_secs_f64())
                        .execute(&mut *transaction)
                        .await?;
                transaction.commit().await?;
                Ok(pruned.rows_affected())
            })
            .await
    }
}

async fn after(connection: &mut PgConnection, position: i64, limit: u16) -> Result<Changes, StoreError> {
    // One statement, so one view of both.
    let rows = sqlx::query(
        "select h.position as head, c.position, c.kind, c.tenant_id, c.subject
           from change_head h
           left join lateral (select * from changes where position > $1 order by position limit $2) c on true
          order by c.position",
    )
    .bind(position)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let head: i64 = rows.first().map_or(Ok(position), |row| row.try_get("head"))?;
    let first: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get("position"))?;
    let last: Option<i64> = rows.last().map_or(Ok(None), |row| row.try_get("position"))?;
    match (first, last) {
        (None, _) if head == position => Ok(Changes { position, what: Changed::These(Vec::new()), more: false }),
        (Some(first), Some(last)) if first == position + 1 => {
            let changes = rows.iter().map(read).collect::<Result<_, _>>()?;
            Ok(Changes { position: last, what: Changed::These(changes), more: last < head })
        }
        // What lay between was pruned, or the database is another one than before.
        _ => Ok(Changes { position: head, what: Changed::Anything, more: false }),
    }
}

fn read(row: &PgRow) -> Result<Change, StoreError> {
    Ok(Change {
        kind: ChangeKind::of(row.try_get("kind")?),
        tenant: row.try_get::<Option<Uuid>, _>("tenant_id")?.map(TenantId::new),
        subject: row.try_get("subject")?,
    })
}

impl ChangeKind {
    fn of(text: &str) -> Self {
        match text {
            "api_key" => Self::ApiKey,
            "tenant" => Self::Tenant,
            "plan" => Self::Plan,
            "adapter" => Self::Adapter,
            "alias" => Self::Alias,
            "price" => Self::Price,
            _ => Self::Other,
        }
    }
}
