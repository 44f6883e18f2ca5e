//! Deletes the requests, and with them the answers, whose window is over. Every gateway does; it is all the same who.

use std::time::Duration;

use store::Store;
use tokio_util::sync::CancellationToken;

/// Rows in one transaction.
const AT_ONCE: u32 = 1_000;

pub async fn sweep(store: Store, interval: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        loop {
            match store.platform().delete_expired_client_requests(AT_ONCE).await {
                Ok(deleted) if deleted < u64::from(AT_ONCE) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "answers whose window is over are not deleted yet");
                    break;
                }
            }
        }
    }
}
