//! The least that can stand between an application and a worker: it translates one protocol into the other and governs
//! nothing. No credentials, no limits, no ledger, no traces, no tokenization. What it costs is what any gateway of this
//! build costs on this machine; what a gateway costs beyond it is governing.

use std::{pin::Pin, process::Command, time::Instant};

use chassis::bearer;
use futures::{Stream, StreamExt as _};
use proto::{
    v1::{
        self, CountTokensRequest, CountTokensResponse, ExplainLimitsRequest, ExplainLimitsResponse, GenerateRequest,
        GenerateResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model,
        generate_request::Input,
        inference_service_server::{InferenceService, InferenceServiceServer},
    },
    worker::{self as wire, worker_service_client::WorkerServiceClient},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    application,
    drive::Target,
    gateway_process::{RETRY, START_TIMEOUT, free_address},
    measured_process::MeasuredProcess,
    scripted_worker::{CLUSTER_TOKEN, ScriptedWorker, connect},
};
use crate::{
    cli::{BareRelayArgs, LoadArgs},
    failure::{Failure, Outcome},
};

pub struct BareRelay {
    pub process: MeasuredProcess,
    endpoint: String,
}

impl BareRelay {
    /// # Errors
    /// What does not start.
    pub async fn start(args: &LoadArgs, worker: &ScriptedWorker) -> Result<Self, Failure> {
        let listen = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load-bare-relay", "--listen", &listen, "--worker", &worker.url]);
        command.args(["--base-digest", &worker.base_digest]);
        let relay = Self { process: MeasuredProcess::start(&mut command)?, endpoint: format!("http://{listen}") };
        let end = Instant::now() + START_TIMEOUT;
        while let Err(error) = relay.target(args).await {
            if Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(relay)
    }

    /// # Errors
    /// Nobody answers.
    pub async fn target(&self, args: &LoadArgs) -> Result<Target, Failure> {
        application::target(&self.endpoint, &["bare".to_owned()], args).await
    }
}

/// Serves until it is killed.
///
/// # Errors
/// An address that cannot be listened on, or a worker that does not answer.
pub async fn serve(args: &BareRelayArgs) -> Outcome {
    let worker = WorkerServiceClient::new(connect(&args.worker).await?);
    let relay = InferenceServiceServer::new(Relay { worker, base_digest: args.base_digest.clone() });
    let incoming = TcpListenerStream::new(TcpListener::bind(&args.listen).await?).inspect(|accepted| {
        // As the gateway does: small messages wait for nothing.
        let _ = accepted.as_ref().map(|connection| connection.set_nodelay(true));
    });
    let served = tonic::transport::Server::builder().add_service(relay).serve_with_incoming(incoming).await;
    served.map_err(|error| Failure::Failed(error.to_string()))
}

struct Relay {
    worker: WorkerServiceClient<Channel>,
    base_digest: String,
}

fn governs_nothing<T>() -> Result<T, Status> {
    Err(Status::unimplemented("a bare relay only generates"))
}

fn response(step: wire::GenerateResponse) -> GenerateResponse {
    let finish = step.finish.map(|end| v1::Finish { reason: end.reason, usage: end.usage, ..v1::Finish::default() });
    GenerateResponse { text: step.text, tokens: step.tokens, finish }
}

#[tonic::async_trait]
impl InferenceService for Relay {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        let Some(Input::Tokens(prompt)) = request.input else { return governs_nothing() };
        let mut asked = Request::new(wire::GenerateRequest {
            prompt: prompt.ids,
            max_tokens: request.max_tokens,
            base_digest: self.base_digest.clone(),
            ..wire::GenerateRequest::default()
        });
        if let Some(token) = bearer::value(CLUSTER_TOKEN) {
            asked.metadata_mut().insert("authorization", token);
        }
        let steps = self.worker.clone().generate(asked).await?.into_inner();
        Ok(Response::new(steps.map(|step| step.map(response)).boxed()))
    }

    async fn count_tokens(&self, _: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        governs_nothing()
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        governs_nothing()
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<Model>, Status> {
        governs_nothing()
    }

    async fn explain_limits(
        &self,
        _: Request<ExplainLimitsRequest>,
    ) -> Result<Response<ExplainLimitsResponse>, Status> {
        governs_nothing()
    }
}
