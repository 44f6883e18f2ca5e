//! Brings adapters into memory on threads of their own, so that no step waits for a disk or a network: from this
//! machine's cache if it has them, which is one short read, else from the registry. What comes from there is not trusted:
//! it is judged again against this base, and its content must be what its name says. That takes longer and has a low
//! priority; what was judged is served at once and written to the cache behind everybody's back.
//!
//! What the cache lists has threads of its own, so that it does not wait for a slow registry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adapters::{Container, Files, Limits, Refusal};
use domain::{Detail, Digest, Fault, Reason};
use kernels::Buffer;

use crate::adapter_cache::{AdapterCache, CacheKey, CacheWriter};
use crate::model::{Adapter, AdapterLoadError, Model};
use crate::packed_adapter::{self, Identity};
use crate::residents::{AdapterKey, Lane, Load};

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

/// A finished load.
pub(crate) struct Loaded {
    pub key: AdapterKey,
    pub adapter: Result<Load<Adapter>, AdapterFault>,
}

/// What loads are made from and held to.
pub(crate) struct LoaderParts {
    pub model: Arc<Model>,
    pub source: Box<dyn AdapterSource>,
    pub limits: Limits,
    /// The cache on disk, and how many images may wait to be written to it.
    pub cache: Option<(Arc<AdapterCache>, usize)>,
    /// No larger image is read from disk.
    pub bytes_max: u64,
}

/// The loader threads; dropping it waits for the loads under way.
pub(crate) struct Loader {
    /// Of each [`Lane`]; none once it ends.
    jobs: Vec<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// `threads` loads at a time in each lane; `done` is called on the loader's thread.
    pub fn start(
        threads: usize,
        parts: LoaderParts,
        done: impl Fn(Loaded) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let LoaderParts { model, source, limits, cache, bytes_max } = parts;
        let rules = packed_adapter::rules(&limits);
        let cache = match cache {
            Some((cache, writes_max)) => {
                let writer = CacheWriter::start(Arc::clone(&cache), writes_max)?;
                Some(Disk { cache, writer })
            }
            None => None,
        };
        let work = Arc::new(Work { model, source, limits, rules, cache, bytes_max, done });
        let mut loader = Self { jobs: Vec::new(), threads: Vec::new() };
        for lane in Lane::ALL {
            let (jobs, receiver) = sync_channel(threads);
            loader.jobs.push(jobs);
            let receiver = Arc::new(Mutex::new(receiver));
            for n in 0..threads {
                let (work, receiver) = (Arc::clone(&work), Arc::clone(&receiver));
                let name = match lane {
                    Lane::Disk => format!("adapter-disk-{n}"),
                    Lane::Registry => format!("adapter-fetch-{n}"),
                };
                loader.threads.push(std::thread::Builder::new().name(name).spawn(move || work.run(lane, &receiver))?);
            }
        }
        Ok(loader)
    }

    /// Starts a load; its span is a child of `parent`. The caller keeps to as many at a time as there are threads in the
    /// lane, so this never waits.
    pub fn load(&self, key: AdapterKey, lane: Lane, parent: &tracing::Span) {
        let span = tracing::info_span!(
            parent: parent, "engine.adapter_load",
            tenant = %key.tenant, digest = %key.digest, bytes = tracing::field::Empty, from = tracing::field::Empty,
        );
        if let Some(jobs) = self.jobs.get(lane as usize)
            && jobs.try_send((key, span)).is_err()
        {
            tracing::error!(digest = %key.digest, "no loader thread takes the job");
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            // A loader thread catches what its jobs throw.
            let _ = thread.join();
        }
    }
}

type Job = (AdapterKey, tracing::Span);

struct Work<D> {
    model: Arc<Model>,
    source: Box<dyn AdapterSource>,
    limits: Limits,
    /// [`packed_adapter::rules`] of `limits`.
    rules: u32,
    cache: Option<Disk>,
    bytes_max: u64,
    done: D,
}

struct Disk {
    cache: Arc<AdapterCache>,
    writer: CacheWriter<Buffer>,
}

impl<D: Fn(Loaded)> Work<D> {
    fn run(&self, lane: Lane, receiver: &Mutex<Receiver<Job>>) {
        if lane == Lane::Registry {
            kernels::lower_thread_priority();
        }
        loop {
            let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((key, span)) = job else { return };
            let loaded = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.load(&key))));
            let adapter = loaded.unwrap_or(Err(AdapterFault::Crashed));
            match &adapter {
                Ok(load) => drop(span.record("bytes", load.bytes)),
                Err(fault) => span.in_scope(|| tracing::warn!(%fault, "adapter not loaded")),
            }
            (self.done)(Loaded { key, adapter });
        }
    }

    fn load(&self, key: &AdapterKey) -> Result<Load<Adapter>, AdapterFault> {
        let start = Instant::now();
        let (adapter, from) = match self.read_cached(key) {
            Some(adapter) => (adapter, "disk"),
            None => (self.fetch(key)?, "registry"),
        };
        tracing::Span::current().record("from", from);
        let bytes = adapter.bytes() as u64;
        Ok(Load { rank: adapter.rank(), adapter, bytes, took: start.elapsed() })
    }

    /// The image that the cache has of it, if that is sound; a damaged one is thrown away.
    fn read_cached(&self, key: &AdapterKey) -> Option<Adapter> {
        let Disk { cache, .. } = self.cache.as_ref()?;
        let identity = self.identity(key);
        let place = CacheKey { adapter: *key, storage: identity.storage };
        let (mut file, length) = cache.find(&place)?;
        let length = usize::try_from(length).ok().filter(|length| *length as u64 <= self.bytes_max);
        let image = length.and_then(|length| Buffer::read(&mut file, length).ok());
        match image.map(|image| Adapter::unpack(&self.model, &identity, image)) {
            Some(Ok(adapter)) => Some(adapter),
            unusable => {
                let damage = unusable.and_then(Result::err).map_or_else(|| "unreadable".into(), |it| it.to_string());
                tracing::warn!(digest = %key.digest, damage, "an image in the adapter cache cannot be used");
                cache.discard(&place);
                None
            }
        }
    }

    fn fetch(&self, key: &AdapterKey) -> Result<Adapter, AdapterFault> {
        let files = self.source.load(key)?;
        let refused = AdapterFault::Refused;
        let weights = Container::parse(files.weights, &self.limits).map_err(|refusal| refused(vec![refusal]))?;
        let plan = adapters::judge(&files.config, &weights, self.model.base(), &self.limits).map_err(refused)?;
        if plan.digest != key.digest {
            return Err(AdapterFault::OtherDigest { found: plan.digest });
        }
        let mut image = Adapter::pack(&self.model, &plan, &weights)?;
        drop(weights);
        // What is served from memory now and from disk later is the same image.
        let identity = self.identity(key);
        let kept = self.cache.as_ref().and_then(|disk| Some((disk, image.seal(&identity)?)));
        let adapter = Adapter::of_image(&self.model, plan.digest, &image)
            .map_err(|damage| AdapterLoadError::Parts(damage.to_string()))?;
        if let Some((Disk { writer, .. }, image)) = kept {
            writer.write(CacheKey { adapter: *key, storage: identity.storage }, image);
        }
        Ok(adapter)
    }

    fn identity(&self, key: &AdapterKey) -> Identity {
        let storage = Adapter::storage_number(&self.model);
        Identity { key: *key, base: self.model.base().digest(), rules: self.rules, storage }
    }
}
