//! Usage records on their way to the database: a place in a bounded queue is taken before a request runs, so that its
//! record can always be handed over, and what is handed over is tried until it is written.
//!
//! Records of one tenant that wait for a writer are written in one transaction. None waits for another one to come.

mod backlog;
mod writer;

use std::time::Duration;

use domain::{Fault, Reason, TenantId};
use store::{Store, UsageRecord};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::config::UsageConfig;
use writer::Writer;

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
        let (writers, batch) = (config.writers_max, config.batch_max);
        let writer = Writer::new(store, config, stop.clone());
        let task = tokio::spawn(async move {
            backlog::work_off(inbox, writers, batch, stop, |tenant, entries| writer.write(tenant, entries)).await;
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
