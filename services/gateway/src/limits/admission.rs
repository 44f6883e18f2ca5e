//! Reservations that cannot leak: one that is dropped is settled, whatever happened to its request.

use std::{sync::Arc, time::Duration};

use domain::{Fault, Reason, RequestId, TenantId};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Ask, Denied, RateLimits};
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
    used: u64,
    open: bool,
}

/// What a reservation expires without. Renewing one that is settled changes nothing.
#[derive(Clone)]
pub struct Lease {
    admission: Admission,
    tenant: TenantId,
    id: RequestId,
    duration: Duration,
}

/// What is done for a reservation in the background.
enum Errand {
    Settle { tenant: TenantId, id: RequestId, used: u64 },
    Renew { tenant: TenantId, id: RequestId, lease: Duration },
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
        let mut reservation = Reservation {
            lease: Lease { admission: self.clone(), tenant: ask.tenant, id: ask.id, duration: ask.lease },
            used: 0,
            open: true,
        };
        match self.limits.reserve(&ask).await {
            Ok(()) => Ok(reservation),
            Err(Denied::Refused(refusal)) => {
                reservation.open = false;
                Err(refusal.fault(&ask))
            }
            Err(Denied::Unavailable(error)) => {
                tracing::error!(%error, "rate limits unavailable, request refused");
                Err(Fault::new(Reason::BackendUnavailable, "the rate limits cannot be checked now")
                    .retry_after(Duration::from_secs(1)))
            }
        }
    }
}

impl Reservation {
    /// Says how many tokens have been used so far, all together.
    pub fn used(&mut self, tokens: u64) {
        self.used = tokens;
    }

    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Settles now, so that the slot is free when this returns. If the limits do not answer, it is tried once more in the
    /// background.
    pub async fn settle(mut self) {
        let Lease { admission, tenant, id, .. } = &self.lease;
        match admission.limits.settle(*tenant, *id, self.used).await {
            Ok(_) => self.open = false,
            Err(error) => tracing::warn!(request_id = %id, %error, "not settled yet"),
        }
    }
}

impl Lease {
    /// Begins anew, in the background.
    pub fn renew(&self) {
        let errand = Errand::Renew { tenant: self.tenant, id: self.id, lease: self.duration };
        if self.admission.errands.try_send(errand).is_err() {
            tracing::warn!(request_id = %self.id, "lease not renewed: too many errands");
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
        let Lease { admission, tenant, id, .. } = &self.lease;
        let errand = Errand::Settle { tenant: *tenant, id: *id, used: self.used };
        if admission.errands.try_send(errand).is_err() {
            tracing::warn!(request_id = %id, "not settled: too many errands; its lease will expire");
        }
    }
}

async fn run_errand(limits: &dyn RateLimits, errand: Errand) {
    let (id, outcome) = match errand {
        Errand::Settle { tenant, id, used } => (id, limits.settle(tenant, id, used).await),
        Errand::Renew { tenant, id, lease } => (id, limits.renew(tenant, id, lease).await),
    };
    if let Err(error) = outcome {
        tracing::warn!(request_id = %id, %error, "reservation left to its lease");
    }
}
