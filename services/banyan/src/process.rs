//! `banyan gateway` and `banyan worker`: one process alone, configured by file, environment and flags.

mod settings;

pub use settings::{Settings, dtype_name, format_of};

use chassis::{
    config::{self, ConfigError, Validate},
    shutdown::Shutdown,
    telemetry,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cli::{ConfigArgs, GatewayArgs, WorkerArgs},
    failure::{Failure, Outcome},
    output,
};

/// Runs a worker until it is told to stop.
///
/// # Errors
/// A configuration that makes no sense, or what keeps the worker from starting.
pub async fn worker(args: WorkerArgs) -> Outcome {
    let mut settings = Settings::of(&args.config)?;
    settings.put_some("listen.address", args.listen);
    settings.put_some("base", args.base.as_ref().map(|base| base.display()));
    settings.put_some("registry", args.registry.as_ref());
    settings.put_some("name", args.name.as_ref());
    settings.put_some("dtype", args.dtype.map(dtype_name));
    let Some(config) = load::<worker::WorkerConfig>(worker::DEFAULTS, worker::ENV_PREFIX, &args.config, &settings)?
    else {
        return Ok(());
    };
    let _telemetry = telemetry::init(&config.telemetry).map_err(failed)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let running = worker::Worker::start(config, shutdown).await.map_err(failed)?;
    tracing::info!(address = %running.addr, "worker listens");
    running.join.await.map_err(failed)?.map_err(failed)
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// A configuration that makes no sense, or what keeps the gateway from starting.
pub async fn gateway(args: GatewayArgs) -> Outcome {
    let mut settings = Settings::of(&args.config)?;
    settings.put_some("listen.address", args.listen);
    settings.put_some("admin_listen.address", args.admin_listen);
    settings.put_some("postgres", args.postgres.as_ref());
    settings.put_some("redis", args.redis.as_ref());
    settings.put_some("registry", args.registry.as_ref());
    if !args.worker.is_empty() {
        settings.put("workers.urls", args.worker);
    }
    let Some(config) = load::<gateway::GatewayConfig>(gateway::DEFAULTS, gateway::ENV_PREFIX, &args.config, &settings)?
    else {
        return Ok(());
    };
    let _telemetry = telemetry::init(&config.telemetry).map_err(failed)?;
    if args.migrate {
        store::migrate(config.postgres.reveal()).await.map_err(failed)?;
    }
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    gateway::run(config, shutdown).await.map_err(failed)
}

/// A runtime with a thread for every two processors. The engine computes on all of them, and each thread that wakes for a
/// token takes one away from it: fewer threads find more to do each time that they wake. Where processors are many, half
/// of them carry far more than the engine makes.
///
/// # Errors
/// No thread to be had.
pub fn runtime_beside_engine() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(processors.div_ceil(2)).enable_all().build()
}

/// The configuration; none when it was only to be printed.
fn load<T: DeserializeOwned + Serialize + Validate>(
    defaults: &str,
    env_prefix: &str,
    args: &ConfigArgs,
    settings: &Settings,
) -> Result<Option<T>, Failure> {
    let (file, flags) = (args.config.as_deref(), settings.table());
    if args.dump_config {
        let loaded = config::load::<Unchecked<T>>(defaults, file, env_prefix, flags).map_err(usage)?;
        output::line(config::dump(&loaded).trim_end())?;
        return Ok(None);
    }
    config::load(defaults, file, env_prefix, flags).map(Some).map_err(usage)
}

/// To be printed, a configuration need not be complete.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Unchecked<T>(T);

impl<T> Validate for Unchecked<T> {
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

fn usage(error: ConfigError) -> Failure {
    Failure::Usage(error.to_string())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
