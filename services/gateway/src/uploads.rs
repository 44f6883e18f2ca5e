//! The story of an upload: receive, judge, reserve, write, probe, publish. A crash at any line leaves at most files that
//! no version names, and the sweeper deletes them.

mod receive;

use std::{sync::Arc, time::Duration};

use adapters::{Files, Plan, Refusal, Registry, Resolved, VersionFiles};
use domain::{AdapterName, Detail, Fault, Limits, Reason, Slug};
use futures::Stream;
use serde_json::Value;
use store::{AdapterVersion, BlobLease, NewVersion, Precondition, StoreError, TenantScope};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::{UploadsConfig, ms},
    guard::Session,
    store_fault::StoreFault as _,
    sweeper::Sweeper,
    workers::{BaseModel, Pin, Workers},
};
pub use receive::Chunk;

/// Where the stored receipt keeps what the worker has measured.
pub const PROBE_KEY: &str = "probe_max_delta";
/// How long to wait for equal files of a version that was just deleted to be gone.
const DELETION_PATIENCE: Duration = Duration::from_secs(10);
const DELETION_POLL: Duration = Duration::from_millis(25);
/// Refusals travel in the trailers of the response, which clients bound (16 KiB is usual).
const REFUSAL_BYTES_MAX: usize = 4_096;

/// Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    registry: Registry,
    workers: Workers,
    sweeper: Sweeper,
    config: Arc<UploadsConfig>,
    places: Arc<Semaphore>,
    /// In KiB.
    memory: Arc<Semaphore>,
}

/// Where a version goes.
pub struct Target {
    pub rows: TenantScope,
    pub adapter: AdapterName,
    pub alias: Option<Slug>,
    pub limits: Limits,
}

impl Uploads {
    pub fn new(registry: Registry, workers: Workers, sweeper: Sweeper, config: &UploadsConfig) -> Self {
        let memory_kib = usize::try_from(config.bytes_in_flight_max / 1024).unwrap_or(usize::MAX);
        Self {
            registry,
            workers,
            sweeper,
            config: Arc::new(config.clone()),
            places: Arc::new(Semaphore::new(config.concurrent_max)),
            memory: Arc::new(Semaphore::new(memory_kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a version in, and says what was taken.
    pub async fn take(
        &self,
        session: &Session,
        target: Target,
        chunks: impl Stream<Item = Result<Chunk, Fault>> + Send,
    ) -> Result<AdapterVersion, Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Fault::new(Reason::QueueFull, "too many uploads at the same time").retry_after(Duration::from_secs(5))
        })?;
        let base = self.workers.base()?;
        let stock = target.rows.used_stock().await.map_err(|error| error.fault(&target.adapter))?;
        let terms = receive::Terms {
            limits: self.limits(&target),
            quota: target.limits.adapter_bytes_max,
            used: stock.adapter_bytes,
            memory: Arc::clone(&self.memory),
        };
        let receive::Received { files, memory } = receive::receive(chunks, terms).await?;
        let (plan, _held) = judge(files.clone(), base, self.limits(&target), (place, memory)).await?;
        let version = self.publish(session, &target, &files, plan).await?;
        tracing::info!(adapter = %target.adapter, digest = %version.digest, size_bytes = version.size_bytes, "version taken in");
        Ok(version)
    }

    async fn publish(
        &self,
        session: &Session,
        target: &Target,
        files: &Files,
        plan: Resolved,
    ) -> Result<AdapterVersion, Fault> {
        let size_bytes = (files.config.len() + files.weights.len()) as u64;
        let receipt = serde_json::to_value(&plan.receipt).map_err(|error| {
            tracing::error!(%error, "a load receipt cannot be written");
            Fault::internal()
        })?;
        loop {
            if let BlobLease::Write { .. } = self.reserve(target, &plan, size_bytes).await? {
                self.write(target, files, &plan, &receipt).await?;
            }
            let pin = Pin { tenant: target.rows.id(), digest: plan.digest };
            let delta = self.workers.probe(pin, session.id, session.deadline).await?;
            let mut receipt = receipt.clone();
            if let Some(object) = receipt.as_object_mut() {
                object.insert(PROBE_KEY.to_owned(), delta.into());
            }
            let new = NewVersion { digest: plan.digest, base_digest: plan.base_digest, size_bytes, receipt };
            match target.rows.insert_version(&target.adapter.adapter, new, target.alias.as_ref()).await {
                Ok(inserted) => return Ok(inserted.version),
                // Somebody deleted the last version with this content since we were told that its files are there.
                Err(StoreError::FailedPrecondition(Precondition::FilesNotStored)) if !session.deadline.is_over() => {}
                Err(error) => return Err(error.fault(&target.adapter)),
            }
        }
    }

    /// Counts the files against the tenant's quota, and waits until equal ones that are being deleted are gone.
    async fn reserve(&self, target: &Target, plan: &Plan, size_bytes: u64) -> Result<BlobLease, Fault> {
        let start = Instant::now();
        loop {
            let most = target.limits.adapter_bytes_max;
            let lease = ms(self.config.write_lease_ms);
            match target.rows.reserve_blob(plan.digest, size_bytes, most, lease).await {
                Err(StoreError::FailedPrecondition(Precondition::FilesBeingDeleted))
                    if start.elapsed() < DELETION_PATIENCE =>
                {
                    self.sweeper.nudge();
                    sleep(DELETION_POLL).await;
                }
                outcome => return outcome.map_err(|error| error.fault(&target.adapter)),
            }
        }
    }

    async fn write(&self, target: &Target, files: &Files, plan: &Plan, receipt: &Value) -> Result<(), Fault> {
        let version = VersionFiles {
            config: files.config.clone(),
            weights: files.weights.clone(),
            receipt: receipt.to_string().into(),
        };
        let write = self.registry.put_version(target.rows.id().uuid(), plan.digest, &version);
        let cause = match timeout(ms(self.config.write_lease_ms), write).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::error!(cause, "the registry failed");
        Err(Fault::new(Reason::BackendUnavailable, "the adapter registry does not answer")
            .retry_after(Duration::from_secs(1)))
    }

    fn limits(&self, target: &Target) -> adapters::Limits {
        let defaults = adapters::Limits::default();
        adapters::Limits {
            weights_bytes_max: self.config.weights_bytes_max,
            rank_max: defaults.rank_max.min(target.limits.adapter_rank_max as usize),
            ..defaults
        }
    }
}

/// Off the async threads: it reads every tensor. It goes on when the client has gone away, so what the upload holds goes
/// with it, and comes back with the verdict.
async fn judge<H: Send + 'static>(
    files: Files,
    base: Arc<BaseModel>,
    limits: adapters::Limits,
    held: H,
) -> Result<(Resolved, H), Fault> {
    match tokio::task::spawn_blocking(move || (files.resolve(&base.inventory, &limits), held)).await {
        Ok((verdict, held)) => verdict.map(|plan| (plan, held)).map_err(|refusals| refused(&refusals)),
        Err(error) => {
            tracing::error!(%error, "judging an adapter failed");
            Err(Fault::internal())
        }
    }
}

/// Every refusal as a violation: about what, its code, and what to do.
fn refused(refusals: &[Refusal]) -> Fault {
    let first = refusals.first().map(ToString::to_string).unwrap_or_default();
    let more = match refusals.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let mut fault = Fault::new(Reason::AdapterRefused, format!("the adapter is refused: {first}{more}"));
    let mut bytes = 0;
    for (at, refusal) in refusals.iter().enumerate() {
        bytes += refusal.subject.len() + refusal.message.len() + 32;
        if at > 0 && bytes > REFUSAL_BYTES_MAX {
            return fault.detail(Detail::Violation {
                field: "adapter".to_owned(),
                reason: refusal.code.as_str().to_owned(),
                description: format!("{} further refusals are not listed", refusals.len() - at),
            });
        }
        fault = fault.detail(Detail::Violation {
            field: refusal.subject.clone(),
            reason: refusal.code.as_str().to_owned(),
            description: refusal.message.clone(),
        });
    }
    fault
}
