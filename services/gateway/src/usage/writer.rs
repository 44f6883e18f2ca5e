//! Writes usage records of one tenant, and tries until they are written. Records that the database refuses together are
//! tried one by one, so that a faulty one takes no other with it.

use std::{slice, time::Duration};

use domain::TenantId;
use store::{Store, StoreError, UsageRecord};
use tokio_util::sync::CancellationToken;

use super::Entry;
use crate::config::{UsageConfig, ms};

pub struct Writer {
    store: Store,
    /// Between two tries.
    retry: Duration,
    /// How long it is still tried after the stop.
    patience: Duration,
    stop: CancellationToken,
}

/// Why records are not written.
enum Lost {
    Refused(StoreError),
    Stopped,
}

impl Writer {
    pub fn new(store: Store, config: &UsageConfig, stop: CancellationToken) -> Self {
        Self { store, retry: ms(config.retry_ms), patience: ms(config.write_wait_ms), stop }
    }

    pub async fn write(&self, tenant: TenantId, entries: Vec<Entry>) {
        let (records, written): (Vec<_>, Vec<_>) =
            entries.into_iter().map(|entry| (entry.record, entry.written)).unzip();
        let together = self.try_until_written(tenant, &records).await;
        let one_by_one = matches!(together, Err(Lost::Refused(_))) && records.len() > 1;
        for (record, written) in records.iter().zip(written) {
            let alone =
                if one_by_one { Some(self.try_until_written(tenant, slice::from_ref(record)).await) } else { None };
            match alone.as_ref().unwrap_or(&together) {
                Ok(()) => {
                    // Whoever waited may have gone; the record is written all the same.
                    let _ = written.send(());
                }
                Err(Lost::Refused(error)) => tracing::error!(%error, %tenant, ?record, "usage record lost"),
                Err(Lost::Stopped) => {
                    let error = "the database did not come back before the stop";
                    tracing::error!(error, %tenant, ?record, "usage record lost");
                }
            }
        }
    }

    async fn try_until_written(&self, tenant: TenantId, records: &[UsageRecord]) -> Result<(), Lost> {
        let give_up = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.patience).await;
        };
        let attempt = async {
            loop {
                match self.store.platform().record_usage(tenant, records).await {
                    Ok(_) => return Ok(()),
                    Err(StoreError::Unavailable(error)) => tracing::warn!(%error, "usage record not written yet"),
                    Err(error) => return Err(Lost::Refused(error)),
                }
                tokio::time::sleep(self.retry).await;
            }
        };
        tokio::select! {
            outcome = attempt => outcome,
            () = give_up => Err(Lost::Stopped),
        }
    }
}
