//! A platform as `banyan up` starts it, in this process, with a tenant, its adapters and connected clients.

use std::time::Instant;

use chassis::shutdown::Shutdown;
use clap::Parser as _;
use proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateTenantRequest, GenerateRequest, Role, Sampling, Tenant, TenantLimits, TokenIds,
    generate_request::Input, inference_service_client::InferenceServiceClient,
};
use tempfile::TempDir;

use crate::{
    bench::{
        client::{Answer, Arrival},
        pool::Pool,
    },
    cli::{Cli, ConnectionArgs, DataArgs, GatewayBenchArgs, UpArgs, Verb},
    client::{self, Admin, Connection},
    failure::{Failure, Outcome},
    process::dtype_name,
    up::{data_dir::DataDir, stack::Stack, stages::Stages},
};

const TENANT: &str = "bench";

pub struct Platform {
    stack: Stack,
    shutdown: Shutdown,
    /// One connection for each client.
    clients: Vec<InferenceServiceClient<Connection>>,
    _data: TempDir,
}

impl Platform {
    /// Starts it, and uploads the contents of `pool` as adapters.
    ///
    /// # Errors
    /// What does not start, or is refused.
    pub async fn start(args: &GatewayBenchArgs, pool: &Pool) -> Result<Self, Failure> {
        let data = TempDir::with_prefix("banyan-bench-")?;
        let failed = |error: anyhow::Error| Failure::Failed(format!("{error:#}"));
        let up = up_args(args, &data)?;
        let dir = DataDir::open(data.path()).map_err(failed)?;
        let secrets = dir.secrets().map_err(failed)?;
        let (stages, shutdown) = (Stages::new(), Shutdown::new());
        let stack = Stack::start(&up, &dir, &secrets, &stages, shutdown.clone()).await.map_err(failed)?;
        let admin = Admin::connect(&stack.admin_endpoint, secrets.operator_token.reveal()).await?;
        stages.begin("uploading adapters");
        let key = provide(&admin, pool).await?;
        stages.done();
        let connection = ConnectionArgs {
            endpoint: Some(stack.endpoint.clone()),
            admin_endpoint: None,
            key: Some(key),
            operator_token: None,
            data: DataArgs { data: data.path().to_owned() },
        };
        let mut clients = Vec::with_capacity(args.clients);
        for _ in 0..args.clients {
            clients.push(client::inference(&connection).await?);
        }
        Ok(Self { stack, shutdown, clients, _data: data })
    }

    /// One request of a client to an adapter by its index, or to the base.
    ///
    /// # Errors
    /// The platform's refusal.
    pub async fn ask(
        &self,
        client: usize,
        adapter: Option<usize>,
        prompt: Vec<u32>,
        max_tokens: u32,
    ) -> Result<Answer, Failure> {
        let request = GenerateRequest {
            model: adapter.map_or_else(|| "base".to_owned(), |index| format!("{TENANT}/{}", name(index))),
            input: Some(Input::Tokens(TokenIds { ids: prompt })),
            sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
            max_tokens,
            ignore_eos: true,
            ..GenerateRequest::default()
        };
        let sent = Instant::now();
        let mut stream = self.clients[client].clone().generate(request).await?.into_inner();
        let mut answer = Answer { sent, arrivals: Vec::new(), tokens: Vec::new(), adapter_digest: None };
        while let Some(part) = stream.message().await? {
            if !part.tokens.is_empty() {
                answer.arrivals.push(Arrival { at: Instant::now(), tokens: part.tokens.len() });
                answer.tokens.extend(part.tokens.iter().map(|token| token.id));
            }
        }
        Ok(answer)
    }

    /// # Errors
    /// What does not end well.
    pub async fn stop(self) -> Outcome {
        let Self { stack, shutdown, clients, _data } = self;
        drop(clients);
        shutdown.trigger();
        stack.run(&shutdown).await.map_err(|error| Failure::Failed(format!("{error:#}")))
    }
}

/// A tenant without limits that a measurement could reach, the adapters, and a key.
async fn provide(admin: &Admin, pool: &Pool) -> Result<String, Failure> {
    let limits = TenantLimits {
        requests_per_minute: 1_000_000,
        tokens_per_minute: 1_000_000_000,
        concurrent_requests: 10_000,
        adapter_rank_max: 1024,
        ..TenantLimits::default()
    };
    let tenant = Tenant { limits: Some(limits), ..Tenant::default() };
    let request = CreateTenantRequest { tenant_id: TENANT.to_owned(), tenant: Some(tenant) };
    admin.tenants().create_tenant(request).await?;
    for (index, folder) in pool.folders().iter().enumerate() {
        client::upload(admin, folder, TENANT, &name(index), "live", |_| {}).await?;
    }
    let api_key = ApiKey { role: Role::Inference.into(), ..ApiKey::default() };
    let request = CreateApiKeyRequest { parent: format!("tenants/{TENANT}"), api_key: Some(api_key) };
    Ok(admin.keys().create_api_key(request).await?.into_inner().key)
}

fn name(index: usize) -> String {
    format!("adapter-{index}")
}

/// The flags of `banyan up`, typed.
fn up_args(args: &GatewayBenchArgs, data: &TempDir) -> Result<UpArgs, Failure> {
    let data = data.path().display().to_string();
    let mut typed = vec!["banyan", "up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data", &data];
    typed.extend(["--dtype", dtype_name(args.dtype), "--worker-set", "engine.prefix_cache=false"]);
    let base = args.base.as_ref().map(|base| base.display().to_string());
    typed.extend(base.iter().flat_map(|base| ["--base", base]));
    match Cli::try_parse_from(typed) {
        Ok(Cli { verb: Verb::Up(up), .. }) => Ok(up),
        Ok(_) => Err(Failure::Failed("these are the flags of another verb".to_owned())),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}
