//! Assembles a gateway and takes it down in order: doors, calls, answers, then what they hand over to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adapters::{Registry, RegistryError};
use chassis::{
    server::{GrpcServer, Health, ServerError},
    shutdown::Shutdown,
};
use domain::Slug;
use proto::v1::{
    adapter_service_server::AdapterServiceServer, api_key_service_server::ApiKeyServiceServer,
    audit_service_server::AuditServiceServer, ledger_service_server::LedgerServiceServer,
    limit_service_server::LimitServiceServer, plan_service_server::PlanServiceServer,
    price_service_server::PriceServiceServer, rollout_service_server::RolloutServiceServer,
    tenant_service_server::TenantServiceServer,
};
use store::{Store, StoreError};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use crate::{
    admin::{Adapters, ApiKeys, Audit, Ledgers, LimitQuestions, Plans, Prices as PriceLists, Rollouts, Tenants},
    audit::Refusals,
    auth::{Authenticator, KeyHasher},
    changes::{ChangeFeed, Listener, Wake, WakeError},
    config::{GatewayConfig, ms},
    explain::Explainer,
    generate::{Books, Generator},
    guard::Guard,
    inference::Inference,
    ledger::{Ledger, LedgerError},
    limits::{self, Admission, LimitsUnavailable, RateLimits},
    models::Models,
    prices::Prices,
    public,
    repeats::{self, Repeats},
    schedules,
    shadow::Shadows,
    sweeper::Sweeper,
    trial::Trial,
    uploads::Uploads,
    workers::{Workers, WorkersError},
};

/// A gateway that was not heard of for so many heartbeats is gone.
const GATEWAY_ALIVE_BEATS: u32 = 3;
/// Chunks of an upload are at most 1 MiB; other admin messages are small.
const ADMIN_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Longest that the tasks behind the doors may take to end, besides the time for shipping the log.
const TASKS_END: Duration = Duration::from_secs(5);

/// What a gateway stands on, connected by whoever assembles it.
pub struct Backends {
    pub store: Store,
    pub limits: Arc<dyn RateLimits>,
    pub registry: Registry,
}

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("PostgreSQL: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Limits(#[from] LimitsUnavailable),
    #[error("Redis: {0}")]
    Wake(#[from] WakeError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Workers(#[from] WorkersError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("a task of the gateway failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

pub struct Gateway;

/// Both doors are open. It runs until the shutdown that it was started with.
pub struct RunningGateway {
    pub inference_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    well: watch::Receiver<bool>,
    task: JoinHandle<Result<(), GatewayError>>,
}

impl Gateway {
    /// Binds both doors and serves. Workers may come later: health says whether one is there.
    pub async fn start(
        config: GatewayConfig,
        backends: Backends,
        shutdown: Shutdown,
    ) -> Result<RunningGateway, GatewayError> {
        let config = Arc::new(config);
        let Backends { store, limits, registry } = backends;
        let inference_door = GrpcServer::bind(config.listen.clone()).await?.with_http1();
        let admin_door = GrpcServer::bind(config.admin_listen.clone()).await?;
        let (inference_addr, admin_addr) = (inference_door.local_addr(), admin_door.local_addr());

        // `calls` stops what is still running when the time for draining is over, `rest` what it hands over to.
        let (calls, rest) = (CancellationToken::new(), CancellationToken::new());
        let relays = TaskTracker::new();
        let (workers, looking) = Workers::start(&config.workers, &config.cluster_token, rest.clone())?;
        let (admission, errands) = Admission::start(Arc::clone(&limits), config.limits.errands_max, rest.clone());
        let (ledger, writing) =
            Ledger::start(store.clone(), workers.clone(), Arc::clone(&limits), &config.ledger, rest.clone())?;
        limits.posts_through(ledger.posts());
        let (prices, pricing) = Prices::start(store.clone(), &config.prices, rest.clone());
        let sweep_interval = ms(config.uploads.sweep_interval_ms);
        let (sweeper, sweeping) = Sweeper::start(store.clone(), registry.clone(), sweep_interval, rest.clone());

        let forget_interval = ms(config.idempotency.sweep_interval_ms);
        let forgetting = tokio::spawn(repeats::sweep(store.clone(), forget_interval, rest.clone()));

        let authenticator = Arc::new(Authenticator::new(store.clone(), &config));
        let keeping = authenticator.keys().keep(rest.clone());
        let models = Models::new(store.clone(), workers.clone(), &config.models);
        let listeners: Vec<Arc<dyn Listener>> =
            vec![Arc::clone(authenticator.keys()) as _, models.listener(), prices.listener()];
        let wake = wake(&config)?;
        let listed = if config.name.is_empty() { inference_addr.to_string() } else { config.name.clone() };
        let (changes, following) =
            ChangeFeed::start(store.clone(), listeners, wake, config.changes.clone(), listed, rest.clone()).await?;
        let (shadows, shadowing) = Shadows::start(store.clone(), workers.clone(), &config.shadow, rest.clone());
        let planned = {
            let (models, changes) = (models.clone(), changes.clone());
            let changed = move |tenant, adapter: &Slug| {
                models.forget(tenant, adapter);
                changes.committed();
            };
            schedules::start(store.clone(), ms(config.rollouts.schedule_interval_ms), changed, rest.clone())
        };
        let refusals = Arc::new(Refusals::new(store.clone(), &config.audit));
        let guard = Guard::new(authenticator, changes, refusals, Arc::clone(&config), calls.clone());
        let explainer = Explainer::new(admission.clone(), prices.clone(), Arc::clone(&config));
        let trial = Trial::new(store.clone(), prices.clone(), &config.limits);
        let generator = Generator::new(
            models.clone(),
            shadows,
            admission,
            workers.clone(),
            Books { prices, ledger: ledger.clone() },
            Arc::clone(&config),
            (relays.clone(), calls.clone()),
        );
        let repeats = Repeats::new(store.clone(), &config.idempotency, relays.clone());
        let inference = Inference::new(generator, repeats, explainer.clone(), store.clone(), workers.clone());
        let inference = public::routes(Arc::new(inference), &guard, &config);
        let uploads = Uploads::new(registry, workers.clone(), sweeper.clone(), &config.uploads);
        let defaults = config.tenant_limits;
        let alive = GATEWAY_ALIVE_BEATS * ms(config.changes.heartbeat_ms);
        let rollouts = Rollouts::new(store.clone(), models.clone(), defaults, config.rollouts.clone(), alive);
        let adapters = Adapters::new(store.clone(), models, uploads, sweeper.clone(), defaults);
        let keys = ApiKeys::new(store.clone(), KeyHasher::new(&config.key_pepper), defaults);
        let most = ADMIN_MESSAGE_BYTES_MAX;
        let plans = Plans::new(store.clone());
        let prices = PriceLists::new(store.clone());
        let ledgers = Ledgers::new(store.clone(), ledger.clone(), workers.clone(), Arc::clone(&limits), defaults);
        let audit = Audit::new(store.clone(), config.audit.export_batch);
        let questions = LimitQuestions::new(store.clone(), explainer, trial, defaults);
        let admin = Routes::new(
            guard.before(TenantServiceServer::new(Tenants::new(store, sweeper)).max_decoding_message_size(most)),
        )
        .add_service(guard.before(PlanServiceServer::new(plans).max_decoding_message_size(most)))
        .add_service(guard.before(LedgerServiceServer::new(ledgers).max_decoding_message_size(most)))
        .add_service(guard.before(LimitServiceServer::new(questions).max_decoding_message_size(most)))
        .add_service(guard.before(PriceServiceServer::new(prices).max_decoding_message_size(most)))
        .add_service(guard.before(AuditServiceServer::new(audit).max_decoding_message_size(most)))
        .add_service(guard.before(ApiKeyServiceServer::new(keys).max_decoding_message_size(most)))
        .add_service(guard.before(AdapterServiceServer::new(adapters).max_decoding_message_size(most)))
        .add_service(guard.before(RolloutServiceServer::new(rollouts).max_decoding_message_size(most)));

        let health = [Health::new(), Health::new()];
        let reporters = [health[0].reporter(), health[1].reporter()];
        let reporting = tokio::spawn(report(reporters, workers.watch(), shutdown.clone()));
        let [inference_health, admin_health] = health;
        let well = workers.watch();
        let patience = ms(config.ledger.ship_wait_ms) + TASKS_END;
        let task = tokio::spawn(async move {
            let served = tokio::join!(
                inference_door.serve(inference, proto::DESCRIPTORS, inference_health, shutdown.clone()),
                admin_door.serve(admin, proto::DESCRIPTORS, admin_health, shutdown.clone()),
            );
            shutdown.trigger();
            calls.cancel();
            relays.close();
            let ending = async {
                relays.wait().await;
                rest.cancel();
                for task in [
                    looking, errands, writing, pricing, sweeping, forgetting, following, keeping, shadowing, planned,
                    reporting,
                ] {
                    task.await?;
                }
                limits.close().await;
                Ok::<_, tokio::task::JoinError>(())
            };
            match tokio::time::timeout(patience, ending).await {
                Ok(ended) => ended?,
                Err(_) => tracing::error!("tasks of the gateway did not end in time"),
            }
            served.0?;
            served.1?;
            Ok(())
        });
        tracing::info!(inference = %inference_addr, admin = %admin_addr, "gateway listens");
        Ok(RunningGateway { inference_addr, admin_addr, well, task })
    }
}

impl RunningGateway {
    /// Waits until a worker is well; `false` if the gateway stops before.
    pub async fn ready(&mut self) -> bool {
        self.well.wait_for(|well| *well).await.is_ok()
    }

    /// Waits until everything has ended.
    pub async fn join(self) -> Result<(), GatewayError> {
        self.task.await?
    }
}

/// A gateway alone: connects what the configuration names, and serves until `shutdown`.
pub async fn run(config: GatewayConfig, shutdown: Shutdown) -> Result<(), GatewayError> {
    let store = Store::connect(config.postgres.reveal(), &config.store).await?;
    if config.redis.is_empty() {
        tracing::warn!("no Redis is configured: rate limits hold for this process alone");
    }
    let limits = limits::open(config.redis.reveal(), &config.limits, &store)?;
    let options = config.registry_options.iter().map(|(key, value)| (key.clone(), value.reveal().to_owned()));
    let registry = Registry::open(&config.registry, options)?;
    let backends = Backends { store: store.clone(), limits, registry };
    Gateway::start(config, backends, shutdown).await?.join().await?;
    store.close().await;
    Ok(())
}

/// Wakes the gateways that share this one's Redis, if it has one.
fn wake(config: &GatewayConfig) -> Result<Option<Wake>, WakeError> {
    if config.redis.is_empty() {
        return Ok(None);
    }
    let timeout = ms(config.limits.redis_timeout_ms);
    Wake::new(config.redis.reveal(), &config.limits.redis_prefix, timeout).map(Some)
}

/// Serving while a worker is well and no stop was asked for.
async fn report(
    reporters: [tonic_health::server::HealthReporter; 2],
    mut well: watch::Receiver<bool>,
    shutdown: Shutdown,
) {
    let [inference, admin] = reporters;
    admin.set_service_status("", tonic_health::ServingStatus::Serving).await;
    loop {
        let serving = *well.borrow_and_update();
        let status =
            if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        inference.set_service_status("", status).await;
        tokio::select! {
            () = shutdown.triggered() => break,
            changed = well.changed() => if changed.is_err() { break },
        }
    }
    for reporter in [inference, admin] {
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }
}
