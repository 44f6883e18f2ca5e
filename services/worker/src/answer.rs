//! Engine to wire: one event of an answer as one message of the stream, and the stream that holds its caller's
//! deadline. Dropping the stream cancels the sequence.

use std::pin::Pin;

use chassis::status::status_of;
use domain::{Fault, Reason};
use engine::{Event, EventStream, FinishReason, Usage};
use futures::{Stream, stream};
use proto::{v1, worker as wire};
use tokio::time::Instant;
use tonic::Status;
use tracing::Span;

pub type Answer = Pin<Box<dyn Stream<Item = Result<wire::GenerateResponse, Status>> + Send>>;

/// What the stream needs besides the events.
pub struct Call {
    pub worker: String,
    pub request_id: String,
    pub deadline: Option<Instant>,
    /// Open until the stream ends.
    pub span: Span,
}

/// The answer as the wire wants it; ends after the first fault.
pub fn stream(events: EventStream, call: Call) -> Answer {
    Box::pin(stream::unfold(Some((events, call)), |state| async {
        let (mut events, call) = state?;
        let event = match call.deadline {
            None => events.next().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(event) => event,
                Err(_) => Some(Event::Failed(late())),
            },
        };
        match event? {
            Event::Failed(fault) => {
                call.span.record("reason", fault.reason.as_str());
                Some((Err(status_of(&fault, &call.request_id)), None))
            }
            event => {
                let message = message(event, &call);
                Some((Ok(message), Some((events, call))))
            }
        }
    }))
}

/// The result of `work`, or `DeadlineExceeded`.
pub async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(late())),
    }
}

fn late() -> Fault {
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
