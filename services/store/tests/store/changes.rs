//! The change feed: what a reader may rely on.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use store::{Change, ChangeKind, Changed, PlanFields, Store, TenantFields};

use crate::{
    database::Database,
    suite::{adapter, digest, push, slug, tenant},
};

/// Everything after a position, in batches of two.
async fn read_all(store: &Store, mut position: i64) -> (Vec<Change>, i64) {
    let mut read = Vec::new();
    loop {
        let batch = store.platform().changes_after(position, 2).await.expect("read");
        let Changed::These(changes) = batch.what else { panic!("nothing was pruned") };
        read.extend(changes);
        position = batch.position;
        if !batch.more {
            return (read, position);
        }
    }
}

fn change(kind: ChangeKind, tenant: Option<domain::TenantId>, subject: &str) -> Change {
    Change { kind, tenant, subject: subject.to_owned() }
}

#[tokio::test]
async fn what_gateways_remember_is_announced_when_it_changes() {
    let database = Database::new().await;
    let platform = database.store.platform();
    let start = platform.change_head().await.expect("head");
    let (ours, name) = tenant(&database.store).await;
    let id = Some(ours.id());
    let rename = |fields: &mut TenantFields| fields.display_name = "Acme".to_owned();
    platform.update_tenant(&name, None, rename).await.expect("update");
    platform.update_plan(&slug("default"), None, |plan: &mut PlanFields| plan.share.weight = 3).await.expect("update");
    let claims = adapter(&ours, "claims").await;
    push(&ours, &claims, 1, Some("live")).await;
    push(&ours, &claims, 2, None).await;
    ours.move_alias(&claims, &slug("live"), digest(2), None).await.expect("move");
    // No change, so no announcement.
    ours.move_alias(&claims, &slug("live"), digest(2), None).await.expect("move");
    ours.delete_version(&claims, digest(1)).await.expect("delete");
    ours.delete_adapter(&claims).await.expect("delete");

    let (read, position) = read_all(&database.store, start).await;
    let alias = change(ChangeKind::Alias, id, "claims@live");
    let of_adapter = change(ChangeKind::Adapter, id, "claims");
    let expected = [
        change(ChangeKind::Tenant, id, name.as_str()),
        change(ChangeKind::Tenant, id, name.as_str()),
        change(ChangeKind::Plan, None, "default"),
        of_adapter.clone(),
        alias.clone(),
        alias.clone(),
    ];
    assert_eq!(read[..6], expected);
    assert!(read[6..].iter().all(|change| *change == of_adapter || *change == alias), "{read:?}");
    assert!(read[6..].contains(&of_adapter));
    assert_eq!(position, platform.change_head().await.expect("head"));
    assert_eq!(read_all(&database.store, position).await, (Vec::new(), position));
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_announces_nothing_and_leaves_no_gap() {
    let database = Database::new().await;
    let (_, name) = tenant(&database.store).await;
    let start = database.store.platform().change_head().await.expect("head");
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    owner
        .execute("begin; update tenants set display_name = 'x'; set constraints all immediate; rollback")
        .await
        .expect("run");
    assert_eq!(read_all(&database.store, start).await, (Vec::new(), start));
    let rename = |fields: &mut TenantFields| fields.display_name = "Acme".to_owned();
    database.store.platform().update_tenant(&name, None, rename).await.expect("update");
    assert_eq!(read_all(&database.store, start).await.1, start + 1);
}

/// Writers at the same time, some slow to commit, and a reader that never goes back.
#[tokio::test]
async fn a_reader_that_has_seen_a_position_has_seen_all_below_it() {
    const WRITERS: usize = 4;
    const EACH: usize = 25;
    let database = Database::new().await;
    let start = database.store.platform().change_head().await.expect("head");
    let writers = (0..WRITERS).map(|writer| {
        let store = database.store.clone();
        tokio::spawn(async move {
            let (ours, _) = tenant(&store).await;
            for i in 0..EACH {
                adapter(&ours, &format!("a{writer}-{i}")).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let (mut position, mut read) = (start, Vec::new());
    let reading = async {
        while read.len() < WRITERS * (EACH + 1) {
            let batch = database.store.platform().changes_after(position, 7).await.expect("read");
            let Changed::These(changes) = batch.what else { panic!("a gap before {}", batch.position) };
            read.extend(changes);
            position = batch.position;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("every change is seen");
    for writer in writers {
        writer.await.expect("writes");
    }
    let mut subjects: Vec<_> = read.iter().map(|change| &change.subject).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!((subjects.len(), read.len()), (WRITERS * (EACH + 1), WRITERS * (EACH + 1)));
}

#[tokio::test]
async fn a_reader_that_comes_too_late_is_told_that_anything_may_have_changed() {
    let database = Database::new().await;
    let platform = database.store.platform();
    let start = platform.change_head().await.expect("head");
    tenant(&database.store).await;
    assert!(platform.prune_changes(Duration::from_secs(3_600)).await.expect("prune") == 0, "not old enough");
    assert!(platform.prune_changes(Duration::ZERO).await.expect("prune") > 0);
    let late = platform.changes_after(start, 10).await.expect("read");
    assert_eq!((late.what, late.position), (Changed::Anything, start + 1));
    tenant(&database.store).await;
    let late = platform.changes_after(start, 10).await.expect("read");
    assert_eq!((late.what, late.position), (Changed::Anything, start + 2));
    let of_another_database = platform.changes_after(start + 1_000, 10).await.expect("read");
    assert_eq!((of_another_database.what, of_another_database.position), (Changed::Anything, start + 2));
}

#[tokio::test]
async fn gateways_are_listed_while_they_are_seen() {
    let database = Database::new().await;
    let platform = database.store.platform();
    let (one, two) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    platform.gateway_seen(one, "one", 3).await.expect("write");
    platform.gateway_seen(two, "two", 4).await.expect("write");
    platform.gateway_seen(one, "ignored", 5).await.expect("write");
    let listed = platform.list_gateways(Duration::from_secs(60)).await.expect("list");
    let listed: Vec<_> = listed.iter().map(|row| (row.name.as_str(), row.seen_change)).collect();
    assert_eq!(listed, [("one", 5), ("two", 4)]);
    platform.gateway_gone(one).await.expect("delete");
    assert_eq!(platform.list_gateways(Duration::from_secs(60)).await.expect("list").len(), 1);
    assert_eq!(platform.prune_gateways(Duration::from_secs(60)).await.expect("prune"), 0);
    assert_eq!(platform.prune_gateways(Duration::ZERO).await.expect("prune"), 1);
}
