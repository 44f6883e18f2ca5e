//! The door in front of every service of ours: who calls, may they, until when. Runs before a message is read, and puts a
//! [`Session`] in place of the credentials. Health and reflection are not behind it.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use chassis::{bearer, status::status_of, trace_context};
use domain::{Fault, Reason, RequestId};
use futures::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, HeaderValue, Request, Response},
    },
    metadata::MetadataMap,
    server::NamedService,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    access::{self, Rule, Time},
    auth::{Authenticator, Identity},
    config::{GatewayConfig, ms},
    deadline::Deadline,
};

/// Metadata under which the request id goes to the client and to the worker.
pub const REQUEST_ID: &str = "x-request-id";
const CLIENT_ID_BYTES_MAX: usize = 64;

/// One authenticated call.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: RequestId,
    pub identity: Identity,
    pub arrived: Instant,
    pub deadline: Deadline,
}

/// Makes services of ours guarded ones.
#[derive(Clone)]
pub struct Guard {
    authenticator: Arc<Authenticator>,
    config: Arc<GatewayConfig>,
    stop: CancellationToken,
}

impl Guard {
    /// Calls that are still running at `stop` are ended.
    pub const fn new(authenticator: Arc<Authenticator>, config: Arc<GatewayConfig>, stop: CancellationToken) -> Self {
        Self { authenticator, config, stop }
    }

    pub fn before<S>(&self, service: S) -> Guarded<S> {
        Guarded { guard: self.clone(), service }
    }

    /// Decides about a call by its path and headers alone.
    async fn admit(&self, id: RequestId, path: &str, headers: &HeaderMap) -> Result<Session, Fault> {
        let arrived = Instant::now();
        let rule = access::rule_of(path)?;
        let deadline = self.deadline(rule, headers)?;
        let metadata = MetadataMap::from_headers(headers.clone());
        let identity = deadline.bound(self.authenticator.authenticate(bearer::token(&metadata))).await?;
        access::admit(rule, &identity.caller)?;
        access::admit_method(path, identity.methods.as_deref())?;
        Ok(Session { id, identity, arrived, deadline })
    }

    /// Lets a call through to `service`, or refuses it in its protocol's words. `rpc` is whose rule it has; what is in no
    /// table may be called by nobody.
    pub async fn pass<B, R, F>(
        &self,
        rpc: &str,
        mut request: Request<B>,
        refuse: impl FnOnce(&Fault, RequestId) -> Response<R>,
        service: impl FnOnce(Request<B>) -> F,
    ) -> Response<R>
    where
        F: Future<Output = Response<R>>,
    {
        let id = RequestId::new(Uuid::now_v7());
        let span = tracing::info_span!(
            "call",
            rpc.method = rpc.rsplit('/').next(),
            request_id = %id,
            client_request_id = client_id(request.headers()),
            tenant = tracing::field::Empty,
        );
        trace_context::follow(&span, &MetadataMap::from_headers(request.headers().clone()));
        async move {
            let admitted = self.admit(id, rpc, request.headers()).instrument(tracing::info_span!("auth")).await;
            let answer = match admitted {
                Ok(session) => {
                    if let domain::Caller::Tenant { slug, .. } = &session.identity.caller {
                        tracing::Span::current().record("tenant", slug.as_str());
                    }
                    let deadline = session.deadline;
                    request.headers_mut().remove("authorization");
                    request.extensions_mut().insert(session);
                    let called = deadline.bound(async { Ok(service(request).await) });
                    tokio::select! {
                        biased;
                        called = called => called,
                        () = self.stop.cancelled() => Err(Fault::new(Reason::ShuttingDown, "the gateway is stopping")),
                    }
                }
                Err(fault) => Err(fault),
            };
            let mut response = answer.unwrap_or_else(|fault| {
                tracing::info!(reason = fault.reason.as_str(), "refused");
                refuse(&fault, id)
            });
            if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            response
        }
        .instrument(span)
        .await
    }

    fn deadline(&self, rule: Rule, headers: &HeaderMap) -> Result<Deadline, Fault> {
        let (default, most) = match rule.time {
            Time::Short => (self.config.calls.deadline_ms, self.config.calls.deadline_ms),
            Time::Generate => (self.config.generate.deadline_default_ms, self.config.generate.deadline_max_ms),
            Time::Upload => (self.config.uploads.deadline_ms, self.config.uploads.deadline_ms),
        };
        Deadline::of(headers, ms(self.config.calls.deadline_margin_ms), ms(default), ms(most))
    }
}

/// A service behind the door.
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    service: S,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was polled ready goes with the call, its clone stays.
        let clone = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, clone);
        let guard = self.guard.clone();
        async move {
            let path = request.uri().path().to_owned();
            let refuse = |fault: &Fault, id: RequestId| status_of(fault, &id.to_string()).into_http();
            let call = |request| async move {
                match service.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            };
            Ok(guard.pass(&path, request, refuse, call).await)
        }
        .boxed()
    }
}

/// The id that the client gave the request: for the log alone.
fn client_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(REQUEST_ID)?.to_str().ok()?;
    (value.len() <= CLIENT_ID_BYTES_MAX && value.bytes().all(|byte| byte.is_ascii_graphic())).then_some(value)
}
