//! Usage records on their way to the database: a place in a bounded queue is taken before a request runs, so that its
//! record can always be handed over, and what is handed over is tried until it is written.

use std::time::Duration;

use domain::{Fault, Reason, TenantId};
use store::{Store, StoreError, UsageRecord};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{UsageConfig, ms},
    inbox,
};

/// Cheap to clone. The writing task ends when it is told to stop, every place is gone and the queue is empty.
#[derive(Clone)]
pub struct UsageQueue {
    queue: mpsc::Sender<Entry>,
}

/// A place in the queue.
pub struct Place(mpsc::OwnedPermit<Entry>);

struct Entry {
    tenant: TenantId,
    record: UsageRecord,
    written: oneshot::Sender<()>,
}

impl UsageQueue {
    /// After `stop`, what is in the queue is still tried for the time that the end of an answer waits.
    pub fn start(store: Store, config: &UsageConfig, stop: CancellationToken) -> (Self, JoinHandle<()>) {
        let (queue, inbox) = mpsc::channel(config.queue_max);
        let (writers, retry, patience) = (config.writers_max, ms(config.retry_ms), ms(config.write_wait_ms));
        let task = tokio::spawn(async move {
            let write = |entry| write(&store, entry, retry, patience, &stop);
            inbox::work_off(inbox, writers, stop.clone(), write).await;
        });
        (Self { queue }, task)
    }

    pub fn place(&self) -> Result<Place, Fault> {
        self.queue.clone().try_reserve_owned().map(Place).map_err(|_| {
            tracing::error!("the usage queue is full, request refused");
            Fault::new(Reason::BackendUnavailable, "usage cannot be recorded now").retry_after(Duration::from_secs(1))
        })
    }
}

impl Place {
    /// Hands a record over; the answer comes when it is written, and never if it could not be.
    pub fn write(self, tenant: TenantId, record: UsageRecord) -> oneshot::Receiver<()> {
        let (written, answer) = oneshot::channel();
        self.0.send(Entry { tenant, record, written });
        answer
    }
}

async fn write(store: &Store, entry: Entry, retry: Duration, patience: Duration, stop: &CancellationToken) {
    let Entry { tenant, record, written } = entry;
    let give_up = async {
        stop.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    let attempt = async {
        loop {
            match store.tenant(tenant).record_usage(&record).await {
                Err(StoreError::Unavailable(error)) => tracing::warn!(%error, "usage record not written yet"),
                outcome => return outcome,
            }
            tokio::time::sleep(retry).await;
        }
    };
    let outcome = tokio::select! {
        outcome = attempt => outcome.map_err(|error| error.to_string()),
        () = give_up => Err("the database did not come back before the stop".to_owned()),
    };
    match outcome {
        Ok(_) => {
            // Whoever waited may have gone; the record is written all the same.
            let _ = written.send(());
        }
        Err(error) => tracing::error!(%error, %tenant, ?record, "usage record lost"),
    }
}
