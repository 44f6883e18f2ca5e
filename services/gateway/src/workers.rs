//! The workers behind this gateway: which of them are well, which one takes a request, and what happens when it fails.
//! The only edge towards `banyan.worker.v1`.
//!
//! A request goes to a worker that its adapter has by rendezvous hashing, where the adapter and its prefixes are likely
//! to be resident; when that one is not well or busy, to the least busy one ([`routing`]). When a worker is lost in the
//! middle of an answer, another one goes on with it ([`Workers::resume`]). All workers must have the same base.

mod answer;
mod base;
mod check;
mod discovery;
mod heat;
mod peer;
mod routing;
mod texts;
mod usage;
mod wire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use chassis::{bearer, config::Secret};
use domain::{Digest, Fault, Reason, RequestId, ResponseFormat, Sampling, Share, TenantId};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use uuid::Uuid;

use crate::{
    config::{WorkersConfig, ms},
    deadline::Deadline,
    parse::Input,
};
pub use answer::{Answer, Extender, Finished, Step};
pub use base::BaseModel;
use discovery::{Directory, Named};
use heat::Heat;
pub use peer::Failure;
use peer::Peer;
use routing::{View, Wish};
use texts::Texts;
pub use usage::Known;
pub use wire::step_of;

/// Between two rounds of asking all workers to go on with an answer.
const RESUME_RETRY: Duration = Duration::from_millis(50);
/// Workers that may say that their queue is full before the request is refused.
const FULL_MAX: usize = 2;

/// Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Directory,
    heat: Arc<Heat>,
    texts: Texts,
    base: OnceLock<Arc<BaseModel>>,
    config: WorkersConfig,
    /// Whether any worker is well.
    well: watch::Sender<bool>,
    /// Somebody has seen a worker fail: look at once.
    look: Notify,
}

/// An immutable adapter version.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    pub tenant: TenantId,
    pub digest: Digest,
}

/// An answer that has lost its worker.
pub struct Lost {
    peer: Arc<Peer>,
    failure: Failure,
}

/// What a worker is asked to generate.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: RequestId,
    /// Who pays, and whose turn it is at a worker.
    pub tenant: TenantId,
    pub share: Share,
    pub share_group: Uuid,
    pub pin: Option<Pin>,
    pub base: Digest,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub max_tokens: u32,
    /// Of those, the ones that may be generated before more are granted.
    pub granted_tokens: u32,
    /// The beginning of the answer, which another worker has generated, and the bytes of its text.
    pub generated: Vec<u32>,
    pub text_bytes: u32,
    pub stop: Vec<String>,
    pub logprobs: Option<u32>,
    pub ignore_eos: bool,
    pub response_format: Option<ResponseFormat>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    #[error("workers.urls: `{url}` is not the address of a worker: {fault}")]
    Url { url: String, fault: String },
    #[error("cluster_token: has characters that metadata cannot carry")]
    Token,
}

impl Workers {
    /// Connects when needed. The task looks after the workers until `stop`.
    pub fn start(
        config: &WorkersConfig,
        token: &Secret,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), WorkersError> {
        let token = bearer::value(token.reveal()).ok_or(WorkersError::Token)?;
        let Named { urls, names } = Named::of(&config.urls)?;
        let directory = Directory::default();
        directory.set(&urls, |url| Peer::new(url, &token, config))?;
        let inner = Arc::new(Inner {
            directory,
            heat: Arc::new(Heat::new(ms(config.hot_half_life_ms), config.hot_keys_max)),
            texts: Texts::new(config),
            base: OnceLock::new(),
            config: config.clone(),
            well: watch::Sender::new(false),
            look: Notify::new(),
        });
        let pace = discovery::Pace {
            interval: ms(config.discover_interval_ms),
            timeout: ms(config.call_timeout_ms),
            most: config.peers_max,
        };
        let found = {
            let (inner, config) = (Arc::clone(&inner), config.clone());
            move |found: Vec<String>| inner.listed(&[&urls[..], &found[..]].concat(), &token, &config)
        };
        let finding = discovery::keep_resolving(names, pace, discovery::system, found, stop.clone());
        let looking = check::keep_looking(Arc::clone(&inner), stop);
        let task = tokio::spawn(async move {
            tokio::join!(finding, looking);
        });
        Ok((Self { inner }, task))
    }

    /// Whether any worker is well, and every change of that.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.inner.well.subscribe()
    }

    /// The base model; unavailable until a worker has answered once.
    pub fn base(&self) -> Result<Arc<BaseModel>, Fault> {
        self.inner.base.get().cloned().ok_or_else(unavailable)
    }

    /// Token ids of a tenant's input, as the base's own tokenizer and chat template have them; when it is its turn.
    pub async fn tokenize(
        &self,
        tenant: TenantId,
        input: &Input,
        id: RequestId,
        deadline: Deadline,
    ) -> Result<Vec<u32>, Fault> {
        if let Input::Tokens(ids) = input {
            // No worker knows more of them than its base has said.
            self.base()?.check(ids)?;
            return Ok(ids.clone());
        }
        let _turn = self.inner.texts.turn(tenant, texts::bytes(input)).await?;
        let patience = ms(self.inner.config.call_timeout_ms);
        let message = wire::tokenize(input);
        for peer in self.inner.candidates(id.uuid().as_bytes(), None, id) {
            match peer.tokenize(message.clone(), id, deadline.at_most(patience)).await {
                Ok(ids) => return Ok(ids),
                Err(failure) => self.inner.pass_over(&peer, failure.seen_by(deadline))?,
            }
        }
        Err(unavailable())
    }

    /// Largest effect of a version on a fixed text; proves that a worker can load it.
    pub async fn probe(&self, pin: Pin, id: RequestId, deadline: Deadline) -> Result<f64, Fault> {
        let patience = ms(self.inner.config.probe_timeout_ms);
        for peer in self.inner.candidates(pin.digest.as_bytes(), None, id) {
            match peer.probe(pin, id, deadline.at_most(patience)).await {
                Ok(delta) => return Ok(delta),
                Err(failure) => self.inner.pass_over(&peer, failure.seen_by(deadline))?,
            }
        }
        Err(unavailable())
    }

    /// Starts a generation and waits for its first step, so that a worker that dies before it costs nothing: another one
    /// is asked. `reached` hears which worker has taken the request, and `None` when it has given it back.
    pub async fn generate(
        &self,
        job: &Job,
        deadline: Deadline,
        mut reached: impl FnMut(Option<&str>),
    ) -> Result<Answer, Fault> {
        let (mut full, mut refusal) = (0, None);
        let (candidates, warm) = self.inner.candidates_for(job);
        for peer in candidates {
            match peer.generate(job, deadline, &mut reached).await {
                Ok(answer) => return Ok(answer.keep(warm)),
                Err(Failure::Full(fault)) => {
                    reached(None);
                    refusal = Some(fault);
                    full += 1;
                    if full == FULL_MAX {
                        break;
                    }
                }
                // Computing had begun, and the clock ran out over it.
                Err(Failure::Refused(fault)) if fault.reason == Reason::DeadlineExceeded => return Err(fault),
                Err(Failure::Refused(fault)) => {
                    reached(None);
                    return Err(fault);
                }
                Err(failure) => {
                    reached(None);
                    self.inner.pass_over(&peer, failure)?;
                }
            }
        }
        Err(refusal.unwrap_or_else(unavailable))
    }

    /// Lets an answer that was `lost` go on at another worker, for which it is tried for a bounded time: all of them may be
    /// full, or the only one be starting again.
    ///
    /// # Errors
    /// What is wrong with the request; `WORKER_UNAVAILABLE` when nobody can take it.
    pub async fn resume(&self, job: &Job, lost: Lost, deadline: Deadline) -> Result<Answer, Fault> {
        let Lost { peer: from, failure } = lost;
        self.inner.pass_over(&from, failure)?;
        let give_up = Instant::now() + ms(self.inner.config.resume_ms);
        loop {
            let (mut candidates, warm) = self.inner.candidates_for(job);
            // The one that has failed just now comes last.
            candidates.sort_by_key(|peer| Arc::ptr_eq(peer, &from));
            for peer in candidates {
                match peer.resume(job, deadline).await {
                    Ok(answer) => return Ok(answer.keep(warm)),
                    Err(Failure::Full(_)) => {}
                    // The client has asked for nothing that could be wrong by now.
                    Err(Failure::Refused(fault)) if fault.reason == Reason::InvalidRequest => {
                        tracing::error!(
                            worker = peer.url(),
                            cause = fault.message,
                            "worker does not go on with an answer"
                        );
                    }
                    Err(failure) => self.inner.pass_over(&peer, failure)?,
                }
            }
            if Instant::now() + RESUME_RETRY >= give_up {
                let message = "the worker that was answering is gone, and no other one can go on";
                return Err(Fault::new(Reason::WorkerUnavailable, message));
            }
            self.inner.look.notify_one();
            tokio::time::sleep(RESUME_RETRY).await;
        }
    }
}

impl Answer {
    /// Why it ended before its end, and where.
    pub fn lost(&self, failure: Failure) -> Lost {
        Lost { peer: self.peer(), failure }
    }
}

impl Job {
    /// Requests with the same one are best served by the same worker.
    fn affinity(&self) -> Vec<u8> {
        self.pin.map_or_else(|| self.share_group.as_bytes().to_vec(), |pin| pin.digest.as_bytes().to_vec())
    }
}

impl Inner {
    /// The workers that are well, in the order in which they should be asked for this key; it has several homes if it had
    /// much load of late.
    fn candidates(&self, key: &[u8], adapter: Option<&Digest>, id: RequestId) -> Vec<Arc<Peer>> {
        let well: Vec<_> = self.directory.peers().iter().filter(|peer| peer.is_well()).cloned().collect();
        let uses: Vec<_> = well.iter().map(|peer| adapter.map(|adapter| peer.uses(adapter))).collect();
        let views = well.iter().zip(&uses).map(|(peer, uses)| View {
            weight: routing::weight(key, peer.url()),
            load: peer.load(),
            busy: peer.is_busy(),
            resident: uses.is_none_or(|uses| uses.is_some()),
        });
        // What runs of it everywhere, as far as the workers have said.
        let fleet: u32 = uses.iter().filter_map(|uses| uses.flatten()).sum();
        let load = self.heat.recent(key).max(fleet as usize);
        let WorkersConfig { in_flight_max, hot_share_percent, cold_load, .. } = self.config;
        let share = (in_flight_max * hot_share_percent as usize / 100).max(1);
        let (low, high) = id.uuid().as_u64_pair();
        let wish = Wish { homes: load.div_ceil(share), chance: low ^ high, cold_load };
        let views: Vec<_> = views.collect();
        routing::order(&views, wish).into_iter().map(|at| Arc::clone(&well[at])).collect()
    }

    /// For a generation, which counts as load of its key from now on.
    fn candidates_for(&self, job: &Job) -> (Vec<Arc<Peer>>, heat::Warm) {
        let key = job.affinity();
        let warm = self.heat.enter(&key);
        (self.candidates(&key, job.pin.as_ref().map(|pin| &pin.digest), job.id), warm)
    }

    /// These are the workers now.
    fn listed(&self, urls: &[String], token: &MetadataValue<Ascii>, config: &WorkersConfig) {
        match self.directory.set(urls, |url| Peer::new(url, token, config)) {
            Ok(true) => self.look.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "workers not taken from the DNS"),
        }
    }

    /// What is wrong with a worker is no reason to give up; what is wrong with the request is.
    fn pass_over(&self, peer: &Peer, failure: Failure) -> Result<(), Fault> {
        match failure {
            Failure::Refused(fault) | Failure::Full(fault) => Err(fault),
            Failure::Gone { cause, unwell } => {
                tracing::warn!(worker = peer.url(), cause, "worker failed");
                if unwell {
                    peer.mark_unwell();
                    self.look.notify_one();
                }
                Ok(())
            }
        }
    }
}

fn unavailable() -> Fault {
    Fault::new(Reason::WorkerUnavailable, "no worker is available").retry_after(Duration::from_secs(1))
}
