//! Carries an answer from the worker to the client, and holds it to its deadline. Whatever ends first ends all: the
//! answer, the client, the deadline, the process. A worker that is lost does not ([`resume`]).

mod grants;
mod resume;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use domain::{Digest, Fault, Reason};
use futures::Stream;
use store::FinishReason;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{deadline::Deadline, guard::Session, meter::Meter, shadow, workers::Step};
pub use grants::{Allowance, Grants};
use resume::Next;
pub use resume::Resumable;

/// What the relay is held to.
pub struct Terms {
    /// What must have run.
    pub base: Digest,
    pub adapter: Option<Digest>,
    /// Whose answer it is, and until when.
    pub session: Session,
    /// Between two renewals of the lease.
    pub renew: Duration,
    /// How long the last step waits for the usage record.
    pub write_wait: Duration,
    /// Steps on their way.
    pub buffer: usize,
}

/// The client's end: steps, the last one with a finish, or a fault in its place. Dropping it cancels.
pub struct Relayed {
    steps: mpsc::Receiver<Step>,
    /// Apart from the steps, so that it never waits for a client that reads slowly.
    fault: Option<oneshot::Receiver<Fault>>,
    finished: bool,
    shadow: Option<shadow::Copy>,
}

/// The relay as a future, to be run, and the client's end of it.
pub fn relay(
    answer: Resumable,
    mut meter: Meter,
    mut grants: Grants,
    terms: Terms,
    stop: CancellationToken,
) -> (impl Future<Output = ()> + Send + 'static, Relayed) {
    let (to_client, steps) = mpsc::channel(terms.buffer);
    let (fault, told) = oneshot::channel();
    let relaying = async move {
        let outcome = tokio::select! {
            biased;
            () = to_client.closed() => Err(Fault::new(Reason::Cancelled, "the client went away")),
            () = tokio::time::sleep_until(terms.session.deadline.instant()) => Err(Deadline::fault()),
            fault = terms.session.revoked() => Err(fault),
            () = stop.cancelled() => Err(Fault::new(Reason::ShuttingDown, "the gateway is stopping")),
            outcome = carry(answer, &mut meter, &mut grants, &terms, &to_client) => outcome,
        };
        let last = match outcome {
            Ok(mut last) => {
                last.limits_from(&grants);
                last
            }
            Err(end) => {
                meter.fail(&end);
                // Nobody hears it when the client has gone.
                let _ = fault.send(end);
                return;
            }
        };
        if let Err(end) = finish(last, meter, &terms, &to_client).await {
            let _ = fault.send(end);
        }
    };
    (relaying, Relayed { steps, fault: Some(told), finished: false, shadow: None })
}

/// Passes on every step but the last, which it returns.
async fn carry(
    mut answer: Resumable,
    meter: &mut Meter,
    grants: &mut Grants,
    terms: &Terms,
    to_client: &mpsc::Sender<Step>,
) -> Result<Step, Fault> {
    let mut renewals = tokio::time::interval(terms.renew);
    renewals.reset();
    loop {
        let step = loop {
            let granted = grants.granted();
            tokio::select! {
                next = answer.next(granted) => match next? {
                    Next::Step(step) => break step,
                    Next::Moved { worker, extender, told } => {
                        meter.moved(&worker);
                        grants.go_on_at(extender, told);
                    }
                },
                () = grants.settle_down() => {}
                _ = renewals.tick() => meter.renew(),
            }
        };
        meter.relayed(step.tokens.len());
        grants.generated(step.tokens.len());
        if step.finished.is_some() {
            return Ok(step);
        }
        loop {
            tokio::select! {
                place = to_client.reserve() => {
                    place.map_err(|_| Fault::new(Reason::Cancelled, "the client went away"))?.send(step);
                    break;
                }
                () = grants.settle_down() => {}
                _ = renewals.tick() => meter.renew(),
            }
        }
    }
}

/// Settles and records, and only then lets the client see the end. Not bound by the deadline: the answer is complete, and
/// waiting for the record has a bound of its own.
async fn finish(last: Step, meter: Meter, terms: &Terms, to_client: &mpsc::Sender<Step>) -> Result<(), Fault> {
    let Some(finished) = &last.finished else { return Err(Fault::internal()) };
    if finished.base != terms.base || finished.adapter != terms.adapter {
        tracing::error!(
            expected = ?(terms.base, terms.adapter),
            ran = ?(finished.base, finished.adapter),
            "a worker ran something else than it was asked to"
        );
        let fault = Fault::internal();
        meter.fail(&fault);
        return Err(fault);
    }
    let used = finished.used.clone();
    meter.finish(finished.reason, used, terms.write_wait).await?;
    let delivered = tokio::time::timeout(terms.write_wait, to_client.send(last)).await;
    match delivered {
        Ok(Ok(())) => Ok(()),
        // Finished and recorded; the client is gone or does not read.
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(Deadline::fault()),
    }
}

impl Step {
    /// Says in the end of an answer which limits have ended it, if they have.
    fn limits_from(&mut self, grants: &Grants) {
        if let Some(finished) = self.finished.as_mut().filter(|finished| finished.reason == FinishReason::Budget) {
            finished.limits = grants.stopped_by();
        }
    }
}

impl Relayed {
    /// Lets a shadow answer too, once this answer has ended as it should.
    #[must_use]
    pub fn shadowed_by(self, shadow: Option<shadow::Copy>) -> Self {
        Self { shadow, ..self }
    }

    fn shadow(&mut self, step: &Step) {
        if let Some(shadow) = &mut self.shadow {
            shadow.saw(step);
        }
        // An answer that a limit cut short is not what the version would have said.
        let whole = step.finished.as_ref().is_some_and(|finished| finished.reason != FinishReason::Budget);
        if whole && let Some(shadow) = self.shadow.take() {
            shadow.begin();
        }
    }
}

impl Stream for Relayed {
    type Item = Result<Step, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(step) = std::task::ready!(self.steps.poll_recv(cx)) {
            self.finished = step.finished.is_some();
            self.shadow(&step);
            return Poll::Ready(Some(Ok(step)));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let Some(fault) = &mut self.fault else { return Poll::Ready(None) };
        let told = std::task::ready!(Pin::new(fault).poll(cx));
        self.fault = None;
        // A relay that ends without a word has panicked.
        Poll::Ready(Some(Err(told.unwrap_or_else(|_| Fault::internal()))))
    }
}
