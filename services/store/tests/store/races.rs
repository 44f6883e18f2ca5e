//! What happens when two do it at the same time.

use store::{Page, StoreError};
use tokio::task::JoinSet;

use crate::{
    database::Database,
    suite::{LEASE, adapter, digest, new_version, push, slug, tenant},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_moves_from_the_same_etag_one_wins() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    for byte in 1..=3 {
        push(&own, &claims, byte, None).await;
    }
    own.move_alias(&claims, &live, digest(1), None).await.expect("make");
    for _ in 0..20 {
        let seen = own.get_adapter(&claims).await.expect("get").aliases.remove(0);
        let targets: Vec<_> = (1..=3).map(digest).filter(|target| *target != seen.digest).collect();
        let moves = targets.iter().map(|target| own.move_alias(&claims, &live, *target, Some(&seen.etag)));
        let [first, second] = <[_; 2]>::try_from(moves.collect::<Vec<_>>()).map_err(drop).expect("two moves");
        let outcomes = tokio::join!(first, second);
        let won = match outcomes {
            (Ok(won), Err(StoreError::Conflict { .. })) | (Err(StoreError::Conflict { .. }), Ok(won)) => won,
            other => panic!("one wins and one conflicts: {other:?}"),
        };
        assert_eq!(won.previous_digest, Some(seen.digest));
        assert_eq!(own.get_adapter(&claims).await.expect("get").aliases, [won]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_many_make_at_once_is_made_once_and_moved_by_the_rest() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let claims = adapter(&own, "claims").await;
    let mut pushes = JoinSet::new();
    for byte in 1..=8 {
        let (own, claims) = (own.clone(), claims.clone());
        pushes.spawn(async move { push(&own, &claims, byte, Some("live")).await });
    }
    let inserted = pushes.join_all().await;
    assert!(inserted.iter().all(|inserted| inserted.is_new));
    let alias = own.get_adapter(&claims).await.expect("get").aliases.remove(0);
    assert!(inserted.iter().any(|inserted| inserted.alias.as_ref() == Some(&alias)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stocks_hold_however_many_take_from_them_at_once() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let mut takers = JoinSet::new();
    for byte in 0..12_u8 {
        let own = own.clone();
        takers.spawn(async move {
            let adapter = own.create_adapter(&slug(&format!("adapter-{byte}")), "", 5).await.is_ok();
            let bytes = own.reserve_blob(digest(byte), 100, 300, LEASE).await.is_ok();
            (adapter, bytes)
        });
    }
    let taken = takers.join_all().await;
    assert_eq!(taken.iter().filter(|(adapter, _)| *adapter).count(), 5);
    assert_eq!(taken.iter().filter(|(_, bytes)| *bytes).count(), 3);
    let used = own.used_stock().await.expect("count");
    assert_eq!((used.adapters, used.adapter_bytes), (5, 300));
}

/// The files of a version that exists must never be handed over to deletion, however its inserts and deletes interleave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_interleaving_of_insert_and_delete_gives_away_files_in_use() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let names = ["one", "two", "three"].map(slug);
    for name in &names {
        adapter(&own, name.as_str()).await;
    }
    let mut workers = JoinSet::new();
    for name in names.clone() {
        let (own, platform) = (own.clone(), database.store.platform());
        workers.spawn(async move {
            for _ in 0..25 {
                // Each of these may be refused because of what the others do; none may fail otherwise.
                tolerate(own.reserve_blob(digest(1), 1_000, u64::MAX, LEASE).await);
                tolerate(own.insert_version(&name, new_version(1), None).await);
                tolerate(own.delete_version(&name, digest(1)).await);
                tolerate(own.reserve_blob(digest(1), 1_000, u64::MAX, LEASE).await);
                tolerate(own.insert_version(&name, new_version(1), None).await);
                for deletion in platform.claim_blob_deletions(10, LEASE).await.expect("claim") {
                    // While somebody deletes the files, no version may name them.
                    for adapter in ["one", "two", "three"].map(slug) {
                        let versions = own.list_versions(&adapter, &Page::first(9)).await.expect("list").items;
                        assert!(versions.is_empty(), "files of {adapter} are being deleted");
                    }
                    assert!(platform.finish_blob_deletion(&deletion).await.expect("finish"));
                }
            }
        });
    }
    workers.join_all().await;
}

fn tolerate<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    match outcome {
        Ok(_) | Err(StoreError::FailedPrecondition(_) | StoreError::NotFound { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_deleted_whole_while_versions_are_pushed() {
    let database = Database::new().await;
    let (own, name) = tenant(&database.store).await;
    let claims = adapter(&own, "claims").await;
    let pusher = {
        let (own, claims) = (own.clone(), claims.clone());
        tokio::spawn(async move {
            for byte in 0..=255 {
                if own.reserve_blob(digest(byte), 1, u64::MAX, LEASE).await.is_err() {
                    break;
                }
                match own.insert_version(&claims, new_version(byte), Some(&slug("live"))).await {
                    Ok(_) => {}
                    Err(StoreError::NotFound { .. }) => break,
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    };
    while own.list_versions(&claims, &Page::first(9)).await.expect("list").items.len() < 5 {
        tokio::task::yield_now().await;
    }
    let platform = database.store.platform();
    platform.delete_tenant(&name, store::DeleteTenant::WithAdapters).await.expect("delete");
    pusher.await.expect("the pusher sees that the adapter is gone");
    assert!(matches!(own.get_adapter(&claims).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_may_migrate_at_once() {
    let (one, two) = (tests::postgres::TestDatabase::new().await, tests::postgres::TestDatabase::new().await);
    let mut migrations = JoinSet::new();
    for url in [one.owner_url(), two.owner_url(), one.owner_url(), two.owner_url()] {
        migrations.spawn(async move { store::migrate(&url).await });
    }
    for outcome in migrations.join_all().await {
        outcome.expect("migrate");
    }
}
