//! What comes back from the engine, and the stream that it comes back on.

use std::sync::Arc;
use std::task::{Context, Poll};

use domain::{Digest, Fault};
use tokio_sync::sync::mpsc;

use crate::grant::Extension;
use crate::inbox::Inbox;
use crate::progress::Progress;

/// A part of an answer. A stream ends with exactly one `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One per prompt token after the first, natural logarithm; comes once, before the first `Step`.
    PromptLogprobs(Vec<f32>),
    /// New tokens and the text that is decided by now: whole characters, never of or beyond a stop string.
    Step {
        text: String,
        tokens: Vec<Token>,
    },
    /// All that was granted is generated: nothing more comes until [`crate::EngineHandle::extend`] or the end.
    Parked,
    Done {
        reason: FinishReason,
        usage: Usage,
        /// What made the answer.
        base_digest: Digest,
        adapter_digest: Option<Digest>,
    },
    Failed(Fault),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    /// By itself; empty unless log-probabilities were asked for.
    pub text: String,
    /// Natural logarithm of its probability before penalties, temperature and filters.
    pub logprob: Option<f32>,
    pub top: Vec<TopLogprob>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopLogprob {
    pub id: u32,
    pub text: String,
    pub logprob: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token of the model; it is counted and shows in the tokens, not in the text.
    Eos,
    /// A stop string.
    Stop,
    /// `max_tokens`.
    Length,
    /// What was granted is used up, and no more will be.
    Budget,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Of those, how many were not computed because their KV was in the prefix cache.
    pub cached_prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// The events of one request. Dropping it cancels the request.
pub struct EventStream {
    receiver: mpsc::Receiver<Event>,
    inbox: Arc<Inbox>,
    arrival: u64,
    /// Under which it can be extended.
    id: Option<String>,
    progress: Progress,
    ended: bool,
}

impl EventStream {
    pub(crate) fn new(
        receiver: mpsc::Receiver<Event>,
        inbox: Arc<Inbox>,
        arrival: u64,
        id: Option<String>,
        progress: Progress,
    ) -> Self {
        Self { receiver, inbox, arrival, id, progress, ended: false }
    }

    /// What the request has used, also of what nobody has read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next event; `None` after the last. For async code, under any runtime.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`EventStream::next`], for implementations of a stream trait.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(context).map(|event| self.seen(event))
    }

    /// As [`EventStream::next`], for threads.
    ///
    /// # Panics
    /// In async code.
    pub fn blocking_next(&mut self) -> Option<Event> {
        let event = self.receiver.blocking_recv();
        self.seen(event)
    }

    /// Ends the answer with [`FinishReason::Budget`], if it is parked now; the events that end it follow.
    pub fn end_if_parked(&self) {
        self.inbox.extend(self.arrival, Extension::EndIfParked);
    }

    /// An engine that died says nothing: the end is a failure unless an end was announced.
    fn seen(&mut self, event: Option<Event>) -> Option<Event> {
        let event = event.or_else(|| (!self.ended).then(|| Event::Failed(Fault::internal())));
        self.ended |= matches!(event, Some(Event::Done { .. } | Event::Failed(_)));
        event
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.receiver.close();
        self.inbox.stream_dropped(self.arrival, self.id.as_deref(), self.ended);
    }
}
