//! Requests that their clients have named (`client_request_id`): a repeat joins the answer that is running or gets the one
//! that is finished, and is billed once. A key's names are its own.
//!
//! - **Who answers** is decided in PostgreSQL, by one statement for all gateways ([`store::Claimed`]). A run renews its claim;
//!   one whose gateway died loses it, and the next repeat runs anew with the same seed.
//! - **A run belongs to nobody's connection.** It goes on when its client goes away, to its end or its deadline: whoever
//!   comes back finds it. What would otherwise be cancelled is billed once instead of twice.
//! - **On its own gateway** everybody who asks follows the run step by step. On another one a repeat waits for the stored answer.
//! - **The answer is stored before its end is told**, and only then. What fails is forgotten: a repeat runs anew.
//! - **What is kept of a tenant is bounded**: beyond it new names are refused. Nothing is forgotten before its window is over,
//!   for whoever has an answer was promised that it is billed once. Replays have a rate limit of their own.
//!
//! What an answer is stands in [`crate::generate`]; here nothing is generated, reserved or billed.

mod recording;
mod replays;
mod stored;
mod sweep;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use domain::{ClientRequestId, Detail, Digest, Fault, Reason, RequestId};
use futures::{Stream, StreamExt as _};
use store::{Claimed, ClientRequest, Full, FullOf, MostKept, NewRun, Store, TenantScope};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::{
    access,
    config::{IdempotencyConfig, ms},
    generate::Generator,
    guard::Session,
    models::tenant_of,
    parse::GenerateRequest,
    relay::Relayed,
    store_fault::StoreFault as _,
    workers::Step,
};
use recording::{Follower, Recorder, Recording};
use replays::Replays;
pub use sweep::sweep;

/// A request's name, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub id: ClientRequestId,
    pub fingerprint: Digest,
}

/// An answer that has begun, whoever began it.
pub struct Answering {
    /// Of the run that answers; not that of the call, when this is a repeat.
    pub id: RequestId,
    pub seed: u64,
    pub repeated: bool,
    pub steps: Steps,
}

/// The steps of an answer, the last one with a finish, or a fault in its place.
pub enum Steps {
    /// Dropping it cancels.
    Own(Box<Relayed>),
    /// Of a run that others may follow too; dropping it changes nothing.
    Followed(Box<Follower>),
    Stored(Option<Box<Step>>),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Repeats {
    store: Store,
    config: IdempotencyConfig,
    /// Runs of this gateway.
    running: Arc<Mutex<HashMap<RequestId, Recording>>>,
    room: Arc<Semaphore>,
    replays: Arc<Replays>,
    tasks: TaskTracker,
}

impl Repeats {
    /// Runs are tracked by `tasks`.
    pub fn new(store: Store, config: &IdempotencyConfig, tasks: TaskTracker) -> Self {
        let room = Arc::new(Semaphore::new(config.running_max));
        let replays = Arc::new(Replays::new(config.replays_per_minute));
        Self { store, config: config.clone(), running: Arc::default(), room, replays, tasks }
    }

    /// Answers a request, or joins it to the answer of an earlier one of its name.
    pub async fn answer(
        &self,
        generator: &Generator,
        session: Session,
        mut request: GenerateRequest,
    ) -> Result<Answering, Fault> {
        let Some(name) = request.name.take() else {
            let (id, seed) = (session.id, request.sampling.seed);
            let steps = Steps::Own(Box::new(generator.generate(session, request).await?));
            return Ok(Answering { id, seed, repeated: false, steps });
        };
        let (tenant, key) = tenant_of(&session.identity)?;
        access::admit_model(&request.model, session.identity.models.as_deref())?;
        let scope = self.store.tenant(tenant);
        let known = ClientRequest { key, id: name.id };
        let new = NewRun {
            run: session.id,
            fingerprint: name.fingerprint,
            seed: request.sampling.seed,
            claim: ms(self.config.claim_ms),
            window: ms(self.config.window_ms),
            most: self.most(),
        };
        let mut counted = false;
        loop {
            let claimed = scope.claim_client_request(&known, new).await.map_err(|error| error.fault(&known.id))?;
            if matches!(claimed, Claimed::Answered { .. } | Claimed::Running { .. }) && !counted {
                self.replays.take(tenant, Instant::now())?;
                counted = true;
            }
            match claimed {
                Claimed::Own { seed } => {
                    request.sampling.seed = seed;
                    return self.begin(generator, session, request, Claim { scope, known }).await;
                }
                Claimed::Answered { run, seed, answer } => {
                    let step = Box::new(stored::read(&answer)?);
                    return Ok(Answering { id: run, seed, repeated: true, steps: Steps::Stored(Some(step)) });
                }
                Claimed::Running { run, seed } => {
                    if let Some(recording) = self.recording(run) {
                        let steps = Steps::Followed(Box::new(recording.follow(session.deadline).begun().await?));
                        return Ok(Answering { id: run, seed, repeated: true, steps });
                    }
                }
                Claimed::Mismatch => return Err(mismatch(&known.id)),
                Claimed::Full(full) => return Err(self.full(full)),
            }
            // The guard gives up at the deadline.
            tokio::time::sleep(ms(self.config.poll_ms)).await;
        }
    }

    /// Runs it as a task of its own, and follows it.
    async fn begin(
        &self,
        generator: &Generator,
        session: Session,
        request: GenerateRequest,
        claim: Claim,
    ) -> Result<Answering, Fault> {
        let (id, seed, deadline) = (session.id, request.sampling.seed, session.deadline);
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            claim.release(id).await;
            let full = Fault::new(Reason::QueueFull, "too many requests with a client_request_id are running here");
            return Err(full.retry_after(ms(self.config.poll_ms)));
        };
        let (recorder, recording) = recording::record(self.config.answer_bytes_max);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, recording.clone());
        let run = self.clone().run(generator.clone(), session, request, claim, recorder, permit);
        self.tasks.spawn(run.in_current_span());
        let steps = Steps::Followed(Box::new(recording.follow(deadline).begun().await?));
        Ok(Answering { id, seed, repeated: false, steps })
    }

    async fn run(
        self,
        generator: Generator,
        session: Session,
        request: GenerateRequest,
        claim: Claim,
        mut recorder: Recorder,
        _permit: OwnedSemaphorePermit,
    ) {
        let id = session.id;
        let mut renewals = tokio::time::interval(ms(self.config.renew_ms));
        renewals.reset();
        let outcome = {
            let mut carrying = std::pin::pin!(carry(&generator, session, request, &claim, &mut recorder));
            loop {
                tokio::select! {
                    outcome = &mut carrying => break outcome,
                    _ = renewals.tick() => claim.renew(id, ms(self.config.claim_ms)).await,
                }
            }
        };
        if outcome.is_err() {
            // First, so that a repeat that comes as soon as this is heard runs anew.
            claim.release(id).await;
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        recorder.end(outcome);
    }

    fn most(&self) -> MostKept {
        let IdempotencyConfig { requests_per_tenant_max, bytes_per_tenant_max, answer_bytes_max, .. } = self.config;
        MostKept {
            requests: requests_per_tenant_max,
            bytes: bytes_per_tenant_max,
            answer_bytes: answer_bytes_max as u64,
        }
    }

    fn full(&self, full: Full) -> Fault {
        let (limit, most, what) = match full.kind {
            FullOf::Requests => ("requests", self.config.requests_per_tenant_max.into(), "requests"),
            FullOf::Bytes => ("bytes", self.config.bytes_per_tenant_max, "bytes of answers"),
        };
        let subject = format!("idempotency.{limit}_per_tenant_max");
        let words = format!(
            "{most} {what} with a client_request_id are kept for this tenant, which is the most: \
             wait until the oldest window is over, or send the request without a client_request_id"
        );
        let quota = Detail::Quota { description: format!("{subject} is {most}"), subject };
        Fault::new(Reason::RateLimited, words).detail(quota).retry_after(full.retry_after)
    }

    fn recording(&self, run: RequestId) -> Option<Recording> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}

/// Returns the last step, after it is stored.
async fn carry(
    generator: &Generator,
    session: Session,
    request: GenerateRequest,
    claim: &Claim,
    recorder: &mut Recorder,
) -> Result<Step, Fault> {
    let (id, seed) = (session.id, request.sampling.seed);
    let mut steps = generator.generate(session, request).await?;
    while let Some(step) = steps.next().await {
        let step = step?;
        if step.finished.is_none() {
            recorder.add(step)?;
            continue;
        }
        let whole = stored::write(&recorder.whole_with(&step), id, seed);
        match claim.scope.answer_client_request(&claim.known, id, &whole).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the claim on a client_request_id was lost: repeats get another run's answer"),
            // It is generated and billed: withholding it would help nobody.
            Err(error) => tracing::error!(%error, "an answer is not stored: a repeat of it would run anew"),
        }
        return Ok(step);
    }
    Err(Fault::internal())
}

/// A request of which this gateway has the run.
struct Claim {
    scope: TenantScope,
    known: ClientRequest,
}

impl Claim {
    async fn renew(&self, run: RequestId, claim: std::time::Duration) {
        match self.scope.renew_client_request(&self.known, run, claim).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the claim on a client_request_id was lost"),
            Err(error) => tracing::warn!(%error, "the claim on a client_request_id is not renewed"),
        }
    }

    async fn release(&self, run: RequestId) {
        if let Err(error) = self.scope.release_client_request(&self.known, run).await {
            tracing::warn!(%error, "the claim on a client_request_id is left to run out");
        }
    }
}

fn mismatch(id: &ClientRequestId) -> Fault {
    let words = format!("`{id}` was given to another request: use a new client_request_id for each");
    Fault::new(Reason::IdempotencyMismatch, &words).detail(domain::Detail::Violation {
        field: "client_request_id".to_owned(),
        reason: Reason::IdempotencyMismatch.as_str().to_owned(),
        description: words,
    })
}

impl Stream for Steps {
    type Item = Result<Step, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Own(relayed) => Pin::new(relayed.as_mut()).poll_next(cx),
            Self::Followed(follower) => Pin::new(follower.as_mut()).poll_next(cx),
            Self::Stored(step) => Poll::Ready(step.take().map(|step| Ok(*step))),
        }
    }
}
