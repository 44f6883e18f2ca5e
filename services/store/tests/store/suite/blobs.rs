//! Files in the registry and the rows that keep track of them.

use std::time::Duration;

use domain::{Digest, TenantId};
use store::{BlobDeletion, BlobLease, Precondition, Store, StoreError};

use super::{LEASE, adapter, digest, new_version, push, tenant};
use crate::assert_refused;

pub async fn files_to_delete_are_claimed_by_one_and_forgotten_when_gone(store: &Store) {
    let (own, _) = tenant(store).await;
    let claims = adapter(&own, "claims").await;
    push(&own, &claims, 1, None).await;
    push(&own, &claims, 2, None).await;
    own.delete_version(&claims, digest(1)).await.expect("delete");

    let due = store.platform().claim_blob_deletions(u16::MAX, Duration::ZERO).await.expect("claim");
    let mut ours = due.into_iter().filter(|deletion| deletion.tenant == own.id());
    let first = ours.next().expect("due");
    assert_eq!((first.digest, ours.next()), (digest(1), None), "the other one is in use");
    // The first claim is over at once, as after a crash: the next one takes it.
    let second = claim(store, own.id(), digest(1), LEASE).await.expect("due again");
    assert!(claim(store, own.id(), digest(1), LEASE).await.is_none(), "claimed");
    let platform = store.platform();
    assert!(!platform.finish_blob_deletion(&first).await.expect("finish late"), "somebody else has it");
    assert_refused!(
        own.reserve_blob(digest(1), 1_000, u64::MAX, LEASE).await,
        StoreError::FailedPrecondition(Precondition::FilesBeingDeleted)
    );
    assert!(platform.finish_blob_deletion(&second).await.expect("finish"));
    assert!(!platform.finish_blob_deletion(&second).await.expect("finish twice"));
    let lease = own.reserve_blob(digest(1), 1_000, u64::MAX, LEASE).await.expect("reserve anew");
    assert!(matches!(lease, BlobLease::Write { .. }));
}

pub async fn an_upload_that_was_given_up_is_cleaned_up(store: &Store) {
    let (own, _) = tenant(store).await;
    let claims = adapter(&own, "claims").await;
    own.reserve_blob(digest(1), 1_000, u64::MAX, Duration::ZERO).await.expect("reserve");
    own.reserve_blob(digest(2), 1_000, u64::MAX, LEASE).await.expect("reserve");
    let deletion = claim(store, own.id(), digest(1), LEASE).await.expect("given up");
    assert!(claim(store, own.id(), digest(2), LEASE).await.is_none(), "still being written");
    // Whoever gave it up comes back: too late.
    assert_refused!(
        own.insert_version(&claims, new_version(1), None).await,
        StoreError::FailedPrecondition(Precondition::FilesNotStored)
    );
    assert!(store.platform().finish_blob_deletion(&deletion).await.expect("finish"));
    assert_eq!(own.used_stock().await.expect("count").adapter_bytes, 1_000);
    own.insert_version(&claims, new_version(2), None).await.expect("the other one is fine");
}

/// Claims all that is due and picks this one.
async fn claim(store: &Store, tenant: TenantId, digest: Digest, lease: Duration) -> Option<BlobDeletion> {
    let due = store.platform().claim_blob_deletions(u16::MAX, lease).await.expect("claim");
    due.into_iter().find(|deletion| deletion.tenant == tenant && deletion.digest == digest)
}
