//! What the edges have in common: getting at the session, and turning faults into statuses.

use std::future::Future;

use chassis::status::status_of;
use domain::{Fault, RequestId};
use tonic::{Extensions, Request, Response, Status};

use crate::guard::Session;

/// The session that the guard has put into the request.
pub fn session(extensions: &Extensions) -> Result<Session, Status> {
    extensions.get::<Session>().cloned().ok_or_else(|| {
        tracing::error!("a service is not behind the guard");
        status_of(&Fault::internal(), "")
    })
}

/// Answers one call: its session and message in, a message or a fault out.
pub async fn answer<M, R, F>(request: Request<M>, act: impl FnOnce(Session, M) -> F) -> Result<Response<R>, Status>
where
    F: Future<Output = Result<R, Fault>>,
{
    let session = session(request.extensions())?;
    let id = session.id;
    act(session, request.into_inner()).await.map(Response::new).map_err(|fault| refuse(&fault, id))
}

/// Once for each refusal, where it leaves.
pub fn log_refusal(fault: &Fault) {
    tracing::info!(reason = fault.reason.as_str(), "refused");
}

pub fn refuse(fault: &Fault, id: RequestId) -> Status {
    log_refusal(fault);
    status_of(fault, &id.to_string())
}
