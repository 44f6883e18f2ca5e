//! Versions and their files' place among them.

use std::time::Duration;

use store::{BlobLease, Page, Precondition, Resource, Stock, Store, StoreError};

use super::{LEASE, adapter, digest, new_version, push, slug, tenant};
use crate::assert_refused;

pub async fn a_version_is_inserted_once_and_only_with_its_files(store: &Store) {
    let (own, _) = tenant(store).await;
    let claims = adapter(&own, "claims").await;
    assert_refused!(
        own.insert_version(&claims, new_version(1), None).await,
        StoreError::FailedPrecondition(Precondition::FilesNotStored)
    );
    let lease = own.reserve_blob(digest(1), 1_000, u64::MAX, LEASE).await.expect("reserve");
    assert!(matches!(lease, BlobLease::Write { .. }));
    assert_refused!(
        own.insert_version(&slug("absent"), new_version(1), None).await,
        StoreError::NotFound { what: Resource::Adapter, .. }
    );
    let live = slug("live");
    let inserted = own.insert_version(&claims, new_version(1), Some(&live)).await.expect("insert");
    assert!(inserted.is_new);
    assert_eq!(inserted.alias.expect("asked for").targets.stable, digest(1));
    assert_eq!(inserted.version.receipt, new_version(1).receipt);

    let changed = store::NewVersion { size_bytes: 5, ..new_version(1) };
    let again = own.insert_version(&claims, changed, None).await.expect("insert again");
    assert!(!again.is_new && again.alias.is_none());
    assert_eq!(again.version, inserted.version, "it is returned as it was");
    assert_eq!(own.get_version(&claims, digest(1)).await.expect("get"), inserted.version);
    assert_refused!(
        own.get_version(&claims, digest(9)).await,
        StoreError::NotFound { what: Resource::AdapterVersion, .. }
    );
    let listed = own.list_versions(&claims, &Page::first(9)).await.expect("list").items;
    assert_eq!(listed[0].receipt, serde_json::json!({"parameters": 7}), "lists go without modules");
}

pub async fn equal_content_is_stored_once_and_deleted_with_its_last_version(store: &Store) {
    let (own, _) = tenant(store).await;
    let (one, two) = (adapter(&own, "one").await, adapter(&own, "two").await);
    push(&own, &one, 1, None).await;
    let lease = own.reserve_blob(digest(1), 1_000, 1, LEASE).await.expect("reserve");
    assert_eq!(lease, BlobLease::Stored, "what is stored already needs no room");
    push(&own, &two, 1, None).await;
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 1_000);
    assert!(!own.delete_version(&one, digest(1)).await.expect("delete"), "the other adapter needs the files");
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 1_000);
    assert!(own.delete_version(&two, digest(1)).await.expect("delete"));
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 0);
    assert_refused!(own.delete_version(&two, digest(1)).await, StoreError::NotFound { .. });
}

pub async fn the_bytes_of_versions_are_bounded(store: &Store) {
    let (own, _) = tenant(store).await;
    own.reserve_blob(digest(1), 600, 1_000, LEASE).await.expect("600 of 1,000");
    assert_refused!(
        own.reserve_blob(digest(2), 401, 1_000, LEASE).await,
        StoreError::QuotaExceeded { stock: Stock::AdapterBytes, max: 1_000, used: 600, wanted: 401 }
    );
    own.reserve_blob(digest(1), 600, 1_000, LEASE).await.expect("the same upload counts once");
    own.reserve_blob(digest(2), 400, 1_000, Duration::ZERO).await.expect("1,000 of 1,000");
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 1_000);
}

pub async fn versions_are_listed_newest_first_in_pages(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, billing) = (adapter(&own, "claims").await, adapter(&own, "billing").await);
    for byte in [3, 1, 5, 2, 4] {
        push(&own, &claims, byte, None).await;
    }
    let (mut listed, mut page) = (Vec::new(), Page::first(2));
    loop {
        let part = own.list_versions(&claims, &page).await.expect("list");
        listed.extend(part.items.into_iter().map(|version| version.digest));
        if part.next_page_token.is_empty() {
            break;
        }
        page.token = part.next_page_token;
        assert_refused!(own.list_versions(&billing, &page).await, StoreError::InvalidPageToken);
    }
    assert_eq!(listed, [4, 2, 5, 1, 3].map(digest));
    assert_refused!(own.list_versions(&slug("absent"), &Page::first(2)).await, StoreError::NotFound { .. });
}

pub async fn a_version_under_an_alias_is_not_deleted(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    assert_refused!(
        own.delete_version(&claims, digest(1)).await,
        StoreError::FailedPrecondition(Precondition::VersionHasAlias)
    );
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 1_000);
    own.delete_alias(&claims, &live).await.expect("delete the alias");
    assert!(own.delete_version(&claims, digest(1)).await.expect("delete"));
}
