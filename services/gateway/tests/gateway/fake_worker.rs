//! A worker that does what a test says. It speaks `banyan.worker.v1` on a real socket, and tells the bundled base.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use adapters::Base;
use chassis::{bearer, status::status_of};
use domain::{Fault, Reason};
use futures::{Stream, StreamExt as _, stream};
use proto::{
    v1,
    worker::{
        self as wire,
        worker_service_server::{WorkerService, WorkerServiceServer},
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::MetadataMap};

pub const CLUSTER_TOKEN: &str = "cluster";
/// What the fake tokenizer makes of any text: one token for each byte.
pub const CONTEXT_LENGTH: u32 = 512;

/// A text with it is slow to tokenize, if the test says so.
pub const SLOW_TEXT: &str = "<slow>";

/// What a worker does next in an answer.
#[derive(Clone)]
pub enum Act {
    /// A piece of text, one token for each byte.
    Say(&'static str),
    Fail(Reason),
    /// The connection breaks: a status that nobody of ours made.
    Break,
    /// Nothing, until the stream is dropped.
    Hang,
    /// The stream ends, with nothing said.
    End,
    /// Only if the answer begins here; one that another worker has begun passes it by.
    AtFirst(Box<Act>),
    /// Ends as it should, with the digests of what was asked for.
    Finish,
    /// Ends with the digest of another adapter.
    FinishWithAnother,
}

#[derive(Default)]
struct Script {
    acts: Vec<Act>,
    /// In place of `acts`, for requests with this adapter.
    acts_with: HashMap<String, Vec<Act>>,
    requests: Vec<wire::GenerateRequest>,
    timeouts: Vec<Option<String>>,
    fail_probe: bool,
    extensions: Vec<wire::ExtendRequest>,
    /// Extensions are not answered.
    deaf: bool,
    usages: Vec<wire::RequestUsage>,
    /// Has no place for what another worker has begun.
    full_for_heirs: bool,
    /// What it tells of itself besides its name.
    status: wire::Status,
}

/// Slow texts: whether they are held, and how many are there.
#[derive(Default)]
struct SlowTexts {
    held: watch::Sender<bool>,
    inside: AtomicUsize,
}

impl SlowTexts {
    async fn pass(&self) {
        struct Inside<'a>(&'a AtomicUsize);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        let _inside = Inside(&self.inside);
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }
}

pub struct FakeWorker {
    pub name: &'static str,
    pub url: String,
    script: Arc<Mutex<Script>>,
    slow: Arc<SlowTexts>,
    dropped: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

/// How far running answers may go, by request: tokens granted, and whether that is the last word.
type Grants = Arc<Mutex<HashMap<String, watch::Sender<(u32, bool)>>>>;

impl FakeWorker {
    pub async fn start(name: &'static str, acts: Vec<Act>) -> Self {
        let script = Arc::new(Mutex::new(Script { acts, ..Script::default() }));
        let (drops, dropped) = watch::channel(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let slow = Arc::<SlowTexts>::default();
        let service =
            Service { name, script: Arc::clone(&script), slow: Arc::clone(&slow), drops, grants: Grants::default() };
        let service = WorkerServiceServer::new(service);
        let server = tonic::transport::Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self { name, url, script, slow, dropped, task }
    }

    pub fn will(&self, acts: Vec<Act>) {
        self.script.lock().expect("script").acts = acts;
    }

    /// What it does from now on in answers of this adapter version.
    pub fn will_with(&self, digest: &str, acts: Vec<Act>) {
        self.script.lock().expect("script").acts_with.insert(digest.to_owned(), acts);
    }

    /// Has no place for what another worker has begun.
    pub fn takes_nothing_over(&self) {
        self.script.lock().expect("script").full_for_heirs = true;
    }

    /// What it tells of itself from now on.
    pub fn tells(&self, status: wire::Status) {
        self.script.lock().expect("script").status = status;
    }

    pub fn will_not_load(&self) {
        self.script.lock().expect("script").fail_probe = true;
    }

    pub fn requests(&self) -> Vec<wire::GenerateRequest> {
        self.script.lock().expect("script").requests.clone()
    }

    pub fn extensions(&self) -> Vec<wire::ExtendRequest> {
        self.script.lock().expect("script").extensions.clone()
    }

    /// Loses extensions from now on, or no more.
    pub fn loses_extensions(&self, lost: bool) {
        self.script.lock().expect("script").deaf = lost;
    }

    /// Does not answer for texts with [`SLOW_TEXT`] until it is told otherwise.
    pub fn holds_slow_texts(&self, held: bool) {
        self.slow.held.send_replace(held);
    }

    /// Texts that it holds.
    pub fn slow_texts(&self) -> usize {
        self.slow.inside.load(Ordering::SeqCst)
    }

    /// What it says of requests whose stream was lost.
    pub fn knows(&self, usages: Vec<wire::RequestUsage>) {
        self.script.lock().expect("script").usages = usages;
    }

    /// The `grpc-timeout` of every generation.
    pub fn timeouts(&self) -> Vec<Option<String>> {
        self.script.lock().expect("script").timeouts.clone()
    }

    /// Waits until the gateway has dropped so many streams that were not at their end.
    pub async fn dropped(&mut self, count: u32) {
        let waiting = self.dropped.wait_for(|dropped| *dropped >= count);
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting)
            .await
            .expect("in time")
            .expect("worker lives");
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service {
    name: &'static str,
    script: Arc<Mutex<Script>>,
    slow: Arc<SlowTexts>,
    drops: watch::Sender<u32>,
    grants: Grants,
}

/// Counts if it is dropped while acts remain.
struct Performance {
    acts: VecDeque<Act>,
    request: wire::GenerateRequest,
    name: &'static str,
    said: u32,
    drops: watch::Sender<u32>,
    granted: watch::Receiver<(u32, bool)>,
}

impl Drop for Performance {
    fn drop(&mut self) {
        if !self.acts.is_empty() {
            self.drops.send_modify(|dropped| *dropped += 1);
        }
    }
}

impl Performance {
    async fn next(mut self) -> Option<(Result<wire::GenerateResponse, Status>, Self)> {
        self.pass_by_what_was_said();
        // Only a finished act is taken off, so that a hanging one is seen to be dropped.
        let act = match self.acts.front()?.clone() {
            Act::AtFirst(act) => *act,
            act => act,
        };
        let step = match act {
            // As an engine does, it says nothing beyond its grant.
            Act::Say(text) if !self.may_say(text.len() as u32).await => {
                self.acts.clear();
                return Some((Ok(self.finish_as(v1::FinishReason::Budget, self.adapter())), self));
            }
            Act::Say(text) => {
                self.said += text.len() as u32;
                let tokens = text.bytes().map(|byte| v1::Token { id: byte.into(), ..v1::Token::default() });
                Ok(wire::GenerateResponse { text: text.to_owned(), tokens: tokens.collect(), finish: None })
            }
            Act::Fail(reason) => Err(status_of(&Fault::new(reason, "scripted"), &self.request.request_id)),
            Act::Break => Err(Status::unknown("transport error")),
            Act::Hang => std::future::pending().await,
            Act::AtFirst(_) | Act::End => {
                self.acts.clear();
                return None;
            }
            Act::Finish => Ok(self.finish_as(v1::FinishReason::Length, self.adapter())),
            Act::FinishWithAnother => {
                Ok(self.finish_as(v1::FinishReason::Length, format!("sha256:{}", "ab".repeat(32))))
            }
        };
        self.acts.pop_front();
        Some((step, self))
    }

    /// As an engine does, it goes on behind the beginning of an answer.
    fn pass_by_what_was_said(&mut self) {
        let begun = self.request.generated.len() as u32;
        while let Some(act) = self.acts.front() {
            match act {
                Act::Say(text) if self.said < begun => self.said += text.len() as u32,
                Act::AtFirst(_) if begun > 0 => {}
                _ => return,
            }
            self.acts.pop_front();
        }
    }

    /// Waits until so many more tokens are granted; false if they never will be.
    async fn may_say(&mut self, tokens: u32) -> bool {
        let after = self.said + tokens;
        let decided = self.granted.wait_for(|(granted, last)| *granted >= after || *last).await;
        decided.is_ok_and(|decided| decided.0 >= after)
    }

    fn adapter(&self) -> String {
        self.request.adapter.clone().map(|pin| pin.digest).unwrap_or_default()
    }

    fn finish_as(&self, reason: v1::FinishReason, adapter_digest: String) -> wire::GenerateResponse {
        let usage = v1::Usage {
            prompt_tokens: self.request.prompt.len() as u32,
            cached_prompt_tokens: 1,
            completion_tokens: self.said,
        };
        let finish = wire::WorkerFinish {
            reason: reason.into(),
            usage: Some(usage),
            base_digest: self.request.base_digest.clone(),
            adapter_digest,
            worker: self.name.to_owned(),
        };
        wire::GenerateResponse { finish: Some(finish), ..wire::GenerateResponse::default() }
    }
}

impl Service {
    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if bearer::token(metadata.as_ref()) == Some(CLUSTER_TOKEN) {
            return Ok(());
        }
        Err(status_of(&Fault::new(Reason::Unauthenticated, "no cluster token"), "r"))
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<wire::GenerateResponse, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<wire::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        self.check(request.metadata())?;
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let request = request.into_inner();
        let acts = {
            let mut script = self.script.lock().expect("script");
            script.requests.push(request.clone());
            script.timeouts.push(timeout);
            let adapter = request.adapter.as_ref().and_then(|pin| script.acts_with.get(&pin.digest));
            if script.full_for_heirs && !request.generated.is_empty() {
                vec![Act::Fail(Reason::QueueFull)]
            } else {
                adapter.unwrap_or(&script.acts).clone()
            }
        };
        // As an engine does, it refuses before there is a stream.
        if let [Act::Fail(reason @ Reason::QueueFull)] = acts[..] {
            let full = Fault::new(reason, "the queue is full").retry_after(std::time::Duration::from_millis(700));
            return Err(status_of(&full, &request.request_id));
        }
        let (grants, granted) = watch::channel((request.granted_tokens, false));
        self.grants.lock().expect("grants").insert(request.request_id.clone(), grants);
        let (name, drops) = (self.name, self.drops.clone());
        let play = Performance { acts: acts.into(), request, name, said: 0, drops, granted };
        Ok(Response::new(stream::unfold(play, Performance::next).boxed()))
    }

    async fn extend(&self, request: Request<wire::ExtendRequest>) -> Result<Response<wire::ExtendResponse>, Status> {
        self.check(request.metadata())?;
        let request = request.into_inner();
        {
            let mut script = self.script.lock().expect("script");
            if script.deaf {
                return Err(Status::unknown("transport error"));
            }
            script.extensions.push(request.clone());
        }
        if let Some(grants) = self.grants.lock().expect("grants").get(&request.request_id) {
            grants.send_modify(|grant| *grant = (grant.0.max(request.granted_tokens), grant.1 || request.last));
        }
        Ok(Response::new(wire::ExtendResponse {}))
    }

    async fn get_usage(
        &self,
        request: Request<wire::GetUsageRequest>,
    ) -> Result<Response<wire::GetUsageResponse>, Status> {
        self.check(request.metadata())?;
        let asked = request.into_inner().request_ids;
        let known = self.script.lock().expect("script").usages.clone();
        let usages = known.into_iter().filter(|usage| asked.contains(&usage.request_id)).collect();
        Ok(Response::new(wire::GetUsageResponse { usages, ..wire::GetUsageResponse::default() }))
    }

    async fn tokenize(
        &self,
        request: Request<wire::TokenizeRequest>,
    ) -> Result<Response<wire::TokenizeResponse>, Status> {
        use wire::tokenize_request::Input;
        self.check(request.metadata())?;
        let ids = match request.into_inner().input {
            Some(Input::Prompt(text)) => {
                if text.contains(SLOW_TEXT) {
                    self.slow.pass().await;
                }
                text.bytes().map(u32::from).collect()
            }
            Some(Input::Tokens(tokens)) => tokens.ids,
            Some(Input::Chat(chat)) => {
                chat.messages.iter().flat_map(|message| message.content.bytes().map(u32::from)).collect()
            }
            None => Vec::new(),
        };
        Ok(Response::new(wire::TokenizeResponse { ids }))
    }

    async fn get_base(&self, request: Request<wire::GetBaseRequest>) -> Result<Response<wire::Base>, Status> {
        self.check(request.metadata())?;
        Ok(Response::new(base().clone()))
    }

    async fn probe_adapter(
        &self,
        request: Request<wire::ProbeAdapterRequest>,
    ) -> Result<Response<wire::ProbeAdapterResponse>, Status> {
        self.check(request.metadata())?;
        if self.script.lock().expect("script").fail_probe {
            return Err(status_of(&Fault::new(Reason::AdapterLoad, "cannot be loaded"), "r"));
        }
        Ok(Response::new(wire::ProbeAdapterResponse { max_delta: 0.5 }))
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Result<Response<wire::Status>, Status> {
        self.check(request.metadata())?;
        let told = self.script.lock().expect("script").status.clone();
        let status = wire::Status { worker: self.name.to_owned(), waiting_max: 8, ..told };
        Ok(Response::new(status))
    }
}

/// The bundled base, read once.
pub fn base() -> &'static wire::Base {
    static BASE: OnceLock<wire::Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
        let base = Base::read(&folder).expect("the bundled base is readable");
        wire::Base {
            digest: base.digest().to_string(),
            context_length: CONTEXT_LENGTH,
            inventory_json: serde_json::to_vec(&base).expect("JSON"),
        }
    })
}
