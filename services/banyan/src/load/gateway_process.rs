//! A gateway as a process of its own, with tenants whose limits a measurement does not reach, and a key for each.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use proto::v1::{ApiKey, CreateApiKeyRequest, CreateTenantRequest, Role, Tenant, TenantLimits};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    application,
    collector::Collector,
    drive::Target,
    measured_process::MeasuredProcess,
    scripted_worker::{CLUSTER_TOKEN, ScriptedWorker},
};
use crate::{
    cli::{LoadArgs, LoadCase},
    client::Admin,
    embedded::Embedded,
    failure::{Failure, Outcome},
};

const OPERATOR_TOKEN: &str = "operator";
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
pub const RETRY: Duration = Duration::from_millis(50);

pub struct GatewayProcess {
    pub process: MeasuredProcess,
    endpoint: String,
    keys: Vec<String>,
    /// Its database, where none was given.
    embedded: Option<Embedded>,
    _collector: Collector,
    /// Registry and log; goes with it.
    _folder: TempDir,
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
        let collector = Collector::start().await?;
        command.args(["--otlp", &collector.url]);
        for setting in settings(args, embedded.is_some(), &folder) {
            command.args(["--set", &setting]);
        }
        if let (Some(redis), LoadCase::Redis) = (&args.redis, case) {
            command.args(["--redis", redis]);
        }
        let process = MeasuredProcess::start(&mut command)?;
        let mut gateway =
            Self { process, endpoint, keys: Vec::new(), embedded, _collector: collector, _folder: folder };
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
        application::target(&self.endpoint, &self.keys, args).await
    }

    /// # Errors
    /// A process or database that does not end.
    pub async fn stop(mut self) -> Outcome {
        self.process.kill()?;
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
            if let Some(status) = self.process.ended()? {
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

pub fn free_address() -> Result<String, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
