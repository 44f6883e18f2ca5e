//! Engine to wire: one event of an answer as one message of the stream, and the stream that holds its caller's
//! deadline. Dropping the stream cancels the sequence.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use chassis::status::status_of;
use domain::{Fault, Reason};
use engine::{EngineHandle, Event, EventStream, FinishReason, Usage};
use futures::Stream;
use proto::{v1, worker as wire};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tracing::Span;

use crate::{
    forecast::{Forecast, Probe},
    usage::Kept,
};

/// What the stream needs besides the events.
pub struct Call {
    pub worker: String,
    pub request_id: String,
    pub deadline: Option<Instant>,
    /// How long it waits for a further grant.
    pub grant_wait: Duration,
    pub first_token: FirstToken,
    /// What it uses is known for as long as this lives, and for a while after.
    pub _kept: Kept,
    /// Open until the stream ends.
    pub span: Span,
}

/// How fast the worker is shows in how long a first token takes.
pub struct FirstToken {
    pub forecast: Arc<Forecast>,
    pub probe: Probe,
    pub engine: EngineHandle,
}

/// The answer as the wire wants it; ends after the first fault.
pub struct Answer {
    events: EventStream,
    call: Call,
    /// One timer for the whole answer: none is made and dropped again for a token.
    late: Option<Pin<Box<Sleep>>>,
    /// When it ends for want of a further grant; none unless it has all that it was granted.
    parked_until: Option<Pin<Box<Sleep>>>,
    begun: bool,
    ended: bool,
}

impl Answer {
    pub fn new(events: EventStream, call: Call) -> Self {
        let late = call.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { events, call, late, parked_until: None, begun: false, ended: false }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        while let Poll::Ready(event) = self.events.poll_next(context) {
            self.parked_until = match event {
                Some(Event::Parked) => Some(Box::pin(tokio::time::sleep(self.call.grant_wait))),
                event => {
                    self.look_at_first(event.as_ref());
                    self.parked_until = None;
                    return Poll::Ready(event);
                }
            };
        }
        if self.parked_until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready()) {
            // Unless a grant has come meanwhile, the end follows.
            self.events.end_if_parked();
            self.parked_until = None;
        }
        match &mut self.late {
            Some(late) => late.as_mut().poll(context).map(|()| Some(Event::Failed(too_late()))),
            None => Poll::Pending,
        }
    }

    fn look_at_first(&mut self, event: Option<&Event>) {
        if !self.begun && matches!(event, Some(Event::Step { .. })) {
            self.begun = true;
            let FirstToken { forecast, probe, engine } = &self.call.first_token;
            forecast.end(probe, &engine.status());
        }
    }
}

impl Stream for Answer {
    type Item = Result<wire::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(context));
        Poll::Ready(event.map(|event| match event {
            Event::Failed(fault) => {
                self.ended = true;
                self.call.span.record("reason", fault.reason.as_str());
                Err(status_of(&fault, &self.call.request_id))
            }
            event => Ok(message(event, &self.call)),
        }))
    }
}

/// The result of `work`, or `DeadlineExceeded`.
pub async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(too_late())),
    }
}

fn too_late() -> Fault {
    Fault::new(Reason::DeadlineExceeded, "the caller's deadline passed before the answer was done")
}

fn message(event: Event, call: &Call) -> wire::GenerateResponse {
    match event {
        Event::Step { text, tokens } => {
            wire::GenerateResponse { text, tokens: tokens.into_iter().map(token).collect(), finish: None }
        }
        Event::Done { reason, usage, base_digest, adapter_digest } => {
            call.span.record("reason", tracing::field::debug(reason));
            call.span.record("completion_tokens", usage.completion_tokens);
            let finish = wire::WorkerFinish {
                reason: finish_reason(reason).into(),
                usage: Some(usage_of(usage)),
                base_digest: base_digest.to_string(),
                adapter_digest: adapter_digest.map(|digest| digest.to_string()).unwrap_or_default(),
                worker: call.worker.clone(),
            };
            wire::GenerateResponse { finish: Some(finish), ..wire::GenerateResponse::default() }
        }
        // Asked for by `score` alone, which does not come this way; failures and grants are seen to before this.
        Event::PromptLogprobs(_) | Event::Parked | Event::Failed(_) => wire::GenerateResponse::default(),
    }
}

fn token(token: engine::Token) -> v1::Token {
    let top = token.top.into_iter();
    v1::Token {
        id: token.id,
        text: token.text,
        logprob: token.logprob,
        top_logprobs: top.map(|top| v1::TopLogprob { id: top.id, text: top.text, logprob: top.logprob }).collect(),
    }
}

const fn finish_reason(reason: FinishReason) -> v1::FinishReason {
    match reason {
        FinishReason::Eos => v1::FinishReason::Eos,
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::Budget => v1::FinishReason::Budget,
    }
}

pub const fn usage_of(usage: Usage) -> v1::Usage {
    v1::Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_prompt_tokens: usage.cached_prompt_tokens,
        completion_tokens: usage.completion_tokens,
    }
}
