//! A worker without an engine: it answers every request at once with as many messages as it was told, one token in each.
//! So what is measured around it is the gateway's alone. It speaks `banyan.worker.v1` and tells the bundled base.

use std::{path::Path, pin::Pin, sync::Arc};

use chassis::bearer;
use futures::{Stream, StreamExt as _, stream};
use proto::{
    v1,
    worker::{
        self as wire,
        worker_service_client::WorkerServiceClient,
        worker_service_server::{WorkerService, WorkerServiceServer},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Endpoint};

use super::drive::{Target, Times};
use crate::{cli::LoadArgs, failure::Failure, up::shipped};

pub const CLUSTER_TOKEN: &str = "load";
const CONTEXT_LENGTH: u32 = 1 << 20;
const NAME: &str = "scripted";

pub struct ScriptedWorker {
    pub url: String,
    pub base_digest: String,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl ScriptedWorker {
    /// # Errors
    /// A bundled base that cannot be read, or no free port.
    pub async fn start(messages: u32) -> Result<Self, Failure> {
        let base = read_base(&shipped::base())?;
        let base_digest = base.digest.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let service = WorkerServiceServer::new(Script { messages, base: Arc::new(base) });
        let server = tonic::transport::Server::builder().add_service(service);
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener).inspect(|accepted| {
                // Without it, small messages wait for acknowledgements.
                let _ = accepted.as_ref().map(|connection| connection.set_nodelay(true));
            });
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the scripted worker failed");
            }
        });
        Ok(Self { url, base_digest, stop, serving })
    }

    /// Requests as the gateway sends them, without the gateway.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn target(&self, args: &LoadArgs) -> Result<Target, Failure> {
        let mut clients = Vec::new();
        for _ in 0..args.connections {
            clients.push(WorkerServiceClient::new(connect(&self.url).await?));
        }
        let request = wire::GenerateRequest {
            base_digest: self.base_digest.clone(),
            prompt: vec![1; args.prompt_tokens as usize],
            max_tokens: args.messages,
            ..wire::GenerateRequest::default()
        };
        Ok(Arc::new(move |n| {
            let (mut client, mut request) = (clients[n % clients.len()].clone(), Request::new(request.clone()));
            if let Some(token) = bearer::value(CLUSTER_TOKEN) {
                request.metadata_mut().insert("authorization", token);
            }
            Box::pin(async move { Times::of(client.generate(request).await?.into_inner()).await })
        }))
    }

    pub async fn stop(self) {
        self.stop.cancel();
        // It has nothing to say at its end.
        let _ = self.serving.await;
    }
}

/// # Errors
/// Nobody answers.
pub async fn connect(url: &str) -> Result<tonic::transport::Channel, Failure> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| Failure::Failed(error.to_string()))?;
    let connected = endpoint.tcp_nodelay(true).connect().await;
    connected.map_err(|error| Failure::Unreachable { address: url.to_owned(), cause: error.to_string() })
}

fn read_base(folder: &Path) -> Result<wire::Base, Failure> {
    let base = adapters::Base::read(folder).map_err(|error| Failure::Failed(error.to_string()))?;
    let inventory_json = serde_json::to_vec(&base).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(wire::Base { digest: base.digest().to_string(), context_length: CONTEXT_LENGTH, inventory_json })
}

struct Script {
    messages: u32,
    base: Arc<wire::Base>,
}

impl Script {
    fn message(&self, n: u32, request: &wire::GenerateRequest) -> wire::GenerateResponse {
        let last = n + 1 == self.messages;
        let finish = last.then(|| wire::WorkerFinish {
            reason: v1::FinishReason::Length.into(),
            usage: Some(v1::Usage {
                prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
                cached_prompt_tokens: 0,
                completion_tokens: self.messages,
            }),
            base_digest: self.base.digest.clone(),
            adapter_digest: request.adapter.as_ref().map(|pin| pin.digest.clone()).unwrap_or_default(),
            worker: NAME.to_owned(),
        });
        let token = v1::Token { id: 1, ..v1::Token::default() };
        wire::GenerateResponse { text: "x".to_owned(), tokens: vec![token], finish }
    }
}

#[tonic::async_trait]
impl WorkerService for Script {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<wire::GenerateResponse, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<wire::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        let messages: Vec<_> = (0..self.messages).map(|n| Ok(self.message(n, &request))).collect();
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn extend(&self, _: Request<wire::ExtendRequest>) -> Result<Response<wire::ExtendResponse>, Status> {
        Ok(Response::new(wire::ExtendResponse {}))
    }

    async fn get_usage(&self, _: Request<wire::GetUsageRequest>) -> Result<Response<wire::GetUsageResponse>, Status> {
        Ok(Response::new(wire::GetUsageResponse::default()))
    }

    /// One token for each byte.
    async fn tokenize(
        &self,
        request: Request<wire::TokenizeRequest>,
    ) -> Result<Response<wire::TokenizeResponse>, Status> {
        use wire::tokenize_request::Input;
        let ids = match request.into_inner().input {
            Some(Input::Tokens(tokens)) => tokens.ids,
            Some(Input::Prompt(text)) => text.bytes().map(u32::from).collect(),
            Some(Input::Chat(chat)) => {
                chat.messages.iter().flat_map(|one| one.content.bytes().map(u32::from)).collect()
            }
            None => Vec::new(),
        };
        Ok(Response::new(wire::TokenizeResponse { ids }))
    }

    async fn get_base(&self, _: Request<wire::GetBaseRequest>) -> Result<Response<wire::Base>, Status> {
        Ok(Response::new(wire::Base::clone(&self.base)))
    }

    async fn probe_adapter(
        &self,
        _: Request<wire::ProbeAdapterRequest>,
    ) -> Result<Response<wire::ProbeAdapterResponse>, Status> {
        Ok(Response::new(wire::ProbeAdapterResponse { max_delta: 1.0 }))
    }

    async fn get_status(&self, _: Request<wire::GetStatusRequest>) -> Result<Response<wire::Status>, Status> {
        Ok(Response::new(wire::Status { worker: NAME.to_owned(), ..wire::Status::default() }))
    }
}
