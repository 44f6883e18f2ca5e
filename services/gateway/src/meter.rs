//! What one generation used, recorded whatever becomes of it: finished, failed, cut off by the deadline, or dropped
//! because the client went away. Holds the reservation and the open entry of the ledger for as long as it runs.

use std::time::Duration;

use domain::{Fault, Price, Reason};
use store::{End, FinishReason, Outcome, UsageRecord};

use crate::{
    guard::Session,
    ledger::Open,
    limits::{Reservation, Used},
    metrics::Metrics,
};

/// Counts, and settles and records when it ends. Dropping it is an end too.
pub struct Meter {
    session: Session,
    metrics: Metrics,
    record: UsageRecord,
    price: Price,
    /// Both are taken when it ends.
    held: Option<(Reservation, Open)>,
    reached_worker: bool,
}

impl Meter {
    /// For the request whose beginning is `open`.
    pub fn start(
        session: &Session,
        record: UsageRecord,
        price: Price,
        reservation: Reservation,
        open: Open,
        metrics: Metrics,
    ) -> Self {
        Self {
            session: session.clone(),
            metrics,
            record,
            price,
            held: Some((reservation, open)),
            reached_worker: false,
        }
    }

    /// A worker has taken the request, so there will be a record; or it has given it back (`None`).
    pub fn reached(&mut self, worker: Option<&str>) {
        self.reached_worker = worker.is_some();
        worker.unwrap_or_default().clone_into(&mut self.record.worker);
        self.report();
    }

    /// Another worker goes on with the answer.
    pub fn moved(&mut self, worker: &str) {
        self.metrics.resumed();
        self.reached(Some(worker));
    }

    /// So many more tokens are on their way to the client.
    pub fn relayed(&mut self, tokens: usize) {
        if tokens > 0 && self.record.first_token.is_none() {
            let waited = self.session.arrived.elapsed();
            self.record.first_token = Some(waited);
            self.metrics.first_token(waited);
        }
        self.record.completion_tokens += tokens as u64;
        self.report();
    }

    /// Keeps the slot of concurrency.
    pub fn renew(&self) {
        if let Some((reservation, _)) = &self.held {
            reservation.lease().renew();
        }
    }

    /// Ends as the worker says. When this returns, the end is durable in the log and the slot is free.
    pub async fn finish(mut self, reason: FinishReason, used: Counted, wait: Duration) -> Result<(), Fault> {
        self.record.worker = used.worker;
        self.record.prompt_tokens = used.prompt_tokens;
        self.record.cached_prompt_tokens = used.cached_prompt_tokens.min(used.prompt_tokens);
        self.record.completion_tokens = used.completion_tokens;
        self.report();
        let Some((reservation, open)) = self.held.take() else { return Ok(()) };
        let durable = open.end(End::Posted(Box::new(self.record_as(Outcome::Finished(reason)))));
        let (durable, ()) = tokio::join!(tokio::time::timeout(wait, durable), reservation.settle());
        match durable {
            Ok(Ok(())) => Ok(()),
            _ => {
                Err(Fault::new(Reason::BackendUnavailable, "the answer is complete, but its usage is not recorded yet"))
            }
        }
    }

    /// Ends for this reason.
    pub fn fail(mut self, fault: &Fault) {
        self.end(match fault.reason {
            Reason::DeadlineExceeded => Outcome::DeadlineExceeded,
            Reason::Cancelled => Outcome::Cancelled,
            _ => Outcome::Failed,
        });
    }

    fn end(&mut self, outcome: Outcome) {
        let Some((reservation, open)) = self.held.take() else { return };
        // Nobody waits for it: whoever would is gone or has been told. The log has it before the limits hear of it.
        drop(open.end(if self.reached_worker { End::Posted(Box::new(self.record_as(outcome))) } else { End::Voided }));
        drop(reservation);
    }

    fn record_as(&self, outcome: Outcome) -> UsageRecord {
        let duration = self.session.arrived.elapsed();
        let record = UsageRecord { outcome, duration, ..self.record.clone() };
        self.metrics.ended(&record);
        tracing::info!(
            worker = record.worker,
            prompt_tokens = record.prompt_tokens,
            cached_prompt_tokens = record.cached_prompt_tokens,
            completion_tokens = record.completion_tokens,
            cost_micros = record.cost(self.price),
            outcome = ?record.outcome,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "generation ended"
        );
        record
    }

    fn report(&mut self) {
        let UsageRecord { prompt_tokens: input, cached_prompt_tokens: cached, completion_tokens: output, .. } =
            self.record;
        let used = if self.reached_worker { Used { input, cached, output } } else { Used::default() };
        if let Some((reservation, _)) = &mut self.held {
            reservation.used(used);
        }
    }
}

/// Usage as the worker counted it.
#[derive(Clone, Debug)]
pub struct Counted {
    pub worker: String,
    pub prompt_tokens: u64,
    pub cached_prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Drop for Meter {
    fn drop(&mut self) {
        let late = self.session.deadline.is_over();
        self.end(if late { Outcome::DeadlineExceeded } else { Outcome::Cancelled });
    }
}
