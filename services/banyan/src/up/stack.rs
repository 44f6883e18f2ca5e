//! The processes of the platform inside one: PostgreSQL, worker, gateway. Started from the bottom up, stopped from
//! the top down.

use std::{path::PathBuf, sync::Arc};

use adapters::{Base, Registry};
use anyhow::Context as _;
use chassis::{config, shutdown::Shutdown};
use gateway::{Backends, Gateway, GatewayConfig, RunningGateway, limits::RateLimits};
use store::{Store, StoreConfig};
use worker::{RunningWorker, Worker, WorkerConfig};

use super::{
    data_dir::{DataDir, Secrets},
    shipped,
    stages::Stages,
};
use crate::{
    cli::UpArgs,
    embedded::Embedded,
    process::{Settings, dtype_name},
};

/// A running platform.
pub struct Stack {
    /// What a client on this machine connects to.
    pub endpoint: String,
    pub admin_endpoint: String,
    /// The base that is served.
    pub base: Arc<Base>,
    pub base_dir: PathBuf,
    gateway: RunningGateway,
    worker: RunningWorker,
    worker_stop: Shutdown,
    store: Store,
    postgres: Option<Embedded>,
}

impl Stack {
    /// `shutdown` stops the gateway; the rest follows in [`Stack::run`].
    ///
    /// # Errors
    /// What does not start, and why.
    pub async fn start(
        args: &UpArgs,
        data: &DataDir,
        secrets: &Secrets,
        stages: &Stages,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let base_dir = args.base.clone().unwrap_or_else(shipped::base);
        let registry_url = args.registry.clone().unwrap_or_else(|| data.registry().display().to_string());

        // The slowest part first: the base loads while PostgreSQL starts.
        let worker_stop = Shutdown::new();
        let config = worker_config(args, data, secrets, &base_dir, &registry_url)?;
        let mut worker = Worker::start(config, worker_stop.clone()).await?;

        stages.begin("starting PostgreSQL");
        let (postgres, url, store_config) = match &args.postgres {
            Some(url) => (None, url.clone(), StoreConfig::default()),
            None => {
                let postgres = Embedded::start(&data.postgres()).await.context("the embedded PostgreSQL")?;
                let url = postgres.url().to_owned();
                (Some(postgres), url, StoreConfig::single_connection())
            }
        };
        store::migrate(&url).await.context("PostgreSQL")?;
        let store = Store::connect(&url, &store_config).await.context("PostgreSQL")?;

        stages.begin(&format!("loading the base model {}", base_dir.display()));
        let base = worker.ready().await?;

        stages.begin("opening the gateway");
        let config = gateway_config(args, data, secrets, &url, &registry_url, &worker)?;
        let backends = Backends {
            store: store.clone(),
            limits: limits(args, &config, &store)?,
            registry: Registry::open(&registry_url, options(&config))?,
        };
        let mut gateway = Gateway::start(config, backends, shutdown).await?;
        anyhow::ensure!(gateway.ready().await, "the gateway stopped before it had reached the worker");
        Ok(Self {
            endpoint: reachable(gateway.inference_addr),
            admin_endpoint: reachable(gateway.admin_addr),
            base,
            base_dir,
            gateway,
            worker,
            worker_stop,
            store,
            postgres,
        })
    }

    /// Runs until `shutdown`, then takes everything down in order. Running answers end first, within the drain time.
    ///
    /// # Errors
    /// When a part ends by itself, or does not end well.
    pub async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { gateway, mut worker, worker_stop, store, postgres, .. } = self;
        let mut crashed = None;
        tokio::select! {
            () = shutdown.triggered() => {}
            ended = &mut worker.join => {
                crashed = Some(ended);
                shutdown.trigger();
            }
        }
        let closed = gateway.join().await;
        worker_stop.trigger();
        let ended = match crashed {
            Some(ended) => ended,
            None => worker.join.await,
        };
        store.close().await;
        if let Some(postgres) = postgres {
            postgres.stop().await.context("the embedded PostgreSQL")?;
        }
        closed.context("the gateway")?;
        ended?.context("the worker")
    }
}

fn worker_config(
    args: &UpArgs,
    data: &DataDir,
    secrets: &Secrets,
    base_dir: &std::path::Path,
    registry_url: &str,
) -> anyhow::Result<WorkerConfig> {
    let mut settings = Settings::default();
    settings.put("engine.adapter_cache_dir", data.adapter_cache().display().to_string());
    settings.put_pairs(&args.worker_set)?;
    // Nobody but the gateway of this process should find it.
    settings.put("listen.address", "127.0.0.1:0");
    settings.put("listen.drain_ms", drain_ms(args));
    settings.put("base", base_dir.display().to_string());
    settings.put("base_names", base_names(args));
    settings.put("dtype", dtype_name(args.dtype));
    settings.put("packed_dir", data.packed().display().to_string());
    settings.put("registry", registry_url);
    settings.put("cluster_token", secrets.cluster_token.reveal());
    Ok(config::load(worker::DEFAULTS, None, worker::ENV_PREFIX, settings.table())?)
}

fn gateway_config(
    args: &UpArgs,
    data: &DataDir,
    secrets: &Secrets,
    postgres: &str,
    registry_url: &str,
    worker: &RunningWorker,
) -> anyhow::Result<GatewayConfig> {
    let mut settings = Settings::default();
    settings.put("ledger.dir", data.ledger().display().to_string());
    settings.put_pairs(&args.gateway_set)?;
    settings.put("listen.address", args.listen.to_string());
    settings.put("listen.drain_ms", drain_ms(args));
    settings.put("admin_listen.address", args.admin_listen.to_string());
    settings.put("admin_listen.drain_ms", drain_ms(args));
    settings.put("postgres", postgres);
    settings.put_some("redis", args.redis.as_ref());
    settings.put("registry", registry_url);
    settings.put("workers.urls", vec![format!("http://{}", worker.addr)]);
    settings.put("operator_token", secrets.operator_token.reveal());
    settings.put("key_pepper", secrets.pepper.reveal());
    settings.put("cluster_token", secrets.cluster_token.reveal());
    Ok(config::load(gateway::DEFAULTS, None, gateway::ENV_PREFIX, settings.table())?)
}

fn limits(args: &UpArgs, config: &GatewayConfig, store: &Store) -> anyhow::Result<Arc<dyn RateLimits>> {
    gateway::limits::open(args.redis.as_deref().unwrap_or_default(), &config.limits, store).context("Redis")
}

fn options(config: &GatewayConfig) -> Vec<(String, String)> {
    config.registry_options.iter().map(|(key, value)| (key.clone(), value.reveal().to_owned())).collect()
}

/// The bundled base is known by the name that its adapters state.
fn base_names(args: &UpArgs) -> Vec<String> {
    let bundled = args.base.is_none().then(|| shipped::BASE_NAME.to_owned());
    bundled.into_iter().chain(args.base_name.iter().cloned()).collect()
}

fn drain_ms(args: &UpArgs) -> i64 {
    i64::try_from(args.drain_seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// An address to connect to: one that listens everywhere is reached through the loopback.
fn reachable(mut addr: std::net::SocketAddr) -> String {
    if addr.ip().is_unspecified() {
        let loopback =
            if addr.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        addr.set_ip(loopback);
    }
    format!("http://{addr}")
}
