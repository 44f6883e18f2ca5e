//! Brings a database to the schema that this build was written for. Takes the owner's rights, where the rest of the crate
//! takes none.

use sqlx::{PgConnection, migrate::Migrator, postgres::PgPoolOptions};

use crate::{StoreError, error::unavailable};

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Applies every migration that `url`'s database lacks, each in its own transaction, on one connection that is closed
/// again before this returns. Safe to run in several processes at once: they take turns.
pub async fn migrate(url: &str) -> Result<(), StoreError> {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.map_err(unavailable)?;
    let outcome = MIGRATOR.run(&pool).await.map_err(|error| StoreError::Migration(Box::new(error)));
    pool.close().await;
    outcome
}

/// The schema must be at least as new as this build; a newer one is fine, since migrations expand before they contract.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    let newest = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
    let found: Result<Option<i64>, sqlx::Error> =
        sqlx::query_scalar("select max(version) from _sqlx_migrations where success").fetch_one(connection).await;
    match found {
        Ok(Some(version)) if version >= newest => Ok(()),
        Ok(version) => Err(StoreError::SchemaBehind { found: version.unwrap_or_default(), wanted: newest }),
        // 42P01: the table does not exist.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => {
            Err(StoreError::SchemaBehind { found: 0, wanted: newest })
        }
        Err(error) => Err(error.into()),
    }
}
