//! A generation under way on a worker. Dropping it drops the stream, which the worker sees at its next step.

use domain::{Digest, Fault, Reason};
use proto::{v1, worker as wire};
use store::FinishReason;
use tonic::Streaming;

use super::{
    peer::{Busy, Failure, judge},
    wire as convert,
};
use crate::{deadline::Deadline, meter::Used};

/// What one message of a worker says.
#[derive(Debug)]
pub struct Step {
    pub text: String,
    /// As they go on to the client.
    pub tokens: Vec<v1::Token>,
    /// In the last one.
    pub finished: Option<Finished>,
}

#[derive(Debug)]
pub struct Finished {
    pub reason: FinishReason,
    pub used: Used,
    /// Of what actually ran.
    pub base: Digest,
    pub adapter: Option<Digest>,
}

pub struct Answer {
    first: Option<Step>,
    steps: Streaming<wire::GenerateResponse>,
    deadline: Deadline,
    _busy: Busy,
}

impl Answer {
    pub(super) const fn new(
        first: Step,
        steps: Streaming<wire::GenerateResponse>,
        busy: Busy,
        deadline: Deadline,
    ) -> Self {
        Self { first: Some(first), steps, deadline, _busy: busy }
    }

    /// The next step. An answer that ends without a finish is a fault, so this is never called after one.
    pub async fn next(&mut self) -> Result<Step, Fault> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let failure = match self.steps.message().await {
            Ok(Some(step)) => match convert::step(step) {
                Ok(step) => return Ok(step),
                Err(failure) => failure,
            },
            Ok(None) => Failure::Gone { cause: "the stream ended without a finish".to_owned(), unwell: false },
            Err(status) => judge(&status, self.deadline),
        };
        Err(match failure {
            Failure::Refused(fault) | Failure::Full(fault) => fault,
            Failure::Gone { cause, .. } => {
                tracing::warn!(cause, "worker lost in the middle of an answer");
                Fault::new(
                    Reason::WorkerUnavailable,
                    "the worker that was answering is gone; what it sent is not the whole",
                )
            }
        })
    }
}
