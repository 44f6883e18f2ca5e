//! The door in front of every service of ours: who calls, may they, until when. Runs before a message is read, and puts a
//! [`Session`] in place of the credentials. Health and reflection are not behind it.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use chassis::{
    bearer,
    status::{fault_of, status_of},
    trace_context,
};
use domain::{Caller, Fault, Reason, RequestId};
use futures::{FutureExt as _, future::BoxFuture};
use store::{Actor, Store, Who};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, HeaderValue, Request, Response},
    },
    server::NamedService,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    access::{self, Effect, Rule, Time},
    audit::Refusals,
    auth::{Authenticator, Identity, KeyInUse},
    changes::ChangeFeed,
    config::{GatewayConfig, ms},
    deadline::Deadline,
};

/// Metadata under which the request id goes to the client and to the worker.
pub const REQUEST_ID: &str = "x-request-id";
const CLIENT_ID_BYTES_MAX: usize = 64;

/// One authenticated call.
#[derive(Clone)]
pub struct Session {
    pub id: RequestId,
    pub identity: Identity,
    pub arrived: Instant,
    pub deadline: Deadline,
    /// The RPC, by its path.
    pub method: &'static str,
    /// Whether its key still may; none for callers without a key.
    pub key: Option<Arc<KeyInUse>>,
    /// What the call is about, as soon as that is known.
    about: Arc<OnceLock<String>>,
}

impl Session {
    /// The same rows, and what is written is done by the caller; notes what the call is about.
    pub fn acting(&self, store: &Store, about: impl ToString) -> Store {
        self.about.get_or_init(|| about.to_string());
        store.acting(&self.actor())
    }

    /// What the call is about; empty when it did not come that far.
    pub fn about(&self) -> String {
        self.about.get().cloned().unwrap_or_default()
    }

    /// As the audit trail has the caller.
    pub fn actor(&self) -> Actor {
        let who = match &self.identity.caller {
            Caller::Operator => Who::Operator,
            Caller::Auditor => Who::Auditor,
            Caller::Tenant { public_id, role, .. } => Who::Key { public_id: public_id.clone(), role: *role },
        };
        Actor { who, method: self.method, request: self.id }
    }

    /// Ends when the caller's key is revoked, with what the caller is told.
    pub async fn revoked(&self) -> Fault {
        match &self.key {
            Some(key) => key.revoked().await,
            None => std::future::pending().await,
        }
    }
}

/// Makes services of ours guarded ones.
#[derive(Clone)]
pub struct Guard {
    authenticator: Arc<Authenticator>,
    changes: ChangeFeed,
    audit: Arc<Refusals>,
    config: Arc<GatewayConfig>,
    stop: CancellationToken,
}

impl Guard {
    /// Calls that are still running at `stop` are ended.
    pub const fn new(
        authenticator: Arc<Authenticator>,
        changes: ChangeFeed,
        audit: Arc<Refusals>,
        config: Arc<GatewayConfig>,
        stop: CancellationToken,
    ) -> Self {
        Self { authenticator, changes, audit, config, stop }
    }

    pub fn before<S>(&self, service: S) -> Guarded<S> {
        Guarded { guard: self.clone(), service }
    }

    /// Decides about a call by its path and headers alone.
    async fn admit(&self, id: RequestId, path: &str, headers: &HeaderMap) -> Result<(Session, Rule), Fault> {
        let arrived = Instant::now();
        let (method, rule) = access::rule_of(path)?;
        let deadline = self.deadline(rule, headers)?;
        let identity = deadline.bound(self.authenticator.authenticate(bearer::token(headers))).await?;
        let key = self.authenticator.enter(&identity.caller).map(Arc::new);
        let session = Session { id, identity, arrived, deadline, method, key, about: Arc::default() };
        let admitted = access::admit(rule, &session.identity.caller)
            .and_then(|()| access::admit_method(path, session.identity.methods.as_deref()));
        if let Err(fault) = admitted {
            if rule.effect == Effect::Writes {
                self.audit.refused(&session, &fault).await;
            }
            return Err(fault);
        }
        Ok((session, rule))
    }

    /// After a call that may have changed something, whether it was refused or not.
    async fn after_write(&self, session: &Session, refused: Option<Fault>) {
        // Also when it went wrong: what it did before that may have been committed.
        self.changes.committed();
        if let Some(fault) = refused {
            self.audit.refused(session, &fault).await;
        }
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
        trace_context::follow(&span, request.headers());
        async move {
            let admitted = self.admit(id, rpc, request.headers()).instrument(tracing::info_span!("auth")).await;
            let answer = match admitted {
                Ok((session, rule)) => {
                    if let Caller::Tenant { slug, .. } = &session.identity.caller {
                        tracing::Span::current().record("tenant", slug.as_str());
                    }
                    let deadline = session.deadline;
                    request.headers_mut().remove("authorization");
                    request.extensions_mut().insert(session.clone());
                    let called = deadline.bound(async { Ok(service(request).await) });
                    let called = tokio::select! {
                        biased;
                        called = called => called,
                        // What is short may end: it may be the revocation itself.
                        fault = session.revoked(), if rule.time != Time::Short => Err(fault),
                        () = self.stop.cancelled() => Err(Fault::new(Reason::ShuttingDown, "the gateway is stopping")),
                    };
                    if rule.effect == Effect::Writes {
                        let refused = refusal_of(&called);
                        self.after_write(&session, refused).await;
                    }
                    called
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

/// Why a call was refused, if it was: by whoever stands before the service, or in the service's answer.
fn refusal_of<R>(called: &Result<Response<R>, Fault>) -> Option<Fault> {
    match called {
        Ok(response) => Status::from_header_map(response.headers())
            .filter(|status| status.code() != Code::Ok)
            .map(|status| fault_of(&status)),
        Err(fault) => Some(fault.clone()),
    }
}

/// The id that the client gave the request: for the log alone.
fn client_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(REQUEST_ID)?.to_str().ok()?;
    (value.len() <= CLIENT_ID_BYTES_MAX && value.bytes().all(|byte| byte.is_ascii_graphic())).then_some(value)
}
