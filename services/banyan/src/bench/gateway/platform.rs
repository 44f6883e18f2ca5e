//! A platform as `banyan up` starts it, in this process, with a tenant, its adapters and connected clients.

use std::{path::Path, time::Instant};

use chassis::shutdown::Shutdown;
use clap::Parser as _;
use proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateTenantRequest, GenerateRequest, Role, Sampling, Tenant, TenantLimits, TokenIds,
    generate_request::Input, inference_service_client::InferenceServiceClient,
};
use tempfile::TempDir;
use tokio::runtime::Handle;

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
    /// Starts it on the checkpoint in `base`, or else the bundled one, and uploads the contents of `pool` as adapters.
    /// The clients' connections live on the runtime `clients`.
    ///
    /// # Errors
    /// What does not start, or is refused.
    pub async fn start(
        args: &GatewayBenchArgs,
        base: Option<&Path>,
        pool: &Pool,
        clients: &Handle,
    ) -> Result<Self, Failure> {
        let data = TempDir::with_prefix("banyan-bench-")?;
        let failed = |error: anyhow::Error| Failure::Failed(format!("{error:#}"));
        let up = up_args(args, base, &data)?;
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
        let count = args.clients;
        let connecting = clients.spawn(async move {
            let mut clients = Vec::with_capacity(count);
            for _ in 0..count {
                clients.push(client::inference(&connection).await?);
            }
            Ok::<_, Failure>(clients)
        });
        let clients = connecting.await.map_err(|crash| Failure::Failed(crash.to_string()))??;
        Ok(Self { stack, shutdown, clients, _data: data })
    }

    /// One request of a client to an adapter by its index, or to the base. Ends with the platform's refusal as the error.
    pub fn ask(
        &self,
        client: usize,
        adapter: Option<usize>,
        prompt: Vec<u32>,
        max_tokens: u32,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + 'static {
        let request = GenerateRequest {
            model: adapter.map_or_else(|| "base".to_owned(), |index| format!("{TENANT}/{}", name(index))),
            input: Some(Input::Tokens(TokenIds { ids: prompt })),
            sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
            max_tokens,
            ignore_eos: true,
            ..GenerateRequest::default()
        };
        let mut client = self.clients[client].clone();
        async move {
            let sent = Instant::now();
            let mut stream = client.generate(request).await?.into_inner();
            let mut answer = Answer { sent, arrivals: Vec::new(), tokens: Vec::new(), adapter_digest: None };
            while let Some(part) = stream.message().await? {
                if !part.tokens.is_empty() {
                    answer.arrivals.push(Arrival { at: Instant::now(), tokens: part.tokens.len() });
                    answer.tokens.extend(part.tokens.iter().map(|token| token.id));
                }
            }
            Ok(answer)
        }
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
        input_tokens_per_minute: 1_000_000_000,
        output_tokens_per_minute: 1_000_000_000,
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
fn up_args(args: &GatewayBenchArgs, base: Option<&Path>, data: &TempDir) -> Result<UpArgs, Failure> {
    let data = data.path().display().to_string();
    let mut typed = vec!["banyan", "up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data", &data];
    typed.extend(["--dtype", dtype_name(args.dtype), "--worker-set", "engine.prefix_cache=false"]);
    typed.extend(["--worker-set", "engine.speculative_tokens_max=0"]);
    let base = base.map(|base| base.display().to_string());
    typed.extend(base.iter().flat_map(|base| ["--base", base]));
    let engine = args.model.set.iter().map(|pair| format!("engine.{pair}"));
    let cpu = args.model.cpu.cpu.iter().map(|pair| format!("cpu.{pair}"));
    let adapters = args.model.adapter_dtype.map(|dtype| format!("adapter_dtype={}", dtype_name(dtype)));
    let settings: Vec<_> = engine.chain(cpu).chain(adapters).collect();
    typed.extend(settings.iter().flat_map(|pair| ["--worker-set", pair]));
    match Cli::try_parse_from(typed) {
        Ok(Cli { verb: Verb::Up(up), .. }) => Ok(up),
        Ok(_) => Err(Failure::Failed("these are the flags of another verb".to_owned())),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}
