//! Brings adapters into memory on threads of their own, so that no step waits for a disk or a network. What comes from
//! storage is not trusted: it is judged again against this base, and its content must be what its name says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use adapters::{Container, Files, Limits, Refusal};
use domain::{Detail, Digest, Fault, Reason};

use crate::model::{Adapter, AdapterLoadError, Model};
use crate::residents::AdapterKey;

/// Where adapters come from. `load` is called on a loader thread and may block; it must end, so give it a time limit.
pub trait AdapterSource: Send + Sync + 'static {
    /// The two files of this version, unjudged.
    fn load(&self, key: &AdapterKey) -> Result<Files, AdapterFault>;
}

/// Why an adapter is not served. It concerns the requests that name this adapter and no others.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFault {
    #[error("the registry does not have this version")]
    NotFound,
    /// Trying again may help.
    #[error("the registry does not answer: {0}")]
    Unavailable(String),
    #[error("{}", sentences(.0))]
    Refused(Vec<Refusal>),
    #[error("the stored files are version {found}")]
    OtherDigest { found: Digest },
    #[error("it takes {bytes} bytes and this worker keeps {bytes_max} bytes of adapters")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error(transparent)]
    Load(#[from] AdapterLoadError),
    #[error("loading it crashed")]
    Crashed,
}

impl AdapterFault {
    /// As a client sees it.
    pub fn to_fault(&self, key: &AdapterKey, retry_after: Duration) -> Fault {
        let message = format!("adapter version {} cannot be served: {self}", key.digest);
        match self {
            Self::Unavailable(_) => Fault::new(Reason::BackendUnavailable, message).retry_after(retry_after),
            Self::Refused(refusals) => {
                refusals.iter().fold(Fault::new(Reason::AdapterLoad, message), |fault, refusal| {
                    fault.detail(Detail::Violation {
                        field: refusal.subject.clone(),
                        reason: refusal.code.as_str().to_owned(),
                        description: refusal.message.clone(),
                    })
                })
            }
            _ => Fault::new(Reason::AdapterLoad, message),
        }
    }
}

fn sentences(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A finished load, with the memory that the adapter takes.
pub(crate) struct Loaded {
    pub key: AdapterKey,
    pub adapter: Result<(Adapter, u64), AdapterFault>,
}

/// The loader threads; dropping it waits for the loads under way.
pub(crate) struct Loader {
    jobs: Option<SyncSender<(AdapterKey, tracing::Span)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// `threads` loads at a time; `done` is called on the loader's thread.
    pub fn start(
        threads: usize,
        model: Arc<Model>,
        source: Box<dyn AdapterSource>,
        limits: Limits,
        done: impl Fn(Loaded) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(threads);
        let work = Arc::new(Work { receiver: Mutex::new(receiver), model, source, limits, done });
        let spawn = |n| {
            let work = Arc::clone(&work);
            std::thread::Builder::new().name(format!("adapter-loader-{n}")).spawn(move || work.run())
        };
        Ok(Self { jobs: Some(jobs), threads: (0..threads).map(spawn).collect::<Result<_, _>>()? })
    }

    /// Starts a load; its span is a child of `parent`. The caller keeps to as many at a time as there are threads, so
    /// this never waits.
    pub fn load(&self, key: AdapterKey, parent: &tracing::Span) {
        let span = tracing::info_span!(
            parent: parent, "engine.adapter_load",
            tenant = %key.tenant, digest = %key.digest, bytes = tracing::field::Empty,
        );
        if let Some(jobs) = &self.jobs
            && jobs.try_send((key, span)).is_err()
        {
            tracing::error!(digest = %key.digest, "no loader thread takes the job");
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A loader thread catches what its jobs throw.
            let _ = thread.join();
        }
    }
}

struct Work<D> {
    receiver: Mutex<Receiver<(AdapterKey, tracing::Span)>>,
    model: Arc<Model>,
    source: Box<dyn AdapterSource>,
    limits: Limits,
    done: D,
}

impl<D: Fn(Loaded)> Work<D> {
    fn run(&self) {
        loop {
            let job = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((key, span)) = job else { return };
            let loaded = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.load(&key))));
            let adapter = loaded.unwrap_or(Err(AdapterFault::Crashed));
            match &adapter {
                Ok((_, bytes)) => drop(span.record("bytes", bytes)),
                Err(fault) => span.in_scope(|| tracing::warn!(%fault, "adapter not loaded")),
            }
            (self.done)(Loaded { key, adapter });
        }
    }

    fn load(&self, key: &AdapterKey) -> Result<(Adapter, u64), AdapterFault> {
        let files = self.source.load(key)?;
        let refused = AdapterFault::Refused;
        let weights = Container::parse(files.weights, &self.limits).map_err(|refusal| refused(vec![refusal]))?;
        let plan = adapters::resolve(&files.config, &weights, self.model.base(), &self.limits).map_err(refused)?;
        if plan.digest != key.digest {
            return Err(AdapterFault::OtherDigest { found: plan.digest });
        }
        let adapter = Adapter::load(&self.model, &plan, &weights)?;
        let bytes = adapter.bytes() as u64;
        Ok((adapter, bytes))
    }
}
