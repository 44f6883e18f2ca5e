//! The worker's service: the engine on the wire. Every call checks, asks the engine, answers; nothing is kept between
//! calls but how fast it was, and for a while what requests have used. Who may call was decided before ([`crate::auth`]).

use std::{sync::Arc, time::Duration};

use adapters::Base;
use chassis::{status::status_of, trace_context};
use domain::Fault;
use engine::{EngineHandle, Grants};
use proto::worker::{self as wire, worker_service_server::WorkerService};
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    answer::{self, Answer, Call, FirstToken},
    call::{deadline, request_id},
    forecast::Forecast,
    parse, status,
    tokenize::TokenizeRoom,
    usage::Usages,
};

/// What a worker has once its base is loaded. Cheap to clone.
#[derive(Clone)]
pub struct Loaded {
    pub name: Arc<str>,
    pub engine: EngineHandle,
    pub tokenize: TokenizeRoom,
    pub base: Arc<Base>,
    pub context_length: usize,
    pub listing: status::Listing,
    pub forecast: Arc<Forecast>,
    pub grant_wait: Duration,
    /// Of this start.
    pub epoch: Arc<str>,
    pub usages: Arc<Usages>,
}

/// Refuses calls until there is something to serve with.
#[derive(Clone)]
pub struct Service {
    loaded: tokio::sync::watch::Receiver<Option<Loaded>>,
}

impl Service {
    pub const fn new(loaded: tokio::sync::watch::Receiver<Option<Loaded>>) -> Self {
        Self { loaded }
    }

    fn loaded(&self) -> Result<Loaded, Fault> {
        self.loaded.borrow().clone().ok_or_else(status::not_loaded)
    }

    fn generate(&self, request: Request<wire::GenerateRequest>) -> Result<Answer, Fault> {
        let Loaded { name, engine, base, forecast, grant_wait, usages, .. } = self.loaded()?;
        let deadline = deadline(request.metadata());
        let request_id = id(request.get_ref(), request.metadata());
        let span = tracing::info_span!(
            "worker.generate",
            request_id,
            prompt_tokens = request.get_ref().prompt.len(),
            adapter = Empty,
            reason = Empty,
            completion_tokens = Empty,
            begun_tokens = request.get_ref().generated.len(),
        );
        trace_context::follow(&span, request.metadata().as_ref());
        let request = parse::generate(request.into_inner(), base.digest())?;
        if let Some(key) = &request.adapter {
            span.record("adapter", tracing::field::display(key.digest));
        }
        let tokens = request.prompt.len() + request.beginning.tokens.len();
        forecast.check(&engine, request.share.tenant, tokens, deadline)?;
        let probe = forecast.begin(&engine.status());
        let events = span.in_scope(|| engine.submit(request))?;
        let kept = usages.keep(&request_id, events.progress().clone());
        let first_token = FirstToken { forecast, probe, engine };
        let call = Call { worker: name.to_string(), request_id, deadline, grant_wait, first_token, _kept: kept, span };
        Ok(Answer::new(events, call))
    }

    async fn probe(&self, request: wire::ProbeAdapterRequest) -> Result<f64, Fault> {
        let engine = self.loaded()?.engine;
        let key = parse::pin(request.adapter.as_ref())?;
        engine.probe(key).await.map(f64::from)
    }
}

/// The gateway puts the same id into the message and the metadata.
fn id(request: &wire::GenerateRequest, metadata: &MetadataMap) -> String {
    if request.request_id.is_empty() { request_id(metadata) } else { request.request_id.clone() }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type GenerateStream = Answer;

    async fn generate(&self, request: Request<wire::GenerateRequest>) -> Result<Response<Answer>, Status> {
        let id = id(request.get_ref(), request.metadata());
        Service::generate(self, request).map(Response::new).map_err(|fault| status_of(&fault, &id))
    }

    async fn extend(&self, request: Request<wire::ExtendRequest>) -> Result<Response<wire::ExtendResponse>, Status> {
        let wire::ExtendRequest { request_id, granted_tokens, last } = request.into_inner();
        let loaded = self.loaded().map_err(|fault| status_of(&fault, &request_id))?;
        // One that is not here has ended, or was granted as a whole: its stream says so.
        loaded.engine.extend(&request_id, granted_tokens, if last { Grants::Closed } else { Grants::Open });
        Ok(Response::new(wire::ExtendResponse {}))
    }

    async fn get_usage(
        &self,
        request: Request<wire::GetUsageRequest>,
    ) -> Result<Response<wire::GetUsageResponse>, Status> {
        let loaded = self.loaded().map_err(|fault| status_of(&fault, &request_id(request.metadata())))?;
        let ids = request.into_inner().request_ids;
        let known = ids.into_iter().filter_map(|id| loaded.usages.get(&id).map(|progress| (id, progress)));
        let usages = known.map(|(request_id, progress)| {
            // Asked first: what has ended changes no more.
            let ended = progress.has_ended();
            wire::RequestUsage { request_id, usage: Some(answer::usage_of(progress.usage())), ended }
        });
        Ok(Response::new(wire::GetUsageResponse { usages: usages.collect(), epoch: loaded.epoch.to_string() }))
    }

    async fn tokenize(
        &self,
        request: Request<wire::TokenizeRequest>,
    ) -> Result<Response<wire::TokenizeResponse>, Status> {
        let (id, span) = called(&request, tracing::info_span!("worker.tokenize"));
        let answer = async { self.loaded()?.tokenize.encode(request.into_inner()).await };
        let ids = answer.instrument(span).await.map_err(|fault| status_of(&fault, &id))?;
        Ok(Response::new(wire::TokenizeResponse { ids }))
    }

    async fn get_base(&self, request: Request<wire::GetBaseRequest>) -> Result<Response<wire::Base>, Status> {
        let loaded = self.loaded().map_err(|fault| status_of(&fault, &request_id(request.metadata())))?;
        let inventory_json = serde_json::to_vec(&*loaded.base).map_err(|error| {
            tracing::error!(error = %error, "the base inventory cannot be written");
            status_of(&Fault::internal(), &request_id(request.metadata()))
        })?;
        Ok(Response::new(wire::Base {
            digest: loaded.base.digest().to_string(),
            context_length: u32::try_from(loaded.context_length).unwrap_or(u32::MAX),
            inventory_json,
        }))
    }

    async fn probe_adapter(
        &self,
        request: Request<wire::ProbeAdapterRequest>,
    ) -> Result<Response<wire::ProbeAdapterResponse>, Status> {
        let (id, span) = called(&request, tracing::info_span!("worker.probe"));
        let late = deadline(request.metadata());
        let probing = self.probe(request.into_inner()).instrument(span);
        let max_delta = answer::within(late, probing).await.map_err(|fault| status_of(&fault, &id))?;
        Ok(Response::new(wire::ProbeAdapterResponse { max_delta }))
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Result<Response<wire::Status>, Status> {
        let loaded = self.loaded().map_err(|fault| status_of(&fault, &request_id(request.metadata())))?;
        let status = status::of(&loaded.name, &loaded.epoch, &loaded.engine, loaded.listing).await;
        Ok(Response::new(status))
    }
}

/// The request id of a call, and its span as a child of the caller's.
fn called<T>(request: &Request<T>, span: Span) -> (String, Span) {
    trace_context::follow(&span, request.metadata().as_ref());
    (request_id(request.metadata()), span)
}
