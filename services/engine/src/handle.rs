//! The engine as everybody else sees it: cheap to clone, from any thread or task.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::{Detail, Digest, Fault, Reason, TenantId};

use crate::answer::Answer;
use crate::events::{EventStream, FinishReason, Usage};
use crate::grammar::{Desk, Guide};
use crate::grant::{Extension, Grant};
use crate::inbox::{Inbox, NotTaken};
use crate::model::Model;
use crate::prefix_cache::Scope;
use crate::request::{Bounds, GenerateRequest};
use crate::residents::{AdapterKey, ResidentStatus};
use crate::scheduler::LineLength;
use crate::sequence::Sequence;
use crate::share::Share;
use crate::status::{Status, StatusBoard, TenantStatus};
use crate::text::TextModel;

/// The subject of the quota that a tenant's full queue is refused with.
pub const TENANT_QUEUE: &str = "tenant_queue";

/// Of an answer that had ended before it came.
const NEVER_ARRIVED: u64 = 0;

/// Whether more may be granted later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grants {
    Open,
    Closed,
}

/// Submits requests to an engine. When the last clone is dropped, the engine ends after the requests that it has.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

struct Shared {
    model: Arc<Model>,
    text: TextModel,
    bounds: Bounds,
    inbox: Arc<Inbox>,
    grammars: Arc<Desk>,
    board: Arc<StatusBoard>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EngineHandle {
    pub(crate) fn new(
        model: Arc<Model>,
        text: TextModel,
        bounds: Bounds,
        inbox: Arc<Inbox>,
        grammars: Arc<Desk>,
        board: Arc<StatusBoard>,
        thread: JoinHandle<()>,
    ) -> Self {
        let thread = Mutex::new(Some(thread));
        Self { shared: Arc::new(Shared { model, text, bounds, inbox, grammars, board, thread }) }
    }

    /// Puts a request into the queue. Never waits. Whether its `response_format` can be served shows later: the stream
    /// then fails with `INVALID_REQUEST`.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with every violation, `CONTEXT_LENGTH` for what can never fit, `QUEUE_FULL` with a retry hint,
    /// `SHUTTING_DOWN`, `WORKER_UNAVAILABLE` when the engine is not healthy.
    pub fn submit(&self, request: GenerateRequest) -> Result<EventStream, Fault> {
        let Shared { model, text, bounds, inbox, grammars, .. } = &*self.shared;
        bounds.check(&request)?;
        let scope = Scope {
            group: request.tenant,
            base: self.base_digest(),
            adapter: request.adapter.map(|key| key.digest),
            rope_key: model.rope_key(request.prompt.len()),
        };
        let granted = request.granted_tokens.filter(|granted| *granted < request.max_tokens);
        let id = granted.and((!request.id.is_empty()).then(|| request.id.clone()));
        let (mut answer, events, progress) =
            Answer::new(&request, text, &model.config().eos_token_ids, self.base_digest());
        let beginning = request.beginning;
        if let Some(reason) = answer.begin_with(&beginning)? {
            finish_at_once(answer, reason, progress.usage());
            return Ok(EventStream::new(events, Arc::clone(inbox), NEVER_ARRIVED, None, progress));
        }
        let mut sequence = Sequence::new(scope, request.adapter, request.prompt, request.max_tokens as usize, answer);
        sequence.begin_with(&beginning.tokens);
        sequence.share = request.share.filled(&bounds.config);
        sequence.grant = Grant::new(granted.unwrap_or(request.max_tokens) as usize);
        sequence.deliver_beginning();
        let guide = |format| Guide::new(grammars, format, beginning.tokens);
        let (guide, compile) = request.response_format.map(guide).unzip();
        sequence.guide = guide;
        let arrival = inbox.submit(sequence, id.clone()).map_err(|reason| self.not_taken(&reason))?;
        if let Some(job) = compile {
            grammars.begin(job);
        }
        Ok(EventStream::new(events, Arc::clone(inbox), arrival, id, progress))
    }

    /// Lets the answer to this request have `granted` tokens in all; never fewer than before. With [`Grants::Closed`] it
    /// ends there with [`crate::FinishReason::Budget`]. Never waits. False if no such request is here, or if it was
    /// granted as a whole.
    pub fn extend(&self, id: &str, granted: u32, more: Grants) -> bool {
        let extension = match more {
            Grants::Open => Extension::More(granted),
            Grants::Closed => Extension::Last(granted),
        };
        self.shared.inbox.extend_by_id(id, extension)
    }

    /// Requests of this tenant that wait, and the prompt tokens that are computed before those of a further one.
    pub fn line(&self, tenant: TenantId) -> LineLength {
        self.shared.inbox.line(tenant)
    }

    /// The terms on which a request with this share runs: every default filled in.
    pub fn terms(&self, share: Share) -> Share {
        share.filled(&self.shared.bounds.config)
    }

    /// How the engine was doing after its latest step, and how many requests wait now.
    pub fn status(&self) -> Status {
        Status { waiting: self.shared.inbox.waiting(), ..self.shared.board.read() }
    }

    /// Every adapter in memory or on its way, ordered by tenant and digest. Made by the engine between two steps, only when asked for;
    /// empty once it has ended.
    pub async fn residents(&self) -> Arc<[ResidentStatus]> {
        self.shared.board.roster.read(|| self.shared.inbox.wake()).await
    }

    /// Whether this adapter is in memory and usable now. Asks nobody and waits for nothing.
    pub fn is_resident(&self, key: &AdapterKey) -> bool {
        self.shared.board.ready.contains(key)
    }

    /// The list that was made last: not new, but had without waiting for a step to end.
    pub fn latest_residents(&self) -> Arc<[ResidentStatus]> {
        self.shared.board.roster.latest()
    }

    /// Tenants that had requests here when [`EngineHandle::residents`] was answered last, those that have had most first:
    /// at most `fairness.listed_tenants_max`.
    pub fn latest_tenants(&self) -> Arc<[TenantStatus]> {
        self.shared.board.tenants()
    }

    /// Waits until a status fulfils `condition`; false if none did in time. Blocks the thread.
    pub fn wait_for(&self, timeout: Duration, condition: impl Fn(&Status) -> bool) -> bool {
        self.shared.board.wait(timeout, condition)
    }

    /// Takes no more requests, finishes those it has, ends the engine's threads. Blocks the thread; streams that are
    /// dropped meanwhile make it shorter.
    pub fn shutdown(&self) {
        self.shared.inbox.stop();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread crashed");
        }
    }

    /// Takes no more requests, and ends those that there are with `SHUTTING_DOWN` at its next turn: they can go on
    /// elsewhere. Never waits.
    pub fn end(&self) {
        self.shared.inbox.end();
    }

    /// Takes no more requests.
    pub fn is_stopping(&self) -> bool {
        self.shared.inbox.is_stopping()
    }

    /// Tokenizer and chat template of the base.
    pub fn text(&self) -> &TextModel {
        &self.shared.text
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.shared.model
    }

    pub fn base_digest(&self) -> Digest {
        self.shared.model.base().digest()
    }

    /// Longest prompt plus answer that this engine serves, in tokens.
    pub fn context_length(&self) -> usize {
        self.shared.bounds.tokens_max()
    }

    /// A handle on the same engine that lets everything in. For tests of what must not happen.
    #[cfg(test)]
    pub(crate) fn without_bounds(&self) -> Self {
        let Shared { model, text, bounds, inbox, grammars, board, .. } = &*self.shared;
        let bounds = Bounds { vocab_size: usize::MAX, ..bounds.clone() };
        let thread = std::thread::spawn(|| ());
        let (inbox, grammars) = (Arc::clone(inbox), Arc::clone(grammars));
        Self::new(Arc::clone(model), text.clone(), bounds, inbox, grammars, Arc::clone(board), thread)
    }

    fn not_taken(&self, reason: &NotTaken) -> Fault {
        let config = &self.shared.bounds.config;
        let fault = match reason {
            NotTaken::Full => Fault::new(
                Reason::QueueFull,
                format!("all {} places in this worker's queue are taken", config.waiting_max),
            ),
            NotTaken::TenantFull(most) => {
                let message =
                    format!("{most} requests of this tenant wait already, which is its part of this worker's queue");
                let description = format!("at most {most} requests of a tenant wait");
                let quota = Detail::Quota { subject: TENANT_QUEUE.to_owned(), description };
                Fault::new(Reason::QueueFull, message).detail(quota)
            }
            NotTaken::Stopping => Fault::new(Reason::ShuttingDown, "this worker is stopping"),
            NotTaken::Unhealthy => Fault::new(Reason::WorkerUnavailable, "this worker is not healthy"),
        };
        fault.retry_after(config.retry_after())
    }
}

/// Another engine has made all of the answer.
fn finish_at_once(mut answer: Answer, reason: FinishReason, usage: Usage) {
    answer.finish(reason, usage);
    answer.deliver();
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}
