//! A generation under way on a worker. Dropping it drops the stream, which the worker sees at its next step.

use std::{pin::Pin, sync::Arc};

use domain::{Digest, RequestId};
use proto::{v1, worker as wire};
use store::FinishReason;
use tokio::time::{Instant, Sleep};
use tonic::Streaming;

use super::{
    heat::Warm,
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
    /// Counts as load of its key.
    warm: Option<Warm>,
    /// When the last step came; none before the first, which may be long in coming.
    heard: Option<Instant>,
    /// One timer for the whole answer: it is set anew only when it goes off.
    silence: Pin<Box<Sleep>>,
}

impl Answer {
    pub(super) fn new(
        first: Option<Step>,
        steps: Streaming<wire::GenerateResponse>,
        id: RequestId,
        busy: Busy,
        deadline: Deadline,
    ) -> Self {
        let heard = first.as_ref().map(|_| Instant::now());
        let silence = Box::pin(tokio::time::sleep(busy.peer().step_timeout()));
        Self { first, steps, id, deadline, busy, warm: None, heard, silence }
    }

    pub(super) fn keep(mut self, warm: Warm) -> Self {
        self.warm = Some(warm);
        self
    }

    /// As the worker calls itself.
    pub fn worker(&self) -> String {
        self.busy.peer().name()
    }

    pub(super) fn peer(&self) -> Arc<Peer> {
        self.busy.peer()
    }

    pub fn extender(&self) -> Extender {
        Extender { peer: self.busy.peer(), id: self.id, deadline: self.deadline }
    }

    /// The next step; nothing is lost when it is not waited for. An answer that ends without a finish is a failure, so
    /// this is never called after one.
    pub async fn next(&mut self) -> Result<Step, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            tokio::select! {
                biased;
                message = self.steps.message() => {
                    self.heard = Some(Instant::now());
                    return match message {
                        Ok(Some(step)) => convert::step(step),
                        Ok(None) => {
                            let cause = "the stream ended without a finish".to_owned();
                            Err(Failure::Gone { cause, unwell: false })
                        }
                        Err(status) => Err(judge(&status, self.deadline)),
                    };
                }
                () = self.silence.as_mut() => {
                    let timeout = self.busy.peer().step_timeout();
                    let until = self.heard.unwrap_or_else(Instant::now) + timeout;
                    if until <= Instant::now() {
                        return Err(Failure::Gone { cause: "no step in time".to_owned(), unwell: true });
                    }
                    self.silence.as_mut().reset(until);
                }
            }
        }
    }
}
