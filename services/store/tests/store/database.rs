//! A migrated database and a store on it.

use store::{Store, StoreConfig};
use tests::postgres::TestDatabase;

pub struct Database {
    pub store: Store,
    /// As the service connects.
    pub service_url: String,
    // Dropped last: its connections are cut then.
    pub database: TestDatabase,
}

impl Database {
    pub async fn new() -> Self {
        Self::with_pool(StoreConfig::default().pool_max).await
    }

    pub async fn with_pool(pool_max: u32) -> Self {
        Self::of(TestDatabase::new().await, pool_max).await
    }

    pub async fn of(database: TestDatabase, pool_max: u32) -> Self {
        store::migrate(&database.owner_url()).await.expect("migrate");
        let service_url = database.service_url(&["banyan_app", "banyan_platform"]).await;
        let config = StoreConfig { pool_max, ..StoreConfig::default() };
        let store = Store::connect(&service_url, &config).await.expect("connect");
        Self { store, service_url, database }
    }
}
