//! Reservations that cannot leak: one that is dropped is settled, whatever happened to its request.

use std::{sync::Arc, time::Duration};

use domain::{Fault, Reason};
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Ask, Denied, Explained, Extended, Granted, Left, LimitsUnavailable, RateLimits, Used};
use crate::inbox;

/// Settles and renewals under way at the same time.
const ERRANDS_AT_ONCE: usize = 16;

/// The door: makes reservations. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    limits: Arc<dyn RateLimits>,
    errands: mpsc::Sender<Errand>,
}

/// The right to run one request, with its tokens charged. Dropping it settles it with the tokens reported so far.
#[must_use]
pub struct Reservation {
    lease: Lease,
    granted: Granted,
    used: Used,
    open: bool,
}

/// What a reservation expires without. Renewing or extending one that is settled changes nothing.
#[derive(Clone)]
pub struct Lease {
    admission: Admission,
    ask: Arc<Ask>,
}

/// What is done for a reservation in the background.
enum Errand {
    Settle(Arc<Ask>, Used),
    Renew(Arc<Ask>),
}

impl Admission {
    /// The task ends when the last clone and the last reservation are gone, or when told to stop. `errands_max` bounds its
    /// inbox; what finds no place there is left to the lease's expiry.
    pub fn start(limits: Arc<dyn RateLimits>, errands_max: usize, stop: CancellationToken) -> (Self, JoinHandle<()>) {
        let (errands, inbox) = mpsc::channel(errands_max);
        let keeper = Arc::clone(&limits);
        let task = tokio::spawn(async move {
            inbox::work_off(inbox, ERRANDS_AT_ONCE, stop, |errand| run_errand(keeper.as_ref(), errand)).await;
        });
        (Self { limits, errands }, task)
    }

    /// Charges what is asked for, or refuses with every limit that is in the way.
    pub async fn reserve(&self, ask: Ask) -> Result<Reservation, Fault> {
        // The reservation exists before the answer does: should this call be dropped or time out, it may have charged.
        let lease = Lease { admission: self.clone(), ask: Arc::new(ask) };
        let mut reservation =
            Reservation { lease, granted: Granted { output: 0, at_ms: 0 }, used: Used::default(), open: true };
        let ask = Arc::clone(&reservation.lease.ask);
        match self.limits.reserve(&ask).await {
            Ok(granted) => {
                reservation.granted = granted;
                Ok(reservation)
            }
            Err(Denied::Refused(refusal)) => {
                reservation.open = false;
                Err(refusal.fault(&ask))
            }
            Err(Denied::Unavailable(error)) => Err(unavailable(&error)),
        }
    }

    /// As [`RateLimits::process`].
    pub fn process(&self) -> Uuid {
        self.limits.process()
    }

    /// What [`Admission::reserve`] would say, and how every limit stands; changes nothing.
    pub async fn explain(&self, ask: &Ask) -> Result<Explained, Fault> {
        self.limits.explain(ask).await.map_err(|error| unavailable(&error))
    }
}

/// They do not answer: whoever needs them comes again.
pub fn unavailable(error: &LimitsUnavailable) -> Fault {
    tracing::warn!(%error, "rate limits unavailable, request refused");
    let fault = Fault::new(Reason::BackendUnavailable, "the rate limits cannot be checked now");
    fault.retry_after(Duration::from_secs(1))
}

impl Admission {
    /// What is left of the limits per minute that such a request has.
    pub async fn left(&self, ask: &Ask) -> Vec<Left> {
        self.limits.left(ask).await
    }
}

impl Reservation {
    /// Says what has been used so far, all together.
    pub fn used(&mut self, used: Used) {
        self.used = used;
    }

    /// Tokens of the answer that may be generated before it is extended.
    pub const fn granted(&self) -> u32 {
        self.granted.output
    }

    /// Micro-units that it was charged to begin with: no outcome without an extension costs more.
    pub fn cost(&self) -> u64 {
        self.lease.ask.cost_at_most(self.granted.output.into())
    }

    /// When it was charged, by the clock of the limits, in whole seconds: what it costs belongs to this day and month.
    pub fn at(&self) -> OffsetDateTime {
        let seconds = i64::try_from(self.granted.at_ms / 1_000).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Settles now, so that the slot is free when this returns. If the limits do not answer, it is tried once more in the
    /// background.
    pub async fn settle(mut self) {
        let Lease { admission, ask } = &self.lease;
        match admission.limits.settle(ask, self.used).await {
            Ok(_) => self.open = false,
            Err(error) => tracing::warn!(request_id = %ask.id, %error, "not settled yet"),
        }
    }
}

impl Lease {
    /// Asks for more tokens of the answer, until it has `total` in all.
    pub async fn extend(&self, total: u32) -> Result<Extended, LimitsUnavailable> {
        self.admission.limits.extend(&self.ask, total).await
    }

    /// Begins anew, in the background.
    pub fn renew(&self) {
        if self.admission.errands.try_send(Errand::Renew(Arc::clone(&self.ask))).is_err() {
            tracing::warn!(request_id = %self.ask.id, "lease not renewed: too many errands");
        }
    }

    /// Renews at this interval for as long as `work` takes.
    pub async fn keep_during<T>(&self, interval: Duration, work: impl Future<Output = T>) -> T {
        let mut renewals = tokio::time::interval(interval);
        renewals.reset();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = renewals.tick() => self.renew(),
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let Lease { admission, ask } = &self.lease;
        if admission.errands.try_send(Errand::Settle(Arc::clone(ask), self.used)).is_err() {
            tracing::warn!(request_id = %ask.id, "not settled: too many errands; its lease will expire");
        }
    }
}

async fn run_errand(limits: &dyn RateLimits, errand: Errand) {
    let (ask, outcome) = match errand {
        Errand::Settle(ask, used) => (Arc::clone(&ask), limits.settle(&ask, used).await),
        Errand::Renew(ask) => (Arc::clone(&ask), limits.renew(&ask).await),
    };
    if let Err(error) = outcome {
        tracing::warn!(request_id = %ask.id, %error, "reservation left to its lease");
    }
}
