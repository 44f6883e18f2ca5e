//! Deletes from the registry what no version needs any more: at start, at intervals and when told that there is something.
//! Which files those are is the store's knowledge; a crash in between leaves the claim to run out.

use std::{sync::Arc, time::Duration};

use adapters::Registry;
use store::Store;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const CLAIMS_AT_ONCE: u16 = 16;
/// Longer than deleting a batch may take.
const CLAIM_LEASE: Duration = Duration::from_secs(300);
const DELETE_TIMEOUT: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Clone)]
pub struct Sweeper {
    work: Arc<Notify>,
}

impl Sweeper {
    pub fn start(
        store: Store,
        registry: Registry,
        interval: Duration,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let work = Arc::new(Notify::new());
        let told = Arc::clone(&work);
        let task = tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sweep(&store, &registry) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = told.notified() => {}
                    () = tokio::time::sleep(interval) => {}
                }
            }
        });
        (Self { work }, task)
    }

    /// There is something to delete.
    pub fn nudge(&self) {
        self.work.notify_one();
    }
}

async fn sweep(store: &Store, registry: &Registry) {
    loop {
        let deletions = match store.platform().claim_blob_deletions(CLAIMS_AT_ONCE, CLAIM_LEASE).await {
            Ok(deletions) if deletions.is_empty() => return,
            Ok(deletions) => deletions,
            Err(error) => return tracing::warn!(%error, "cannot see what is to be deleted from the registry"),
        };
        for deletion in deletions {
            let (tenant, digest) = (deletion.tenant, deletion.digest);
            match tokio::time::timeout(DELETE_TIMEOUT, registry.delete_version(tenant.uuid(), digest)).await {
                Ok(Ok(())) => match store.platform().finish_blob_deletion(&deletion).await {
                    Ok(_) => tracing::info!(%tenant, %digest, "deleted from the registry"),
                    Err(error) => tracing::warn!(%tenant, %digest, %error, "deleted, but not crossed off yet"),
                },
                Ok(Err(error)) => tracing::warn!(%tenant, %digest, %error, "not deleted from the registry yet"),
                Err(_) => tracing::warn!(%tenant, %digest, "the registry does not answer"),
            }
        }
    }
}
