//! One worker: its connection, what is known of its health and load, and calls to it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chassis::{
    status::{fault_of, request_id_of},
    trace_context,
};
use domain::{Digest, Fault, Reason, RequestId};
use proto::worker::{self as wire, worker_service_client::WorkerServiceClient};
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{Answer, Job, Pin, WorkersError, wire as convert};
use crate::{
    config::{WorkersConfig, ms},
    deadline::Deadline,
    guard::REQUEST_ID,
    meter::Counted,
};

/// The worker may take this much longer than we wait, so that whose clock runs out first is never in doubt.
const DEADLINE_SLACK: Duration = Duration::from_millis(20);

pub struct Peer {
    url: String,
    client: WorkerServiceClient<Channel>,
    token: MetadataValue<Ascii>,
    in_flight_max: usize,
    step_timeout: Duration,
    in_flight: AtomicUsize,
    seen: Mutex<Arc<Seen>>,
}

/// What the last look has shown.
#[derive(Clone, Default)]
pub struct Seen {
    /// It answers, has our base and takes new requests.
    pub well: bool,
    /// How it calls itself.
    pub name: String,
    pub waiting: u32,
    pub waiting_max: u32,
    /// Another one after each of its starts.
    pub epoch: String,
    /// Answers there that are not from here.
    pub others: usize,
    /// Adapters in its memory, with the answers that use them.
    pub residents: Arc<HashMap<Digest, u32>>,
}

/// Why a worker did not do what it was asked.
pub enum Failure {
    /// It is the request's fault: another worker would say the same.
    Refused(Fault),
    /// The queue of this one is full.
    Full(Fault),
    /// It is this worker's fault. `unwell`: expect nothing of it until the next look.
    Gone { cause: String, unwell: bool },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(fault) | Self::Full(fault) => &fault.message,
            Self::Gone { cause, .. } => cause,
        })
    }
}

impl Failure {
    /// For whoever has no other worker go on.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Refused(fault) | Self::Full(fault) => fault,
            Self::Gone { cause, .. } => {
                tracing::warn!(cause, "worker lost in the middle of an answer");
                Fault::new(Reason::WorkerUnavailable, "the worker that was answering is gone")
            }
        }
    }

    /// When the time for one call ran out and the caller's has not, it is the worker's fault.
    pub fn seen_by(self, caller: Deadline) -> Self {
        match self {
            Self::Refused(fault) if fault.reason == Reason::DeadlineExceeded && !caller.is_over() => {
                Self::Gone { cause: "no answer in time".to_owned(), unwell: true }
            }
            other => other,
        }
    }
}

/// Counts as running on a worker while it lives.
pub struct Busy(Arc<Peer>);

impl Peer {
    pub fn new(url: &str, token: &MetadataValue<Ascii>, config: &WorkersConfig) -> Result<Self, WorkersError> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| WorkersError::Url { url: url.to_owned(), fault: error.to_string() })?;
        let channel = endpoint
            .connect_timeout(ms(config.connect_timeout_ms))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ms(config.keepalive_interval_ms))
            .keep_alive_timeout(ms(config.keepalive_timeout_ms))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self {
            url: url.to_owned(),
            client: WorkerServiceClient::new(channel).max_decoding_message_size(config.message_bytes_max),
            token: token.clone(),
            in_flight_max: config.in_flight_max,
            step_timeout: ms(config.step_timeout_ms),
            in_flight: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// As it calls itself, as far as that is known.
    pub fn name(&self) -> String {
        let seen = self.seen();
        if seen.name.is_empty() { self.url.clone() } else { seen.name.clone() }
    }

    /// Longest time between two steps of an answer.
    pub const fn step_timeout(&self) -> Duration {
        self.step_timeout
    }

    pub fn is_well(&self) -> bool {
        self.seen().well
    }

    /// Better somewhere else, if there is somewhere else.
    pub fn is_busy(&self) -> bool {
        let seen = self.seen();
        let queue_is_full = seen.waiting_max > 0 && seen.waiting >= seen.waiting_max;
        queue_is_full || self.own_load() + seen.others >= self.in_flight_max
    }

    /// Answers there: those of this gateway as of now, those of others as of the last look.
    pub fn load(&self) -> usize {
        self.own_load() + self.seen().others
    }

    /// Answers of this gateway there.
    pub fn own_load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Answers there that use this adapter, as of the last look; none if it is not in memory.
    pub fn uses(&self, adapter: &Digest) -> Option<u32> {
        self.seen().residents.get(adapter).copied()
    }

    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers what a look has shown; says whether it was well before.
    pub fn update(&self, seen: Seen) -> bool {
        std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), Arc::new(seen)).well
    }

    pub fn mark_unwell(&self) {
        Arc::make_mut(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner)).well = false;
    }

    pub async fn status(&self, deadline: Deadline) -> Result<wire::Status, Failure> {
        let request = self.dress(wire::GetStatusRequest {}, None, deadline);
        bounded(deadline, self.client.clone().get_status(request)).await
    }

    pub async fn base(&self, deadline: Deadline) -> Result<wire::Base, Failure> {
        let request = self.dress(wire::GetBaseRequest {}, None, deadline);
        bounded(deadline, self.client.clone().get_base(request)).await
    }

    pub async fn tokenize(
        &self,
        message: wire::TokenizeRequest,
        id: RequestId,
        deadline: Deadline,
    ) -> Result<Vec<u32>, Failure> {
        let request = self.dress(message, Some(id), deadline);
        Ok(bounded(deadline, self.client.clone().tokenize(request)).await?.ids)
    }

    pub async fn probe(&self, pin: Pin, id: RequestId, deadline: Deadline) -> Result<f64, Failure> {
        let message = wire::ProbeAdapterRequest { adapter: Some(convert::pin(pin)) };
        let request = self.dress(message, Some(id), deadline);
        Ok(bounded(deadline, self.client.clone().probe_adapter(request)).await?.max_delta)
    }

    /// Lets a generation go on until it has `granted` tokens in all, or end there.
    pub async fn extend(&self, id: RequestId, granted: u32, last: bool, deadline: Deadline) -> Result<(), Failure> {
        let message = wire::ExtendRequest { request_id: id.to_string(), granted_tokens: granted, last };
        let request = self.dress(message, Some(id), deadline);
        bounded(deadline, self.client.clone().extend(request)).await.map(|_| ())
    }

    /// What it knows of these requests: what each has used, and whether it has ended.
    pub async fn usage(
        &self,
        requests: &[RequestId],
        deadline: Deadline,
    ) -> Result<Vec<(RequestId, Counted, bool)>, Failure> {
        let message = wire::GetUsageRequest { request_ids: requests.iter().map(ToString::to_string).collect() };
        let request = self.dress(message, None, deadline);
        let answer = bounded(deadline, self.client.clone().get_usage(request)).await?;
        let name = self.name();
        Ok(answer.usages.into_iter().filter_map(|usage| convert::usage(usage, &name)).collect())
    }

    /// Starts a generation and waits for its first step.
    pub async fn generate(
        self: &Arc<Self>,
        job: &Job,
        deadline: Deadline,
        reached: &mut impl FnMut(Option<&str>),
    ) -> Result<Answer, Failure> {
        let (mut steps, busy) = self.begin(job, deadline).await?;
        reached(Some(&self.name()));
        let first = tokio::time::timeout_at(deadline.instant(), steps.message()).await;
        match first.map_err(|_| Failure::Refused(Deadline::fault()))?.map_err(|status| judge(&status, deadline))? {
            Some(first) => Ok(Answer::new(Some(convert::step(first)?), steps, job.id, busy, deadline)),
            None => Err(Failure::Gone { cause: "the stream ended before it began".to_owned(), unwell: false }),
        }
    }

    /// Takes over a generation. Does not wait for a step: it may have all that it was granted, and need more first.
    pub async fn resume(self: &Arc<Self>, job: &Job, deadline: Deadline) -> Result<Answer, Failure> {
        let (steps, busy) = self.begin(job, deadline).await?;
        Ok(Answer::new(None, steps, job.id, busy, deadline))
    }

    async fn begin(
        self: &Arc<Self>,
        job: &Job,
        deadline: Deadline,
    ) -> Result<(Streaming<wire::GenerateResponse>, Busy), Failure> {
        let busy = Busy::on(self);
        let request = self.dress(convert::job(job), Some(job.id), deadline);
        Ok((bounded(deadline, self.client.clone().generate(request)).await?, busy))
    }

    fn dress<T>(&self, message: T, id: Option<RequestId>, deadline: Deadline) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.left() + DEADLINE_SLACK);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.token.clone());
        if let Some(id) = id.and_then(|id| id.to_string().parse().ok()) {
            metadata.insert(REQUEST_ID, id);
        }
        trace_context::inject(metadata);
        request
    }
}

impl Busy {
    fn on(peer: &Arc<Peer>) -> Self {
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(peer))
    }

    pub fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.0)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn bounded<T>(
    deadline: Deadline,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline.instant(), call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(judge(&status, deadline)),
        Err(_) => Err(Failure::Refused(Deadline::fault())),
    }
}

/// Whose fault is it? A status that carries no request id was not made by a worker but by a broken connection.
pub fn judge(status: &Status, deadline: Deadline) -> Failure {
    if deadline.is_over() {
        return Failure::Refused(Deadline::fault());
    }
    let fault = fault_of(status);
    if request_id_of(status).is_none() {
        return Failure::Gone { cause: status.to_string(), unwell: true };
    }
    match fault.reason {
        Reason::QueueFull => Failure::Full(fault),
        // It is not over yet: the worker sees that it cannot be met, and says why.
        Reason::DeadlineExceeded => Failure::Refused(fault),
        Reason::Internal | Reason::Cancelled => Failure::Gone { cause: fault.message, unwell: false },
        Reason::WorkerUnavailable
        | Reason::ShuttingDown
        | Reason::Unauthenticated
        | Reason::PermissionDenied
        | Reason::Unimplemented
        | Reason::BaseMismatch => Failure::Gone { cause: fault.message, unwell: true },
        _ => Failure::Refused(fault),
    }
}
