//! The worker over the wire: the bundled base, a registry in a folder, a gRPC client.

mod cancel;

use std::{path::PathBuf, time::Duration};

use adapters::{Files, Limits, Registry, VersionFiles};
use chassis::{config, shutdown::Shutdown, status::fault_of};
use domain::Reason;
use proto::{
    v1::{self, ChatMessage, ChatMessages, response_format::Format},
    worker::{
        AdapterPin, ExtendRequest, GenerateRequest, GenerateResponse, GetBaseRequest, GetStatusRequest,
        GetUsageRequest, ProbeAdapterRequest, Share, TokenizeRequest, tokenize_request::Input,
        worker_service_client::WorkerServiceClient,
    },
};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use worker::{RunningWorker, Worker, WorkerConfig};

const TENANT: &str = "01890000-0000-7000-8000-000000000001";
const TOKEN: &str = "the cluster token";

type Client = WorkerServiceClient<InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>>;

struct Served {
    running: RunningWorker,
    shutdown: Shutdown,
    registry: TempDir,
    channel: Channel,
    base: std::sync::Arc<adapters::Base>,
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn configuration(base: PathBuf, registry: &TempDir) -> WorkerConfig {
    let mut overrides = toml::toml! {
        dtype = "f32"
        cluster_token = "the cluster token"
        [listen]
        address = "127.0.0.1:0"
    };
    overrides.insert("base".into(), base.display().to_string().into());
    overrides.insert("registry".into(), registry.path().display().to_string().into());
    config::load(worker::DEFAULTS, None, "BANYAN_WORKER_TEST_NONE_", &overrides).expect("a configuration")
}

async fn serve() -> Served {
    serve_with(|_| ()).await
}

async fn serve_with(change: impl FnOnce(&mut WorkerConfig)) -> Served {
    let registry = tempfile::tempdir().expect("folder");
    let shutdown = Shutdown::new();
    let mut config = configuration(repository("adapters/seed/base"), &registry);
    change(&mut config);
    let mut running = Worker::start(config, shutdown.clone()).await.expect("starts");
    let base = running.ready().await.expect("loads");
    let endpoint = Endpoint::from_shared(format!("http://{}", running.addr)).expect("an address");
    let channel = endpoint.connect().await.expect("listens");
    Served { running, shutdown, registry, channel, base }
}

impl Served {
    fn client(&self) -> Client {
        fn with_token(mut request: Request<()>) -> Result<Request<()>, Status> {
            let bearer: MetadataValue<_> = format!("Bearer {TOKEN}").parse().expect("ascii");
            request.metadata_mut().insert("authorization", bearer);
            Ok(request)
        }
        WorkerServiceClient::with_interceptor(self.channel.clone(), with_token)
    }

    async fn prompt(&self) -> Vec<u32> {
        let message = ChatMessage { role: "user".into(), content: "What does E-17 mean?".into() };
        let input = Some(Input::Chat(ChatMessages { messages: vec![message] }));
        self.client().tokenize(TokenizeRequest { input }).await.expect("tokens").into_inner().ids
    }

    async fn request(&self, adapter: Option<AdapterPin>, max_tokens: u32) -> GenerateRequest {
        GenerateRequest {
            request_id: "r-1".into(),
            tenant_id: TENANT.into(),
            adapter,
            prompt: self.prompt().await,
            sampling: Some(v1::Sampling { temperature: Some(0.0), ..v1::Sampling::default() }),
            max_tokens,
            base_digest: self.base.digest().to_string(),
            ..GenerateRequest::default()
        }
    }

    async fn answer(&self, request: GenerateRequest) -> Result<(String, GenerateResponse), Status> {
        let mut stream = self.client().generate(request).await?.into_inner();
        let mut text = String::new();
        while let Some(part) = stream.message().await? {
            text.push_str(&part.text);
            if part.finish.is_some() {
                return Ok((text, part));
            }
        }
        panic!("the stream ended without its last message: {text}");
    }

    /// Puts a shipped adapter into the registry.
    async fn publish(&self, name: &str) -> AdapterPin {
        let files = Files::read(&repository("adapters/industries").join(name), &Limits::default()).expect("files");
        let plan = files.judge(&self.base, &Limits::default()).expect("fits");
        let version = VersionFiles { config: files.config, weights: files.weights, receipt: "{}".into() };
        let registry = Registry::open(&self.registry.path().display().to_string(), []).expect("opens");
        let tenant: domain::TenantId = TENANT.parse().expect("uuid");
        registry.put_version(tenant.uuid(), plan.digest, &version).await.expect("kept");
        AdapterPin { tenant_id: TENANT.into(), digest: plan.digest.to_string() }
    }

    async fn health(&self) -> ServingStatus {
        let request = HealthCheckRequest { service: String::new() };
        HealthClient::new(self.channel.clone()).check(request).await.expect("answers").into_inner().status()
    }

    async fn stop(self) {
        self.shutdown.trigger();
        drop(self.channel);
        self.running.join.await.expect("joins").expect("ends well");
    }
}

/// Polls until it holds; the engine says nothing over the wire when it does.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it comes true");
}

#[tokio::test]
async fn an_adapter_is_fetched_by_its_digest_and_the_receipt_says_what_ran() {
    let served = serve().await;
    until(|| async { served.health().await == ServingStatus::Serving }).await;
    let pin = served.publish("finance").await;
    let (plain, end) = served.answer(served.request(None, 32).await).await.expect("the base answers");
    let finish = end.finish.expect("last");
    assert_eq!((finish.base_digest.as_str(), finish.adapter_digest.as_str()), (&*served.base.digest().to_string(), ""));
    let (adapted, end) = served.answer(served.request(Some(pin.clone()), 32).await).await.expect("it answers");
    assert_ne!(plain, adapted);
    let finish = end.finish.expect("last");
    assert_eq!(finish.adapter_digest, pin.digest);
    assert_eq!(finish.usage.expect("usage").prompt_tokens as usize, served.prompt().await.len());
    let status = served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner();
    assert_eq!(
        status.residents.iter().filter_map(|resident| resident.adapter.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&pin)
    );
    assert_eq!(status.worker, finish.worker);
    let probe = served.client().probe_adapter(ProbeAdapterRequest { adapter: Some(pin) }).await.expect("probed");
    assert!(probe.into_inner().max_delta > 0.1);
    served.stop().await;
}

#[tokio::test]
async fn every_call_without_the_cluster_token_is_refused() {
    let served = serve().await;
    let mut client = WorkerServiceClient::new(served.channel.clone());
    let refused = [
        client.get_base(GetBaseRequest {}).await.map(drop),
        client.get_status(GetStatusRequest {}).await.map(drop),
        client.tokenize(TokenizeRequest::default()).await.map(drop),
        client.probe_adapter(ProbeAdapterRequest::default()).await.map(drop),
        client.generate(served.request(None, 1).await).await.map(drop),
    ];
    for result in refused {
        assert_eq!(fault_of(&result.expect_err("refused")).reason, Reason::Unauthenticated);
    }
    served.stop().await;
}

#[tokio::test]
async fn an_answer_has_the_form_that_was_asked_for() {
    let served = serve().await;
    let pin = served.publish("finance").await;
    let formed = async |format, max_tokens| GenerateRequest {
        response_format: Some(v1::ResponseFormat { format: Some(format) }),
        ..served.request(Some(pin.clone()), max_tokens).await
    };
    let schema = r#"{"type": "object", "properties": {"code": {"enum": ["E-17", "F-20"]}, "known": {"type": "boolean"}},
        "required": ["code", "known"], "additionalProperties": false}"#;
    let request = formed(Format::JsonSchema(schema.to_owned()), 200).await;
    let (text, end) = served.answer(request).await.expect("it answers");
    assert_eq!(end.finish.expect("last").reason(), v1::FinishReason::Eos);
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        ["E-17", "F-20"].contains(&value["code"].as_str().expect("a code")) && value["known"].is_boolean(),
        "{text}"
    );
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(2));

    let request = formed(Format::Lark("start: nothing_such".to_owned()), 8).await;
    let fault = fault_of(&served.answer(request).await.expect_err("no grammar"));
    assert_eq!(fault.reason, Reason::InvalidRequest);
    assert!(fault.message.contains("response_format"), "{fault:?}");
    let (text, _) = served.answer(served.request(None, 8).await).await.expect("others are served on");
    assert!(!text.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_its_reason() {
    let served = serve().await;
    let reason = |result: Result<(String, GenerateResponse), Status>| fault_of(&result.expect_err("refused")).reason;
    let unknown = AdapterPin { tenant_id: TENANT.into(), digest: format!("sha256:{}", "0".repeat(64)) };
    assert_eq!(reason(served.answer(served.request(Some(unknown), 4).await).await), Reason::AdapterLoad);

    let other_base =
        GenerateRequest { base_digest: format!("sha256:{}", "0".repeat(64)), ..served.request(None, 4).await };
    assert_eq!(reason(served.answer(other_base).await), Reason::BaseMismatch);
    assert_eq!(reason(served.answer(served.request(None, 100_000).await).await), Reason::ContextLength);

    // Files that are another version than their name says.
    let legal = served.publish("legal").await;
    let folder = |pin: &AdapterPin| {
        served.registry.path().join("tenants").join(TENANT).join("adapters").join(&pin.digest["sha256:".len()..])
    };
    let stored = folder(&legal).join("adapter_model.safetensors");
    let finance = repository("adapters/industries/finance/adapter_model.safetensors");
    std::fs::copy(finance, stored).expect("swapped");
    assert_eq!(reason(served.answer(served.request(Some(legal), 4).await).await), Reason::AdapterLoad);
    served.stop().await;
}

#[tokio::test]
async fn a_passed_deadline_and_a_dropped_stream_both_free_the_sequence() {
    let served = serve().await;
    let long = GenerateRequest { ignore_eos: true, ..served.request(None, 490).await };
    let mut late = Request::new(long.clone());
    late.set_timeout(Duration::from_millis(30));
    // The client's own timer is not what is tested: only the metadata goes on.
    let mut stream = served.client().generate(late).await.map(tonic::Response::into_inner);
    let ended = loop {
        match &mut stream {
            Err(status) => break status.clone(),
            Ok(stream) => match stream.message().await {
                Ok(Some(part)) => assert!(part.finish.is_none(), "it was too fast to be late"),
                Ok(None) => panic!("the stream ended well"),
                Err(status) => break status,
            },
        }
    };
    assert!(matches!(fault_of(&ended).reason, Reason::DeadlineExceeded | Reason::Cancelled), "{ended:?}");

    let mut stream = served.client().generate(long).await.expect("starts").into_inner();
    assert!(stream.message().await.expect("a first part").is_some());
    drop(stream);
    let idle = || async {
        let status = served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner();
        status.running + status.waiting == 0
            && status.kv_blocks_free + status.kv_blocks_cached >= status.kv_blocks_total
    };
    until(idle).await;
    served.stop().await;
}

#[tokio::test]
async fn an_answer_goes_on_when_it_is_extended_and_ends_when_it_is_not() {
    let served = serve_with(|config| config.grant_wait_ms = 300).await;
    let whole = GenerateRequest { ignore_eos: true, ..served.request(None, 24).await };
    let (text, _) = served.answer(whole.clone()).await.expect("it answers");
    let granted = GenerateRequest { granted_tokens: 10, ..whole };
    let extend = async |request_id: &str, granted_tokens, last| {
        let request = ExtendRequest { request_id: request_id.into(), granted_tokens, last };
        served.client().extend(request).await.expect("harmless");
    };
    let mut stream = served.client().generate(granted.clone()).await.expect("starts").into_inner();
    let (mut own, mut tokens) = (String::new(), 0);
    let finish = loop {
        let part = stream.message().await.expect("a part").expect("not the end");
        own.push_str(&part.text);
        tokens += part.tokens.len();
        if let Some(finish) = part.finish {
            break finish;
        }
        if tokens == 10 {
            extend("another", 24, false).await;
            extend("r-1", 24, false).await;
        }
    };
    assert_eq!((own, tokens, finish.reason()), (text.clone(), 24, v1::FinishReason::Length));
    extend("r-1", 24, true).await;

    let (own, end) = served.answer(granted).await.expect("nobody extends it");
    let finish = end.finish.expect("last");
    assert_eq!((finish.reason(), finish.usage.expect("usage").completion_tokens), (v1::FinishReason::Budget, 10));
    assert!(text.starts_with(&own) && own.len() < text.len(), "{own:?} of {text:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_before_anything_is_computed() {
    // Held to be no faster than it is, so that little is needed to be late.
    let served = serve_with(|config| {
        config.early_refusal_factor = 1;
        config.engine.prefix_cache = false;
        config.engine.prefill_tokens_max = 4;
    })
    .await;
    let long = GenerateRequest { prompt: vec![5; 400], ..served.request(None, 1).await };
    let begin = std::time::Instant::now();
    served.answer(long.clone()).await.expect("without a deadline, whatever it takes");
    let took = begin.elapsed();
    let before = served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner();
    let mut late = Request::new(long.clone());
    late.set_timeout(took / 4);
    let fault = fault_of(&served.client().generate(late).await.expect_err("refused"));
    assert_eq!(fault.reason, Reason::DeadlineExceeded);
    assert!(fault.message.contains("400 prompt tokens"), "at once, not when it was late: {fault}");
    let mut served_late = Request::new(long);
    served_late.set_timeout(Duration::from_secs(600));
    let mut stream = served.client().generate(served_late).await.expect("in good time").into_inner();
    while stream.message().await.expect("it answers").is_some() {}
    let after = served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner();
    assert_eq!(after.prompt_tokens_total - before.prompt_tokens_total, 400, "the late one was never begun");
    served.stop().await;
}

#[tokio::test]
async fn a_tenants_share_reaches_the_engine() {
    let served = serve().await;
    let share = |waiting_max| Share {
        tenant_id: "01890000-0000-7000-8000-0000000000aa".into(),
        weight: 3,
        priority: 7,
        waiting_max,
        kv_blocks_max: 40,
        ..Share::default()
    };
    let request = GenerateRequest { ignore_eos: true, ..served.request(None, 400).await };
    let mut stream = served.client().generate(GenerateRequest { share: Some(share(0)), ..request.clone() }).await;
    let stream = stream.as_mut().expect("starts").get_mut();
    assert!(stream.message().await.expect("a first part").is_some());
    let status = served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner();
    let tenant = &status.tenants[0];
    assert_eq!((status.tenants.len(), tenant.tenant_id.as_str()), (1, "01890000-0000-7000-8000-0000000000aa"));
    assert!(tenant.running == 1 && tenant.kv_blocks > 0 && tenant.service > 0, "{tenant:?}");
    let fault = fault_of(
        &served
            .answer(GenerateRequest { share: Some(Share { kv_blocks_max: 3, ..share(0) }), ..request })
            .await
            .expect_err("it does not fit its tenant's blocks"),
    );
    assert_eq!(fault.reason, Reason::ContextLength);
    served.stop().await;
}

#[tokio::test]
async fn a_base_that_cannot_be_loaded_ends_the_worker_and_says_why() {
    let registry = tempfile::tempdir().expect("folder");
    let config = configuration(repository("migrations"), &registry);
    let mut running = Worker::start(config, Shutdown::new()).await.expect("listens");
    let why = running.ready().await.expect_err("no base there").to_string();
    assert!(why.contains("base model"), "{why}");
}

async fn usage_of(client: &mut Client, id: &str) -> Option<(v1::Usage, bool)> {
    let request = GetUsageRequest { request_ids: vec![id.to_owned(), "never seen".to_owned()] };
    let told = client.get_usage(request).await.expect("told").into_inner();
    assert!(!told.epoch.is_empty() && told.usages.len() <= 1);
    told.usages.into_iter().next().map(|usage| (usage.usage.expect("usage"), usage.ended))
}

#[tokio::test]
async fn what_a_lost_stream_has_used_can_be_asked_for_and_is_forgotten_in_time() {
    let served = serve_with(|config| {
        config.usage_kept_max = 2;
        config.usage_kept_ms = 600_000;
    })
    .await;
    let mut client = served.client();
    let request = GenerateRequest { ignore_eos: true, ..served.request(None, 400).await };
    let prompt_tokens = request.prompt.len() as u32;
    let mut stream = client.generate(request.clone()).await.expect("begins").into_inner();
    stream.message().await.expect("a step").expect("a step");
    let (running, ended) = usage_of(&mut client, "r-1").await.expect("it runs");
    assert!(!ended && running.completion_tokens > 0 && running.prompt_tokens == prompt_tokens);
    drop(stream);
    until(|| {
        let mut client = client.clone();
        async move { usage_of(&mut client, "r-1").await.expect("kept").1 }
    })
    .await;
    let status =
        |mut client: Client| async move { client.get_status(GetStatusRequest {}).await.expect("s").into_inner() };
    let (used, _) = usage_of(&mut client, "r-1").await.expect("kept");
    let totals = status(client.clone()).await;
    assert_eq!(u64::from(used.completion_tokens), totals.completion_tokens_total, "also what nobody has read");

    // One that goes on elsewhere counts its beginning, the totals of the worker do not.
    let (whole, end) = served
        .answer(GenerateRequest { request_id: "whole".into(), max_tokens: 12, ..request.clone() })
        .await
        .expect("whole");
    let before = status(client.clone()).await;
    let mut stream = client
        .generate(GenerateRequest { request_id: "tokens".into(), max_tokens: 12, ..request.clone() })
        .await
        .expect("begins")
        .into_inner();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    while let Some(part) = stream.message().await.expect("part") {
        tokens.extend(part.tokens.iter().map(|token| token.id));
        text += &part.text;
    }
    assert_eq!(text, whole);
    let begun =
        GenerateRequest { request_id: "resumed".into(), max_tokens: 12, generated: tokens[..5].to_vec(), ..request };
    let (resumed, resumed_end) = served.answer(begun).await.expect("goes on");
    assert_eq!(resumed, whole, "no text was said to have been sent");
    let counts =
        |end: GenerateResponse| end.finish.and_then(|finish| finish.usage).map(|usage| usage.completion_tokens);
    assert_eq!((counts(resumed_end), counts(end)), (Some(12), Some(12)));
    let after = status(client.clone()).await;
    assert_eq!(after.completion_tokens_total - before.completion_tokens_total, 12 + 7);
    assert_eq!(after.taken_over_tokens_total, 5);
    assert!(after.steps_total > before.steps_total && after.epoch == before.epoch);

    assert!(usage_of(&mut client, "r-1").await.is_none(), "only the last two are kept");
    assert_eq!(
        usage_of(&mut client, "resumed").await.map(|(usage, ended)| (usage.completion_tokens, ended)),
        Some((12, true))
    );
    served.stop().await;
}

#[tokio::test]
async fn a_drain_takes_nothing_new_extends_what_runs_and_hands_over_the_rest() {
    let served = serve_with(|config| config.listen.drain_ms = 2_000).await;
    let mut client = served.client();
    let request = |id: &str, max_tokens| {
        let id = id.to_owned();
        let request = served.request(None, max_tokens);
        async move { GenerateRequest { request_id: id, ignore_eos: true, granted_tokens: 4, ..request.await } }
    };
    let mut short = client.generate(request("short", 8).await).await.expect("begins").into_inner();
    let parked = GenerateRequest { granted_tokens: 4, ..request("long", 400).await };
    let mut long = client.generate(parked).await.expect("begins").into_inner();
    let mut at = 0;
    while at < 4 {
        at += long.message().await.expect("a step").expect("a step").tokens.len();
    }
    let begin = std::time::Instant::now();
    served.shutdown.trigger();
    until(|| {
        let mut client = client.clone();
        async move { client.get_status(GetStatusRequest {}).await.expect("it still listens").into_inner().draining }
    })
    .await;
    let refused = client.generate(request("new", 8).await).await.expect_err("nothing new");
    assert_eq!(fault_of(&refused).reason, Reason::ShuttingDown);
    client
        .extend(ExtendRequest { request_id: "short".into(), granted_tokens: 8, last: false })
        .await
        .expect("extended");
    let mut last = None;
    while let Some(part) = short.message().await.expect("goes on") {
        last = part.finish;
    }
    assert_eq!(last.expect("ends").usage.expect("usage").completion_tokens, 8);
    let handed_over = loop {
        match long.message().await {
            Ok(part) => assert!(part.expect("no early end").finish.is_none()),
            Err(status) => break status,
        }
    };
    assert_eq!(fault_of(&handed_over).reason, Reason::ShuttingDown);
    served.running.join.await.expect("ends").expect("well");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
