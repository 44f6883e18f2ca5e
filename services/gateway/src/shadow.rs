//! Shadows: a copy of a request that another version answers in the background, to be compared with what was answered.
//!
//! It begins when the real answer has ended, waits behind every other request of the workers, and has a deadline of its
//! own. Nobody sees it and nobody pays for it. When too many are under way, the next ones are not begun; whatever goes
//! wrong with one is counted and ends there.

mod compare;
mod skipped;

use std::{sync::Arc, time::Instant};

use domain::{Fault, RequestId, Share, TenantId};
use store::{ShadowPair, ShadowTally, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{ShadowConfig, ms},
    deadline::Deadline,
    workers::{Failure, Job, Pin, Step, Workers},
};
use compare::compare;
use skipped::Skipped;

/// Whose turn it is at a worker: nobody's who pays, so that no tenant waits for its own shadows.
const PLATFORM: TenantId = TenantId::new(Uuid::nil());
/// Behind every plan's, whose default is 100.
const PRIORITY: u32 = 1;

/// Cheap to clone.
#[derive(Clone)]
pub struct Shadows {
    places: Arc<Semaphore>,
    queue: mpsc::Sender<Copy>,
    skipped: Arc<Skipped>,
}

/// A request to be answered again, and what was answered so far. Dropping it forgets it.
pub struct Copy {
    tenant: TenantId,
    pair: ShadowPair,
    job: Job,
    answer: Answered,
    /// The real request.
    arrived: Instant,
    queue: mpsc::Sender<Self>,
    _place: OwnedSemaphorePermit,
}

/// An answer, as far as it is compared.
#[derive(Default)]
struct Answered {
    tokens: Vec<u32>,
    text: String,
    ms: u64,
}

struct Runner {
    store: Store,
    workers: Workers,
    config: ShadowConfig,
    skipped: Arc<Skipped>,
}

impl Shadows {
    /// The task answers copies until `stop`, and drops what is left then.
    pub fn start(
        store: Store,
        workers: Workers,
        config: &ShadowConfig,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        // As many as there are places, so there is always room for one that has a place.
        let (queue, copies) = mpsc::channel(config.queue_max);
        let skipped = Arc::new(Skipped::new(config.queue_max));
        let runner = Runner { store, workers, config: config.clone(), skipped: Arc::clone(&skipped) };
        let task = tokio::spawn(Arc::new(runner).run(copies, stop));
        (Self { places: Arc::new(Semaphore::new(config.queue_max)), queue, skipped }, task)
    }

    /// A copy of this request for the shadow, if there is room for one.
    pub fn copy(&self, tenant: TenantId, pair: &ShadowPair, job: &Job, arrived: Instant) -> Option<Copy> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.skipped.add(tenant, pair);
            return None;
        };
        let share = Share { weight: 1, priority: PRIORITY, ..Share::default() };
        let job = Job {
            id: RequestId::new(Uuid::now_v7()),
            tenant: PLATFORM,
            share,
            pin: Some(Pin { tenant, digest: pair.shadow_digest }),
            granted_tokens: job.max_tokens,
            logprobs: None,
            ..job.clone()
        };
        let answer = Answered::default();
        let (pair, queue) = (pair.clone(), self.queue.clone());
        Some(Copy { tenant, pair, job, answer, arrived, queue, _place: place })
    }
}

impl Copy {
    /// This is on its way to the client.
    pub fn saw(&mut self, step: &Step) {
        self.answer.add(step);
    }

    /// The real answer is whole: now the shadow may begin.
    pub fn begin(mut self) {
        self.answer.ms = elapsed_ms(self.arrived);
        let queue = self.queue.clone();
        // There is room for every place; when the task has stopped, nobody compares any more.
        let _ = queue.try_send(self);
    }
}

impl Answered {
    fn add(&mut self, step: &Step) {
        self.tokens.extend(step.tokens.iter().map(|token| token.id));
        self.text.push_str(&step.text);
    }
}

impl Runner {
    async fn run(self: Arc<Self>, mut copies: mpsc::Receiver<Copy>, stop: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = running.join_next(), if !running.is_empty() => {}
                copy = copies.recv(), if running.len() < self.config.running_max => {
                    let Some(copy) = copy else { break };
                    let runner = Arc::clone(&self);
                    running.spawn(async move { runner.answer(copy).await });
                }
            }
        }
        running.shutdown().await;
    }

    /// Holds the copy's place until its outcome is written.
    async fn answer(&self, copy: Copy) {
        let began = Instant::now();
        let shadow = self.generate(&copy.job).await;
        let mut tally = match &shadow {
            Ok(shadow) => compare(&copy.answer, shadow),
            Err(fault) => {
                tracing::info!(reason = fault.reason.as_str(), shadow = %copy.pair.shadow_digest, "shadow failed");
                ShadowTally { failed: 1, ..ShadowTally::default() }
            }
        };
        if shadow.is_ok() {
            tally.shadow_ms = elapsed_ms(began);
            tally.prompt_tokens = copy.job.prompt.len() as u64;
        }
        tally.skipped = self.skipped.take(copy.tenant, &copy.pair);
        let written = self.store.tenant(copy.tenant).add_to_shadow_report(&copy.pair, tally).await;
        if let Err(error) = written {
            tracing::warn!(%error, "a shadow's comparison is lost");
        }
    }

    async fn generate(&self, job: &Job) -> Result<Answered, Fault> {
        let deadline = Deadline::in_time(ms(self.config.deadline_ms));
        deadline
            .bound(async {
                let mut steps = self.workers.generate(job, deadline, |_| {}).await?;
                let mut answered = Answered::default();
                loop {
                    let step = steps.next().await.map_err(Failure::into_fault)?;
                    answered.add(&step);
                    let Some(finished) = step.finished else { continue };
                    if finished.base != job.base || finished.adapter != job.pin.map(|pin| pin.digest) {
                        tracing::error!("a worker ran something else than it was asked to");
                        return Err(Fault::internal());
                    }
                    return Ok(answered);
                }
            })
            .await
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
