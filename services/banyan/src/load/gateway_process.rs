//! A gateway as a process of its own, with tenants whose limits a measurement does not reach, and a key for each.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateTenantRequest, GenerateRequest, Role, Tenant, TenantLimits, TokenIds,
    generate_request::Input,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    drive::{Target, Times},
    scripted_worker::{CLUSTER_TOKEN, ScriptedWorker},
};
use crate::{
    cli::{ConnectionArgs, DataArgs, LoadArgs, LoadCase},
    client::{self, Admin},
    embedded::Embedded,
    failure::{Failure, Outcome},
};

const OPERATOR_TOKEN: &str = "operator";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// Linux counts processor time in these (`USER_HZ`, the same on every architecture that we run on).
const TICKS_PER_SECOND: u64 = 100;

pub struct GatewayProcess {
    child: Child,
    endpoint: String,
    keys: Vec<String>,
    /// Its database, where none was given.
    embedded: Option<Embedded>,
    folder: TempDir,
}

impl GatewayProcess {
    /// # Errors
    /// What does not start, or is refused.
    pub async fn start(args: &LoadArgs, case: LoadCase, worker: &ScriptedWorker) -> Result<Self, Failure> {
        let folder = TempDir::with_prefix("banyan-load-")?;
        let embedded = match &args.postgres {
            Some(_) => None,
            None => Some(Embedded::start(&folder.path().join("postgres")).await.map_err(failed)?),
        };
        let postgres = args.postgres.clone().or_else(|| Some(embedded.as_ref()?.url().to_owned()));
        let (listen, admin_listen) = (free_address()?, free_address()?);
        let (endpoint, admin_endpoint) = (format!("http://{listen}"), format!("http://{admin_listen}"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["gateway", "--migrate", "--listen", &listen, "--admin-listen", &admin_listen]);
        command.args(["--postgres", &postgres.unwrap_or_default(), "--worker", &worker.url]);
        command.args(["--registry", &format!("file://{}", folder.path().display()), "--log", "warn"]);
        for setting in settings(args, embedded.is_some(), &folder) {
            command.args(["--set", &setting]);
        }
        if let (Some(redis), LoadCase::Redis) = (&args.redis, case) {
            command.args(["--redis", redis]);
        }
        let child = command.stdin(Stdio::null()).spawn()?;
        // From here on the process is killed when this is dropped.
        let mut gateway = Self { child, endpoint, keys: Vec::new(), embedded, folder };
        let admin = gateway.connect(&admin_endpoint).await?;
        // The database may have seen other measurements.
        let run = Uuid::now_v7().simple().to_string();
        for tenant in 0..args.tenants {
            gateway.keys.push(provide(&admin, &format!("load-{run}-{tenant}")).await?);
        }
        gateway.first_answer(args).await?;
        Ok(gateway)
    }

    /// Requests as applications send them.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn target(&self, args: &LoadArgs) -> Result<Target, Failure> {
        let mut clients = Vec::new();
        for n in 0..args.connections as usize {
            let connection = ConnectionArgs {
                endpoint: Some(self.endpoint.clone()),
                admin_endpoint: None,
                key: Some(self.keys[n % self.keys.len()].clone()),
                operator_token: None,
                data: DataArgs { data: self.folder.path().to_owned() },
            };
            clients.push(client::inference(&connection).await?);
        }
        let request = GenerateRequest {
            model: "base".to_owned(),
            input: Some(Input::Tokens(TokenIds { ids: vec![1; args.prompt_tokens as usize] })),
            max_tokens: args.messages,
            ..GenerateRequest::default()
        };
        Ok(Arc::new(move |n| {
            let (mut client, request) = (clients[n % clients.len()].clone(), request.clone());
            Box::pin(async move {
                let mut steps = client.generate(request).await?.into_inner();
                let mut first = None;
                while steps.message().await?.is_some() {
                    first.get_or_insert_with(Instant::now);
                }
                let end = Instant::now();
                Ok(Times { first: first.unwrap_or(end), end })
            })
        }))
    }

    /// Processor time that it has spent so far, in user and system mode.
    ///
    /// # Errors
    /// Where the system does not say (only Linux does).
    pub fn cpu_time(&self) -> Result<Duration, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in parentheses; behind it, `utime` and `stime` are the 12th and 13th.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace()).into_iter().flatten();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Memory that it holds now.
    ///
    /// # Errors
    /// Where the system does not say (only Linux does).
    pub fn resident_bytes(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Failure::Failed("the gateway's memory cannot be read".to_owned()))
    }

    /// # Errors
    /// A process or database that does not end.
    pub async fn stop(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        match self.embedded.take() {
            Some(embedded) => embedded.stop().await.map_err(failed),
            None => Ok(()),
        }
    }

    /// Waits until it listens and a worker is well.
    async fn connect(&mut self, admin_endpoint: &str) -> Result<Admin, Failure> {
        let end = Instant::now() + START_TIMEOUT;
        loop {
            let error = match Admin::connect(admin_endpoint, OPERATOR_TOKEN).await {
                Ok(admin) => return Ok(admin),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::Failed(format!("the gateway ended at its start: {status}")));
            }
            if Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Waits until it has found its worker.
    async fn first_answer(&self, args: &LoadArgs) -> Outcome {
        let target = self.target(args).await?;
        let end = Instant::now() + START_TIMEOUT;
        while let Err(error) = target(0).await {
            if Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(args: &LoadArgs, embedded: bool, folder: &TempDir) -> Vec<String> {
    let mut settings = vec![
        format!("operator_token={OPERATOR_TOKEN}"),
        "key_pepper=pepper".to_owned(),
        format!("cluster_token={CLUSTER_TOKEN}"),
        format!("limits.redis_prefix={}", folder.path().display()),
        format!("ledger.dir={}", folder.path().join("ledger").display()),
    ];
    if embedded {
        settings.push("store.pool_max=1".to_owned());
    }
    settings.extend(args.set.iter().cloned());
    settings
}

/// A tenant with limits on everything, none of which is reached, and a key.
async fn provide(admin: &Admin, tenant: &str) -> Result<String, Failure> {
    let limits = TenantLimits {
        requests_per_minute: 10_000_000,
        input_tokens_per_minute: 1_000_000_000,
        output_tokens_per_minute: 1_000_000_000,
        concurrent_requests: 100_000,
        ..TenantLimits::default()
    };
    let request = CreateTenantRequest {
        tenant_id: tenant.to_owned(),
        tenant: Some(Tenant { limits: Some(limits), ..Tenant::default() }),
    };
    admin.tenants().create_tenant(request).await?;
    let api_key = ApiKey { role: Role::Inference.into(), ..ApiKey::default() };
    let request = CreateApiKeyRequest { parent: format!("tenants/{tenant}"), api_key: Some(api_key) };
    Ok(admin.keys().create_api_key(request).await?.into_inner().key)
}

fn free_address() -> Result<String, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
