//! Engine to wire: one event of an answer as one message of the stream, and the stream that holds its caller's
//! deadline. Dropping the stream cancels the sequence.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use chassis::status::status_of;
use domain::{Fault, Reason};
use engine::{Event, EventStream, FinishReason, Usage};
use futures::Stream;
use proto::{v1, worker as wire};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tracing::Span;

/// What the stream needs besides the events.
pub struct Call {
    pub worker: String,
    pub request_id: String,
    pub deadline: Option<Instant>,
    /// Open until the stream ends.
    pub span: Span,
}

/// The answer as the wire wants it; ends after the first fault.
pub struct Answer {
    events: EventStream,
    call: Call,
    /// One timer for the whole answer: none is made and dropped again for a token.
    late: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Answer {
    pub fn new(events: EventStream, call: Call) -> Self {
        let late = call.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { events, call, late, ended: false }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Poll::Ready(event) = self.events.poll_next(context) {
            return Poll::Ready(event);
        }
        match &mut self.late {
            Some(late) => late.as_mut().poll(context).map(|()| Some(Event::Failed(too_late()))),
            None => Poll::Pending,
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
        // Asked for by `score` alone, which does not come this way; failures end the stream before this.
        Event::PromptLogprobs(_) | Event::Failed(_) => wire::GenerateResponse::default(),
    }
}

fn token(token: engine::Token) -> v1::Token {
    let top = token.top.into_iter();
    v1::Token {
        id: token.id,
        logprob: token.logprob,
        top_logprobs: top.map(|top| v1::TopLogprob { id: top.id, text: top.text, logprob: top.logprob }).collect(),
    }
}

const fn finish_reason(reason: FinishReason) -> v1::FinishReason {
    match reason {
        FinishReason::Eos => v1::FinishReason::Eos,
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
    }
}

const fn usage_of(usage: Usage) -> v1::Usage {
    v1::Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_prompt_tokens: usage.cached_prompt_tokens,
        completion_tokens: usage.completion_tokens,
    }
}
