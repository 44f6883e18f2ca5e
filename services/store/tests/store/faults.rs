//! A PostgreSQL that crashes, that is not there, that has an old schema, and that says nothing.

use std::time::{Duration, Instant};

use store::{Page, Store, StoreConfig, StoreError};
use tests::postgres::{PostgresServer, TestDatabase};

use crate::{
    database::Database,
    suite::{adapter, push, tenant},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_loses_no_committed_row_and_needs_no_restart_of_ours() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.expect("start");
    let database = Database::of(TestDatabase::on(&server.url()).await, 4).await;
    let (own, _) = tenant(&database.store).await;
    let claims = adapter(&own, "claims").await;
    push(&own, &claims, 1, Some("live")).await;
    // Fill the pool, so that every one of its connections dies.
    let page = Page::first(10);
    let busy = (0..8).map(|_| {
        let (own, page) = (own.clone(), page.clone());
        tokio::spawn(async move { own.list_adapters(&page).await })
    });
    for listed in busy.collect::<Vec<_>>() {
        listed.await.expect("join").expect("list");
    }
    tokio::task::block_in_place(|| server.crash());
    assert!(matches!(own.get_adapter(&claims).await, Err(StoreError::Unavailable(_))));
    tokio::task::block_in_place(|| server.resume());
    assert_eq!(own.get_adapter(&claims).await.expect("the first call after the restart").aliases.len(), 1);
    drop(database);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_within_the_time_set() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let start = Instant::now();
    let config = StoreConfig { acquire_timeout_ms: 300, ..StoreConfig::default() };
    let refused = Store::connect(&format!("postgresql://nobody@{closed}/none"), &config).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(start.elapsed() < config_timeout(&config));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unavailable_within_the_time_set() {
    // Accepts (the kernel does) and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("postgresql://nobody@{}/none", silent.local_addr().expect("address"));
    let config = StoreConfig { acquire_timeout_ms: 300, ..StoreConfig::default() };
    let start = Instant::now();
    let refused = Store::connect(&url, &config).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(start.elapsed() < config_timeout(&config));
}

#[tokio::test]
async fn a_database_without_our_schema_is_refused_with_what_to_do() {
    let database = TestDatabase::new().await;
    // The cluster's roles may not be there yet either: made by the first migration of any database.
    let other = TestDatabase::new().await;
    store::migrate(&other.owner_url()).await.expect("migrate the other one");
    let url = database.service_url(&["banyan_app", "banyan_platform"]).await;
    let refused = Store::connect(&url, &StoreConfig::default()).await.expect_err("no schema");
    assert!(matches!(refused, StoreError::SchemaBehind { found: 0, .. }), "{refused:?}");
    assert!(refused.to_string().contains("run the migrations"), "{refused}");
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let database = Database::new().await;
    database.store.close().await;
    assert!(matches!(database.store.ready().await, Err(StoreError::Unavailable(_))));
}

/// Generous against a busy machine, and far below what waiting for the operating system would take.
fn config_timeout(config: &StoreConfig) -> Duration {
    Duration::from_millis(config.acquire_timeout_ms) + Duration::from_secs(20)
}
