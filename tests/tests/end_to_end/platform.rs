//! One platform for one test: its own database, key prefix, registry, workers and gateway.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use adapters::Registry;
use chassis::shutdown::Shutdown;
use gateway::{Backends, Gateway, GatewayConfig, RunningGateway, limits};
use proto::{
    v1::{
        self, GenerateRequest, adapter_service_client::AdapterServiceClient,
        api_key_service_client::ApiKeyServiceClient, generate_request::Input,
        inference_service_client::InferenceServiceClient, tenant_service_client::TenantServiceClient,
    },
    worker::{GetStatusRequest, Status as WorkerStatus, worker_service_client::WorkerServiceClient},
};
use sqlx::Connection as _;
use store::Store;
use tempfile::TempDir;
use tests::{postgres::TestDatabase, redis::TestRedis};
use tonic::{Request, Status, Streaming, transport::Channel};
use worker::{RunningWorker, Worker, WorkerConfig};

pub const INDUSTRIES: [&str; 4] = ["finance", "healthcare", "legal", "manufacturing"];
const OPERATOR_TOKEN: &str = "test-operator-token";
const CLUSTER_TOKEN: &str = "test-cluster-token";
/// Longest that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Platform {
    database: TestDatabase,
    pub workers: Vec<RunningWorker>,
    gateway: RunningGateway,
    shutdown: Shutdown,
    _registry: TempDir,
}

/// What differs from the defaults.
#[derive(Clone, Default)]
pub struct Settings {
    pub workers: usize,
    /// TOML over the worker's defaults.
    pub worker: &'static str,
    /// TOML over the gateway's defaults.
    pub gateway: &'static str,
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<u32>,
    pub finish: v1::Finish,
}

impl Platform {
    pub async fn start(settings: Settings) -> Self {
        let database = TestDatabase::new().await;
        let redis = TestRedis::new().await;
        let registry = tempfile::tempdir().expect("registry folder");
        let shutdown = Shutdown::new();
        let mut workers = Vec::new();
        for number in 0..settings.workers.max(1) {
            let mut config: WorkerConfig =
                load(worker::DEFAULTS, settings.worker, &worker_settings(registry.path(), number));
            config.listen.address = "127.0.0.1:0".to_owned();
            let mut running = Worker::start(config, shutdown.clone()).await.expect("start a worker");
            running.ready().await.expect("load the base");
            workers.push(running);
        }
        // Migrated by the owner, served by a role that owns nothing.
        store::migrate(&database.owner_url()).await.expect("migrate");
        let service_url = database.service_url(&["banyan_app", "banyan_platform"]).await;
        let urls: Vec<_> = workers.iter().map(|worker| format!("'http://{}'", worker.addr)).collect();
        let mut own = format!(
            "operator_token = '{OPERATOR_TOKEN}'\nkey_pepper = 'test-pepper'\ncluster_token = '{CLUSTER_TOKEN}'\n\
             postgres = '{service_url}'\nredis = '{}'\nregistry = '{}'\n",
            redis.url,
            registry.path().display()
        );
        own += "listen.address = '127.0.0.1:0'\nadmin_listen.address = '127.0.0.1:0'\n";
        own += &format!("ledger.dir = '{}'\n", registry.path().join("ledger").display());
        // The machine may be busy; what happens when Redis is slow is tested elsewhere.
        own += &format!("limits.redis_timeout_ms = {}\n", PATIENCE.as_millis());
        own += &format!("limits.redis_prefix = '{}'\nworkers.urls = [{}]\n", redis.prefix, urls.join(", "));
        let config: GatewayConfig = load(gateway::DEFAULTS, settings.gateway, &own);
        let store = Store::connect(&service_url, &config.store).await.expect("connect to PostgreSQL");
        let backends = Backends {
            limits: limits::open(&redis.url, &config.limits, &store).expect("a good URL"),
            store,
            registry: Registry::open(&config.registry, []).expect("open the registry"),
        };
        let mut gateway = Gateway::start(config, backends, shutdown.clone()).await.expect("start the gateway");
        assert!(gateway.ready().await, "no worker is well");
        Self { database, workers, gateway, shutdown, _registry: registry }
    }

    /// Stops everything and waits until it has stopped.
    pub async fn stop(self) {
        self.shutdown.trigger();
        self.gateway.join().await.expect("the gateway stops cleanly");
        for worker in self.workers {
            worker.join.await.expect("the worker's task").expect("the worker stops cleanly");
        }
    }

    pub async fn inference(&self) -> InferenceServiceClient<Channel> {
        InferenceServiceClient::new(self.public_channel().await)
    }

    async fn public_channel(&self) -> Channel {
        connect(self.gateway.inference_addr).await
    }

    pub async fn admin_channel(&self) -> Channel {
        connect(self.gateway.admin_addr).await
    }

    /// What this worker says of itself.
    pub async fn worker_status(&self, number: usize) -> WorkerStatus {
        let mut client = WorkerServiceClient::new(connect(self.workers[number].addr).await);
        client.get_status(with_token(GetStatusRequest {}, CLUSTER_TOKEN)).await.expect("status").into_inner()
    }

    /// Waits until the worker has nothing to do, and all its blocks and leases back.
    pub async fn wait_until_idle(&self, number: usize) -> WorkerStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.worker_status(number).await;
            let leases: u32 = status.residents.iter().map(|resident| resident.leases).sum();
            let blocks = status.kv_blocks_free + status.kv_blocks_cached;
            if status.running == 0 && status.waiting == 0 && leases == 0 && blocks == status.kv_blocks_total {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker does not become idle: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As [`Platform::usage`], waiting until there are so many.
    pub async fn usage_of(&self, outcome: &str, requests: i64) -> (i64, i64) {
        let enough = async {
            loop {
                let usage = self.usage(outcome).await;
                if usage.0 >= requests {
                    return usage;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), enough).await.expect("the log is shipped in time")
    }

    /// Requests on record, and all their prompt and completion tokens, by outcome.
    async fn usage(&self, outcome: &str) -> (i64, i64) {
        let mut connection = sqlx::PgConnection::connect(&self.database.owner_url()).await.expect("connect");
        let sums = "select count(*), coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint \
                    from usage_records where outcome = $1";
        sqlx::query_as(sums).bind(outcome).fetch_one(&mut connection).await.expect("sum the usage")
    }

    /// A new tenant with an inference key.
    pub async fn tenant(&self, slug: &str, limits: v1::TenantLimits) -> String {
        let mut tenants = TenantServiceClient::new(self.admin_channel().await);
        let tenant = v1::Tenant { limits: Some(limits), ..Default::default() };
        let request = v1::CreateTenantRequest { tenant_id: slug.to_owned(), tenant: Some(tenant) };
        tenants.create_tenant(operator(request)).await.expect("create a tenant");
        self.key(slug, v1::Role::Inference).await
    }

    pub async fn key(&self, tenant: &str, role: v1::Role) -> String {
        let mut keys = ApiKeyServiceClient::new(self.admin_channel().await);
        let api_key = v1::ApiKey { role: role.into(), ..Default::default() };
        let request = v1::CreateApiKeyRequest { parent: format!("tenants/{tenant}"), api_key: Some(api_key) };
        keys.create_api_key(operator(request)).await.expect("create a key").into_inner().key
    }

    pub async fn adapters(&self) -> AdapterServiceClient<Channel> {
        AdapterServiceClient::new(self.admin_channel().await)
    }

    pub async fn create_adapter(&self, tenant: &str, adapter: &str) {
        let request = v1::CreateAdapterRequest {
            parent: format!("tenants/{tenant}"),
            adapter_id: adapter.to_owned(),
            adapter: Some(v1::Adapter::default()),
        };
        self.adapters().await.create_adapter(operator(request)).await.expect("create an adapter");
    }

    /// Uploads a shipped industry model as a version of an adapter that exists; returns its digest.
    pub async fn push(&self, tenant: &str, adapter: &str, industry: &str, alias: &str) -> String {
        self.upload(tenant, adapter, alias, &industry_dir(industry)).await.expect("upload a version").digest
    }

    pub async fn upload(
        &self,
        tenant: &str,
        adapter: &str,
        alias: &str,
        dir: &Path,
    ) -> Result<v1::AdapterVersion, Status> {
        let start = v1::UploadStart { parent: format!("tenants/{tenant}/adapters/{adapter}"), alias: alias.to_owned() };
        let mut messages = vec![v1::upload_adapter_version_request::Message::Start(start)];
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let data = std::fs::read(dir.join(file)).expect("read an adapter file");
            messages.extend(data.chunks(1 << 19).map(|data| {
                let chunk = v1::UploadChunk { file: file.to_owned(), data: data.to_vec() };
                v1::upload_adapter_version_request::Message::Chunk(chunk)
            }));
        }
        let messages: Vec<_> =
            messages.into_iter().map(|message| v1::UploadAdapterVersionRequest { message: Some(message) }).collect();
        let request = operator(tokio_stream::iter(messages));
        Ok(self.adapters().await.upload_adapter_version(request).await?.into_inner())
    }

    pub async fn move_alias(&self, tenant: &str, adapter: &str, alias: &str, digest: &str) {
        let request = v1::MoveAliasRequest {
            name: format!("tenants/{tenant}/adapters/{adapter}/aliases/{alias}"),
            digest: digest.to_owned(),
            ..Default::default()
        };
        self.adapters().await.move_alias(operator(request)).await.expect("move an alias");
    }

    /// A tenant `acme` with the four industries live, and a key of it.
    pub async fn acme_with_industries(&self) -> String {
        let key = self.tenant("acme", generous()).await;
        for industry in INDUSTRIES {
            self.create_adapter("acme", industry).await;
            self.push("acme", industry, industry, "live").await;
        }
        key
    }
}

/// Limits that no test hits by accident.
pub fn generous() -> v1::TenantLimits {
    v1::TenantLimits {
        requests_per_minute: 1_000_000,
        input_tokens_per_minute: 1_000_000_000,
        output_tokens_per_minute: 1_000_000_000,
        concurrent_requests: 10_000,
        ..Default::default()
    }
}

/// A greedy request with a chat prompt.
pub fn ask(model: &str, question: &str, max_tokens: u32) -> GenerateRequest {
    let message = v1::ChatMessage { role: "user".to_owned(), content: question.to_owned() };
    GenerateRequest {
        model: model.to_owned(),
        input: Some(Input::Chat(v1::ChatMessages { messages: vec![message] })),
        sampling: Some(v1::Sampling { temperature: Some(0.0), ..Default::default() }),
        max_tokens,
        ..Default::default()
    }
}

/// The same, going on until `max_tokens`.
pub fn ask_at_length(model: &str, question: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { ignore_eos: true, ..ask(model, question, max_tokens) }
}

pub async fn open(
    client: &mut InferenceServiceClient<Channel>,
    key: &str,
    request: GenerateRequest,
) -> Result<Streaming<v1::GenerateResponse>, Status> {
    Ok(client.generate(with_token(request, key)).await?.into_inner())
}

/// Reads a stream to its end.
pub async fn read(mut stream: Streaming<v1::GenerateResponse>) -> Result<Answer, Status> {
    let (mut text, mut tokens, mut finish) = (String::new(), Vec::new(), None);
    while let Some(message) = stream.message().await? {
        assert!(finish.is_none(), "nothing follows the finish");
        text += &message.text;
        tokens.extend(message.tokens.iter().map(|token| token.id));
        finish = message.finish;
    }
    Ok(Answer { text, tokens, finish: finish.expect("a stream ends with a finish") })
}

pub async fn generate(
    client: &mut InferenceServiceClient<Channel>,
    key: &str,
    request: GenerateRequest,
) -> Result<Answer, Status> {
    read(open(client, key, request).await?).await
}

pub fn operator<T>(message: T) -> Request<T> {
    with_token(message, OPERATOR_TOKEN)
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = chassis::bearer::value(token).expect("a token fits a header");
    request.metadata_mut().insert("authorization", value);
    request
}

pub fn industry_dir(industry: &str) -> PathBuf {
    repository().join("adapters/industries").join(industry)
}

pub fn seed_base() -> PathBuf {
    repository().join("adapters/seed/base")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn worker_settings(registry: &Path, number: usize) -> String {
    format!(
        "base = '{}'\nregistry = '{}'\ncluster_token = '{CLUSTER_TOKEN}'\nname = 'worker-{number}'\n\
         base_names = ['banyan-seed']\n",
        seed_base().display(),
        registry.display()
    )
}

/// Defaults, then the test's settings, then what this platform needs.
fn load<T: serde::de::DeserializeOwned + chassis::config::Validate>(defaults: &str, settings: &str, own: &str) -> T {
    let mut file = tempfile::NamedTempFile::new().expect("settings file");
    std::io::Write::write_all(&mut file, settings.as_bytes()).expect("write settings");
    let own = own.parse().expect("settings are TOML");
    chassis::config::load(defaults, Some(file.path()), "BANYAN_END_TO_END_NONE_", &own).expect("settings hold")
}

async fn connect(address: std::net::SocketAddr) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("connect")
}
