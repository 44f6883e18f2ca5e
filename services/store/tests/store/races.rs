//! What happens when two do it at the same time.

use domain::AliasChange;
use store::{Page, StoreError};
use tokio::task::JoinSet;

use crate::{
    database::Database,
    suite::{self, LEASE, adapter, digest, new_version, push, slug, tenant},
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
        let targets: Vec<_> = (1..=3).map(digest).filter(|target| *target != seen.targets.stable).collect();
        let moves = targets.iter().map(|target| own.move_alias(&claims, &live, *target, Some(&seen.etag)));
        let [first, second] = <[_; 2]>::try_from(moves.collect::<Vec<_>>()).map_err(drop).expect("two moves");
        let outcomes = tokio::join!(first, second);
        let won = match outcomes {
            (Ok(won), Err(StoreError::Conflict { .. })) | (Err(StoreError::Conflict { .. }), Ok(won)) => won,
            other => panic!("one wins and one conflicts: {other:?}"),
        };
        assert_eq!(won.targets.previous, Some(seen.targets.stable));
        assert_eq!(own.get_adapter(&claims).await.expect("get").aliases, [won]);
    }
}

/// Whatever two operators do to an alias, neither overwrites what the other did and has not seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_changes_of_a_rollout_from_the_same_etag_one_wins() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    for byte in 2..=3 {
        push(&own, &claims, byte, None).await;
    }
    let half = domain::BasisPoints::new(5_000).expect("in range");
    let canary = |byte| AliasChange::Canary(domain::Part { digest: digest(byte), share: half });
    for _ in 0..20 {
        let seen = own.change_alias(&claims, &live, canary(2), None).await.expect("begin");
        let mut writers = JoinSet::new();
        for change in [AliasChange::Promote, AliasChange::ClearCanary, canary(3), AliasChange::Move(digest(3))] {
            let (own, claims, live, etag) = (own.clone(), claims.clone(), live.clone(), seen.etag.clone());
            writers.spawn(async move { own.change_alias(&claims, &live, change, Some(&etag)).await });
        }
        let outcomes = writers.join_all().await;
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let lost = |outcome: &Result<_, StoreError>| matches!(outcome, Err(StoreError::Conflict { .. }));
        assert_eq!(outcomes.iter().filter(|outcome| lost(outcome)).count(), 3, "{outcomes:?}");
        assert_eq!(own.get_alias(&claims, &live).await.expect("get"), *won[0]);
        own.move_alias(&claims, &live, digest(1), None).await.expect("back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_change_happens_once_however_many_would_make_it() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, None).await;
    // There and back again: made twice, it would show.
    for round in 0..10 {
        let change = AliasChange::Move(digest(1 + (round + 1) % 2));
        let due_at = time::OffsetDateTime::now_utc() - time::Duration::SECOND;
        let plan = store::NewSchedule { change, due_at };
        own.create_schedule(&claims, &live, plan, 9, None).await.expect("plan");
        let before = own.get_alias(&claims, &live).await.expect("get");
        let mut executors = JoinSet::new();
        for _ in 0..4 {
            let store = database.store.clone();
            executors.spawn(async move {
                let mut made = 0;
                for (tenant, id) in store.platform().due_schedules(9).await.expect("due") {
                    made += usize::from(store.tenant(tenant).run_schedule(id).await.expect("run").is_some());
                }
                made
            });
        }
        let made: usize = executors.join_all().await.into_iter().sum();
        assert_eq!(made, 1, "round {round}");
        let after = own.get_alias(&claims, &live).await.expect("get");
        assert_eq!(after.targets.previous, Some(before.targets.stable));
    }
}

/// A version is never retired while an alias names it, however the two interleave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_interleaving_leaves_an_alias_on_a_retired_version() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    for byte in 2..40 {
        push(&own, &claims, byte, None).await;
        let (moved, retired) = tokio::join!(
            own.move_alias(&claims, &live, digest(byte), None),
            own.retire_version(&claims, digest(byte), "at the same time"),
        );
        assert!(moved.is_ok() != retired.is_ok(), "{moved:?} {retired:?}");
        let alias = own.get_alias(&claims, &live).await.expect("get");
        let state = own.get_version(&claims, alias.targets.stable).await.expect("get").state;
        assert_eq!(state, domain::VersionState::Live);
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
async fn no_more_named_requests_are_let_in_than_may_be_however_many_come_at_once() {
    let database = Database::new().await;
    let (own, _) = tenant(&database.store).await;
    let request = suite::named(&own).await;
    let most = store::MostKept { requests: 5, bytes: 1 << 30, answer_bytes: 1 };
    for round in 0..3 {
        let mut claims = JoinSet::new();
        for number in 0..20 {
            let request =
                store::ClientRequest { id: format!("{round}-{number}").parse().expect("an id"), ..request.clone() };
            let (own, new) = (own.clone(), store::NewRun { most, ..suite::new_run() });
            claims.spawn(
                async move { (own.claim_client_request(&request, new).await.expect("claim"), request, new.run) },
            );
        }
        let claimed = claims.join_all().await;
        let let_in = || claimed.iter().filter(|(claimed, ..)| matches!(claimed, store::Claimed::Own { .. }));
        assert_eq!(let_in().count(), 5);
        for (_, request, run) in let_in() {
            assert!(own.release_client_request(request, *run).await.expect("release"));
        }
    }
}

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
