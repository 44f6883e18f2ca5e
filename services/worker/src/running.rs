//! The life of a worker: listen, load, serve, drain. Health says NOT_SERVING until the base is loaded, and again
//! after the engine has given up or when a stop was asked for.
//!
//! A drain has two halves. In the first the worker takes nothing new, says so, and still listens: running answers go on
//! and are extended. What runs when the time is over is ended so that gateways let it go on elsewhere. Only then does it
//! stop to listen.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adapters::{Base, Registry, RegistryError};
use chassis::{
    server::{GrpcServer, Health, ServerError},
    shutdown::Shutdown,
};
use engine::{Engine, EngineError, EngineHandle, model::LoadError, model::Model, text::TextError, text::TextModel};
use proto::worker::worker_service_server::{SERVICE_NAME, WorkerServiceServer};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tonic::service::{Routes, interceptor::InterceptedService};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    auth::ClusterToken,
    config::WorkerConfig,
    forecast::{Forecast, Settings},
    serve::{Loaded, Service},
    source::RegistrySource,
    status::Listing,
    tokenize::TokenizeRoom,
    usage::Usages,
};

/// Why a worker does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("the registry: {0}")]
    Registry(#[from] RegistryError),
    #[error("the base model: {0}")]
    Load(#[from] LoadError),
    #[error("the base model's tokenizer: {0}")]
    Text(#[from] TextError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the worker stopped before its base was loaded")]
    Stopped,
    #[error("a task of the worker crashed: {0}")]
    Crashed(#[from] JoinError),
}

/// A worker that listens. Dropping it does not stop it: its shutdown signal does.
pub struct RunningWorker {
    /// Where it listens; the port is known even when 0 was asked for.
    pub addr: SocketAddr,
    /// Ends once everything has stopped.
    pub join: JoinHandle<Result<(), WorkerError>>,
    loaded: watch::Receiver<Option<Loaded>>,
}

impl RunningWorker {
    /// Waits until the base is loaded.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ready(&mut self) -> Result<Arc<Base>, WorkerError> {
        match self.loaded.wait_for(Option::is_some).await {
            Ok(loaded) => loaded.as_ref().map(|loaded| Arc::clone(&loaded.base)).ok_or(WorkerError::Stopped),
            // Nothing will come any more: the task has ended, and says why.
            Err(_) => Err((&mut self.join).await?.err().unwrap_or(WorkerError::Stopped)),
        }
    }
}

/// The engine on the wire.
pub struct Worker;

impl Worker {
    /// Listens at once and loads the base in the background; [`RunningWorker::ready`] waits for it.
    ///
    /// # Errors
    /// When the address is taken or the registry makes no sense.
    pub async fn start(config: WorkerConfig, shutdown: Shutdown) -> Result<RunningWorker, WorkerError> {
        let options = config.registry_options.iter().map(|(key, value)| (key.clone(), value.reveal().to_owned()));
        let registry = Registry::open(&config.registry, options)?.with_limits(config.engine.adapter.clone());
        let server = GrpcServer::bind(config.listen.clone()).await?;
        let addr = server.local_addr();
        let (sender, loaded) = watch::channel(None);
        let join = tokio::spawn(run(config, registry, server, sender, loaded.clone(), shutdown));
        Ok(RunningWorker { addr, join, loaded })
    }
}

async fn run(
    config: WorkerConfig,
    registry: Registry,
    server: GrpcServer,
    sender: watch::Sender<Option<Loaded>>,
    loaded: watch::Receiver<Option<Loaded>>,
    shutdown: Shutdown,
) -> Result<(), WorkerError> {
    let health = Health::new();
    let reporter = health.reporter();
    report(&reporter, false).await;
    let service = WorkerServiceServer::new(Service::new(loaded)).max_decoding_message_size(config.message_bytes_max);
    let guarded = InterceptedService::new(service, ClusterToken::new(config.cluster_token.clone()));
    let closing = Shutdown::new();
    let serving = tokio::spawn(server.serve(Routes::new(guarded), proto::DESCRIPTORS, health, closing.clone()));
    let time = Duration::from_millis(config.listen.drain_ms);
    let result = load_and_watch(config, registry, sender, &reporter, &shutdown).await;
    let drained = match &result {
        Ok(Some(engine)) => drain(engine.clone(), time).await,
        Ok(None) | Err(_) => Ok(()),
    };
    // Whatever ended the watch, a worker without an engine must not go on listening.
    closing.trigger();
    result?;
    drained?;
    serving.await??;
    Ok(())
}

/// Takes nothing new and waits until what runs has ended; ends the rest after `time`.
async fn drain(engine: EngineHandle, time: Duration) -> Result<(), JoinError> {
    let ending = engine.clone();
    let mut ended = tokio::task::spawn_blocking(move || ending.shutdown());
    tokio::select! {
        ended = &mut ended => return ended,
        () = tokio::time::sleep(time) => {}
    }
    let status = engine.status();
    tracing::info!(running = status.running, waiting = status.waiting, "answers are handed over to other workers");
    engine.end();
    ended.await
}

/// Loads the base, says so, and looks after the engine until the shutdown. `None` when that came first.
async fn load_and_watch(
    config: WorkerConfig,
    registry: Registry,
    sender: watch::Sender<Option<Loaded>>,
    reporter: &HealthReporter,
    shutdown: &Shutdown,
) -> Result<Option<EngineHandle>, WorkerError> {
    let interval = Duration::from_millis(config.health_interval_ms);
    let runtime = Handle::current();
    let loading = tokio::task::spawn_blocking(move || load(config, registry, runtime));
    let loaded = tokio::select! {
        loaded = loading => loaded??,
        // The loading thread cannot be stopped; it ends by itself and what it loaded is dropped.
        () = shutdown.triggered() => return Ok(None),
    };
    tracing::info!(base = %loaded.base.digest(), worker = %loaded.name, "base loaded");
    let engine = loaded.engine.clone();
    sender.send_replace(Some(loaded));
    let mut healthy = false;
    loop {
        let now = engine.status().healthy;
        if now != healthy {
            healthy = now;
            report(reporter, healthy).await;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.triggered() => break,
        }
    }
    // Load balancers should turn away while running answers end.
    report(reporter, false).await;
    Ok(Some(engine))
}

async fn report(reporter: &HealthReporter, healthy: bool) {
    let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", SERVICE_NAME] {
        reporter.set_service_status(service, status).await;
    }
}

/// Seconds for a large base; on a thread of its own.
fn load(config: WorkerConfig, registry: Registry, runtime: Handle) -> Result<Loaded, WorkerError> {
    let model = Arc::new(Model::load(&config.base, &config.model_options())?);
    let text = TextModel::load(&config.base)?;
    let base = Arc::new(model.base().clone().with_names(config.base_names));
    let source = RegistrySource::new(registry, runtime, Duration::from_millis(config.fetch_timeout_ms));
    let vocab_size = model.config().vocab_size;
    let listing =
        Listing { residents_max: config.status_residents_max, wait: Duration::from_millis(config.status_wait_ms) };
    let forecast = Forecast::new(Settings {
        factor: config.early_refusal_factor,
        window: Duration::from_millis(config.early_refusal_window_ms),
    });
    let engine = Engine::start(model, text.clone(), config.engine, Box::new(source))?;
    let name = if config.name.is_empty() { random_name() } else { config.name };
    Ok(Loaded {
        name: name.into(),
        tokenize: TokenizeRoom::new(text, vocab_size, config.tokenize_concurrent_max),
        context_length: engine.context_length(),
        listing,
        forecast: Arc::new(forecast),
        grant_wait: Duration::from_millis(config.grant_wait_ms),
        epoch: uuid::Uuid::now_v7().to_string().into(),
        usages: Arc::new(Usages::new(config.usage_kept_max, Duration::from_millis(config.usage_kept_ms))),
        engine,
        base,
    })
}

/// The random end of an id. It says nothing about the machine: receipts show it to tenants.
fn random_name() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("worker-{}", &id[24..])
}
