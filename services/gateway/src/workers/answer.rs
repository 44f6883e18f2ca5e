//! A generation under way on a worker. Dropping it drops the stream, which the worker sees at its next step.

use std::sync::Arc;

use domain::{Digest, Fault, Reason, RequestId};
use proto::{v1, worker as wire};
use store::FinishReason;
use tonic::Streaming;

use super::{
    peer::{Busy, Failure, Peer, judge},
    wire as convert,
};
use crate::{deadline::Deadline, meter::Counted};

/// What one message of a worker says.
#[derive(Clone, Debug)]
pub struct Step {
    pub text: String,
    /// As they go on to the client.
    pub tokens: Vec<v1::Token>,
    /// In the last one.
    pub finished: Option<Finished>,
}

#[derive(Clone, Debug)]
pub struct Finished {
    pub reason: FinishReason,
    pub used: Counted,
    /// Of what actually ran.
    pub base: Digest,
    pub adapter: Option<Digest>,
    /// With [`FinishReason::Budget`]: the limits that left no more.
    pub limits: Vec<String>,
}

/// Tells the worker of an answer how far it may go.
#[derive(Clone)]
pub struct Extender {
    peer: Arc<Peer>,
    id: RequestId,
    deadline: Deadline,
}

impl Extender {
    /// `granted` tokens in all; with `last` the answer ends there. Ends with the cause when the worker was not told.
    pub async fn extend(&self, granted: u32, last: bool) -> Result<(), String> {
        let told = self.peer.extend(self.id, granted, last, self.deadline).await;
        told.map_err(|failure| failure.to_string())
    }
}

pub struct Answer {
    first: Option<Step>,
    steps: Streaming<wire::GenerateResponse>,
    id: RequestId,
    deadline: Deadline,
    busy: Busy,
}

impl Answer {
    pub(super) const fn new(
        first: Step,
        steps: Streaming<wire::GenerateResponse>,
        id: RequestId,
        busy: Busy,
        deadline: Deadline,
    ) -> Self {
        Self { first: Some(first), steps, id, deadline, busy }
    }

    pub fn extender(&self) -> Extender {
        Extender { peer: self.busy.peer(), id: self.id, deadline: self.deadline }
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
