//! The workers behind this gateway: which of them are well, which one takes a request, and what happens when it fails.
//! The only edge towards `banyan.worker.v1`.
//!
//! A request goes to the worker that its adapter has by rendezvous hashing, where the adapter and its prefixes are likely
//! to be resident; when that one is not well or busy, to the least busy one. All workers must have the same base.

mod answer;
mod check;
mod peer;
mod usage;
mod wire;

use std::sync::{Arc, OnceLock};

use chassis::{bearer, config::Secret};
use domain::{Digest, Fault, Reason, RequestId, ResponseFormat, Sampling, Share, TenantId};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{WorkersConfig, ms},
    deadline::Deadline,
    parse::Input,
};
pub use answer::{Answer, Extender, Finished, Step};
use peer::{Failure, Peer};
pub use usage::Known;
pub use wire::step_of;

/// Workers that may say that their queue is full before the request is refused.
const FULL_MAX: usize = 2;

/// Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    peers: Vec<Arc<Peer>>,
    base: OnceLock<Arc<BaseModel>>,
    config: WorkersConfig,
    /// Whether any worker is well.
    well: watch::Sender<bool>,
    /// Somebody has seen a worker fail: look at once.
    look: Notify,
}

/// The base model that all workers have, as the first one that answered told it.
pub struct BaseModel {
    pub digest: Digest,
    pub context_length: u32,
    pub inventory: adapters::Base,
}

/// An immutable adapter version.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    pub tenant: TenantId,
    pub digest: Digest,
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
        let peers = config.urls.iter().map(|url| Peer::new(url, &token, config).map(Arc::new));
        let inner = Arc::new(Inner {
            peers: peers.collect::<Result<_, _>>()?,
            base: OnceLock::new(),
            config: config.clone(),
            well: watch::Sender::new(false),
            look: Notify::new(),
        });
        let task = tokio::spawn(check::keep_looking(Arc::clone(&inner), stop));
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

    /// Token ids of an input, as the base's own tokenizer and chat template have them.
    pub async fn tokenize(&self, input: &Input, id: RequestId, deadline: Deadline) -> Result<Vec<u32>, Fault> {
        let patience = ms(self.inner.config.call_timeout_ms);
        let message = wire::tokenize(input);
        for peer in self.inner.candidates(id.uuid().as_bytes()) {
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
        for peer in self.inner.candidates(pin.digest.as_bytes()) {
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
        for peer in self.inner.candidates(&job.affinity()) {
            match peer.generate(job, deadline, &mut reached).await {
                Ok(answer) => return Ok(answer),
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
}

impl Job {
    /// Requests with the same one are best served by the same worker.
    fn affinity(&self) -> Vec<u8> {
        self.pin.map_or_else(|| self.share_group.as_bytes().to_vec(), |pin| pin.digest.as_bytes().to_vec())
    }
}

impl Inner {
    /// The workers that are well, the best one for this key first, then by load.
    fn candidates(&self, key: &[u8]) -> Vec<Arc<Peer>> {
        let mut well: Vec<_> = self.peers.iter().filter(|peer| peer.is_well()).cloned().collect();
        // Cached: the load changes while we sort.
        well.sort_by_cached_key(|peer| (peer.load(), std::cmp::Reverse(weight(key, peer.url()))));
        let preferred = well.iter().enumerate().max_by_key(|(_, peer)| weight(key, peer.url()));
        if let Some((at, peer)) = preferred
            && !peer.is_busy()
        {
            well[..=at].rotate_right(1);
        }
        well
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

/// Highest random weight (Thaler and Ravishankar 1998): every gateway picks the same worker, and one that comes or goes
/// moves only its own share.
fn weight(key: &[u8], url: &str) -> u64 {
    let hash = Sha256::new().chain_update(key).chain_update(url.as_bytes()).finalize();
    hash.iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

fn unavailable() -> Fault {
    Fault::new(Reason::WorkerUnavailable, "no worker is available").retry_after(std::time::Duration::from_secs(1))
}
