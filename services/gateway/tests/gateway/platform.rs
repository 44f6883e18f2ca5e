//! A gateway on a database of its own, with whatever workers the test scripts, and clients with credentials.

use std::{sync::Arc, time::Duration};

use adapters::Registry;
use chassis::shutdown::Shutdown;
use domain::{Fault, TenantId};
use gateway::{
    Backends, Gateway, GatewayConfig, RunningGateway,
    limits::{self, InProcessLimits, RateLimits},
};
use proto::v1::{
    self, adapter_service_client::AdapterServiceClient, api_key_service_client::ApiKeyServiceClient,
    audit_service_client::AuditServiceClient, inference_service_client::InferenceServiceClient,
    plan_service_client::PlanServiceClient, tenant_service_client::TenantServiceClient,
};
use store::{Page, Store, StoreConfig, UsageRecord};
use tests::postgres::TestDatabase;
use tonic::{
    Request, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::fake_worker::{CLUSTER_TOKEN, FakeWorker};

pub const OPERATOR: &str = "operator-token";
pub const AUDITOR: &str = "auditor-token";

pub struct Platform {
    pub gateway: RunningGateway,
    pub store: Store,
    pub registry: Registry,
    registry_folder: tempfile::TempDir,
    /// The database as a service connects to it.
    url: String,
    shutdown: Shutdown,
    // Dropped last.
    pub database: TestDatabase,
}

/// A tenant and its keys.
pub struct TestTenant {
    pub id: TenantId,
    pub slug: &'static str,
    /// Role inference.
    pub key: String,
    /// Role tenant_admin.
    pub admin: String,
}

/// Sends a bearer token with every call.
#[derive(Clone)]
pub struct Bearer(pub String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = chassis::bearer::value(&self.0).expect("a header can hold it");
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

type Client = InterceptedService<Channel, Bearer>;

impl Platform {
    pub async fn start(workers: &[&FakeWorker]) -> Self {
        Self::start_with(workers, "").await
    }

    /// `settings` are put over the defaults and those of tests.
    pub async fn start_with(workers: &[&FakeWorker], settings: &str) -> Self {
        Self::start_on(TestDatabase::new().await, workers, settings).await
    }

    /// On an empty database.
    pub async fn start_on(database: TestDatabase, workers: &[&FakeWorker], settings: &str) -> Self {
        store::migrate(&database.owner_url()).await.expect("migrates");
        let url = database.service_url(&["banyan_app", "banyan_platform"]).await;
        let store = Store::connect(&url, &StoreConfig::default()).await.expect("connects");
        let registry_folder = tempfile::tempdir().expect("a folder");
        let location = registry_folder.path().to_str().expect("a path in UTF-8");
        let registry = Registry::open(location, []).expect("opens");
        let shutdown = Shutdown::new();
        let config = config(workers, &url, location, &ledger_in(&registry_folder), settings);
        let gateway = start_gateway(config, &store, &registry, &shutdown, !workers.is_empty()).await;
        Self { gateway, store, registry, registry_folder, url, shutdown, database }
    }

    /// Another gateway on the same database and registry, with connections of its own. Stops with this one.
    pub async fn beside(&self, workers: &[&FakeWorker], settings: &str) -> RunningGateway {
        let store = Store::connect(&self.url, &StoreConfig::default()).await.expect("connects");
        let location = self.registry_folder.path().to_str().expect("a path in UTF-8");
        let config = config(workers, &self.url, location, &ledger_in(&self.registry_folder), settings);
        start_gateway(config, &store, &self.registry, &self.shutdown, !workers.is_empty()).await
    }

    /// That of a gateway with these settings.
    pub fn config(&self, settings: &str) -> GatewayConfig {
        let location = self.registry_folder.path().to_str().expect("a path in UTF-8");
        config(&[], &self.url, location, &ledger_in(&self.registry_folder), settings)
    }

    pub async fn stop(self) {
        let (store, _database) = self.end().await;
        store.close().await;
    }

    /// Stops the gateway; the test may still look into the database.
    pub async fn end(self) -> (Store, TestDatabase) {
        self.shutdown.trigger();
        within(self.gateway.join()).await.expect("ends well");
        (self.store, self.database)
    }

    pub async fn tenant(&self, slug: &'static str, limits: v1::TenantLimits) -> TestTenant {
        let tenant = v1::Tenant { limits: Some(limits), ..v1::Tenant::default() };
        let request = v1::CreateTenantRequest { tenant_id: slug.to_owned(), tenant: Some(tenant) };
        self.tenants(OPERATOR).create_tenant(request).await.expect("makes a tenant");
        let id = self.store.platform().get_tenant(&slug.parse().expect("a slug")).await.expect("is there").id;
        let key = self.make_key(slug, v1::Role::Inference).await.1;
        let admin = self.make_key(slug, v1::Role::TenantAdmin).await.1;
        TestTenant { id, slug, key, admin }
    }

    /// The text of a new key of a tenant.
    pub async fn make(&self, tenant: &TestTenant, api_key: v1::ApiKey) -> String {
        let request = v1::CreateApiKeyRequest { parent: format!("tenants/{}", tenant.slug), api_key: Some(api_key) };
        self.keys(OPERATOR).create_api_key(request).await.expect("makes a key").into_inner().key
    }

    /// Name and text of a new key.
    pub async fn make_key(&self, slug: &str, role: v1::Role) -> (String, String) {
        let api_key = v1::ApiKey { role: role.into(), ..v1::ApiKey::default() };
        let request = v1::CreateApiKeyRequest { parent: format!("tenants/{slug}"), api_key: Some(api_key) };
        let made = self.keys(OPERATOR).create_api_key(request).await.expect("makes a key").into_inner();
        (made.api_key.expect("a key").name, made.key)
    }

    pub fn channel(&self, address: std::net::SocketAddr) -> Channel {
        Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
    }

    pub fn inference(&self, token: &str) -> InferenceServiceClient<Client> {
        self.inference_at(self.gateway.inference_addr, token)
    }

    pub fn inference_at(&self, address: std::net::SocketAddr, token: &str) -> InferenceServiceClient<Client> {
        let channel = self.channel(address);
        InferenceServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub fn plans(&self, token: &str) -> PlanServiceClient<Client> {
        let channel = self.channel(self.gateway.admin_addr);
        PlanServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub fn tenants(&self, token: &str) -> TenantServiceClient<Client> {
        let channel = self.channel(self.gateway.admin_addr);
        TenantServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub fn keys(&self, token: &str) -> ApiKeyServiceClient<Client> {
        let channel = self.channel(self.gateway.admin_addr);
        ApiKeyServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub fn audit(&self, token: &str) -> AuditServiceClient<Client> {
        let channel = self.channel(self.gateway.admin_addr);
        AuditServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub fn adapters(&self, token: &str) -> AdapterServiceClient<Client> {
        let channel = self.channel(self.gateway.admin_addr);
        AdapterServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub async fn generate(&self, key: &str, request: v1::GenerateRequest) -> Result<Answer, Fault> {
        collect(self.inference(key).generate(request).await.map_err(|status| fault(&status))?.into_inner()).await
    }

    pub async fn usage(&self, tenant: &TestTenant) -> Vec<UsageRecord> {
        self.store.tenant(tenant.id).list_usage(&Page::first(100)).await.expect("lists").items
    }

    /// Waits until there are so many records.
    pub async fn usage_of(&self, tenant: &TestTenant, count: usize) -> Vec<UsageRecord> {
        within(async {
            loop {
                let records = self.usage(tenant).await;
                if records.len() >= count {
                    return records;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// A log of its own for each gateway.
fn ledger_in(folder: &tempfile::TempDir) -> String {
    let dir = folder.path().join(format!("ledger-{}", uuid::Uuid::now_v7()));
    format!("[ledger]\ndir = {dir:?}\n")
}

async fn start_gateway(
    config: GatewayConfig,
    store: &Store,
    registry: &Registry,
    shutdown: &Shutdown,
    with_workers: bool,
) -> RunningGateway {
    let limits = match config.redis.reveal() {
        "" => Arc::new(InProcessLimits::default()) as Arc<dyn RateLimits>,
        redis => limits::open(redis, &config.limits, store).expect("a good URL"),
    };
    let backends = Backends { store: store.clone(), limits, registry: registry.clone() };
    let mut gateway = Gateway::start(config, backends, shutdown.clone()).await.expect("starts");
    if with_workers {
        assert!(within(gateway.ready()).await);
    }
    gateway
}

pub struct Answer {
    pub text: String,
    pub tokens: usize,
    pub finish: v1::Finish,
}

/// A whole answer, or the fault that it ends with.
pub async fn collect(mut stream: Streaming<v1::GenerateResponse>) -> Result<Answer, Fault> {
    let (mut text, mut tokens, mut finish) = (String::new(), 0, None);
    while let Some(message) = within(stream.message()).await.map_err(|status| fault(&status))? {
        assert!(finish.is_none(), "nothing comes after the finish");
        text += &message.text;
        tokens += message.tokens.len();
        finish = message.finish;
    }
    Ok(Answer { text, tokens, finish: finish.expect("a stream that ends well ends with a finish") })
}

pub fn ask(model: &str) -> v1::GenerateRequest {
    v1::GenerateRequest {
        model: model.to_owned(),
        input: Some(v1::generate_request::Input::Prompt("0123456789".to_owned())),
        max_tokens: 10,
        ..v1::GenerateRequest::default()
    }
}

pub fn inference_key() -> v1::ApiKey {
    v1::ApiKey { role: v1::Role::Inference.into(), ..v1::ApiKey::default() }
}

pub fn fault(status: &Status) -> Fault {
    assert!(chassis::status::request_id_of(status).is_some(), "every refusal carries a request id: {status:?}");
    chassis::status::fault_of(status)
}

/// Nothing here takes long; what does, hangs.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time")
}

fn config(workers: &[&FakeWorker], postgres: &str, registry: &str, ledger: &str, settings: &str) -> GatewayConfig {
    let urls: Vec<_> = workers.iter().map(|worker| format!("{:?}", worker.url)).collect();
    let urls = if urls.is_empty() { "\"http://127.0.0.1:9\"".to_owned() } else { urls.join(", ") };
    let own = format!(
        "operator_token = {OPERATOR:?}\nauditor_token = {AUDITOR:?}\nkey_pepper = 'pepper'\ncluster_token = {CLUSTER_TOKEN:?}\n\
         postgres = {postgres:?}\nregistry = {registry:?}\n\
         [listen]\naddress = '127.0.0.1:0'\ndrain_ms = 300\n\
         [admin_listen]\naddress = '127.0.0.1:0'\ndrain_ms = 300\n\
         [workers]\nurls = [{urls}]\ncheck_interval_ms = 100\n"
    );
    let mut table: toml::Table = own.parse().expect("toml");
    merge(&mut table, ledger.parse().expect("toml"));
    merge(&mut table, settings.parse().expect("toml"));
    chassis::config::load(gateway::DEFAULTS, None, "BANYAN_GATEWAY_TEST_NONE_", &table).expect("a good configuration")
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
