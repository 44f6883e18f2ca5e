//! The pool, and the one way to get at a connection: a transaction that has taken a scope.

use std::{future::Future, sync::Arc, time::Duration};

use domain::TenantId;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    Platform, StoreConfig, StoreError, TenantScope,
    error::{is_lost_connection, unavailable},
    migrations,
};

/// How long a connection may take to prove that it is in order when it is given back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// A pool of connections; cheap to clone. Dropped connections are replaced, so a restart of PostgreSQL costs at most the
/// calls that were under way.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    pool_max: u32,
    operation_timeout: Duration,
    /// On whose behalf, as JSON for the audit trail; `None`: the database's user.
    pub(crate) actor: Option<Arc<str>>,
}

/// Whose rows a transaction may touch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// One tenant's.
    Tenant(TenantId),
    /// Every tenant's.
    Platform,
    /// Nobody's: what the database offers to any member of `banyan_app`.
    Nobody,
}

impl Store {
    /// Connects, and checks that [`crate::migrate`] has run. The login role of `url` must be a member of `banyan_app`
    /// and `banyan_platform`; it needs no right of its own and is best not the owner of the tables.
    pub async fn connect(url: &str, config: &StoreConfig) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(unavailable)?;
        let options = options.application_name(&config.application_name).disable_statement_logging();
        let session = session_sql(config);
        let pool = PgPoolOptions::new()
            .max_connections(config.pool_max)
            .acquire_timeout(config.acquire_timeout())
            // `begin` finds out by itself whether a connection still lives, one round trip cheaper.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(session))).await.map(|_| ()) })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    match tokio::time::timeout(RELEASE_TIMEOUT, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                    }
                })
            })
            .connect_lazy_with(options);
        let store =
            Self { pool, pool_max: config.pool_max, operation_timeout: config.operation_timeout(), actor: None };
        store.ready().await?;
        Ok(store)
    }

    /// One tenant's rows. Whether the tenant exists shows with the first call.
    pub fn tenant(&self, tenant: TenantId) -> TenantScope {
        TenantScope::new(self.clone(), tenant)
    }

    /// Every tenant's rows, for the operator.
    pub fn platform(&self) -> Platform {
        Platform::new(self.clone())
    }

    /// Whether the database answers and has the schema of this build; for health checks.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.bounded(async {
            let mut transaction = self.begin(Scope::Nobody).await?;
            migrations::check(&mut transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Waits for calls under way and closes every connection; later calls fail with [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction in a scope, in one round trip. Connections that died while they lay idle are passed over.
    pub(crate) async fn begin(&self, scope: Scope) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut attempts = 0..self.pool_max;
        loop {
            match self.pool.begin_with(AssertSqlSafe(self.begin_sql(scope))).await {
                Ok(transaction) => return Ok(transaction),
                Err(error) if is_lost_connection(&error) && attempts.next().is_some() => {
                    tracing::debug!(%error, "passing over a lost connection");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn begin_sql(&self, scope: Scope) -> String {
        match &self.actor {
            Some(actor) => format!("{}; set local banyan.actor = '{}'", scope.begin_sql(), actor.replace('\'', "''")),
            None => scope.begin_sql(),
        }
    }

    /// Runs one operation, and gives up on a server that has stopped answering.
    pub(crate) async fn bounded<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.operation_timeout, operation).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
        }
    }
}

impl Scope {
    fn begin_sql(self) -> String {
        // A UUID's text holds nothing that SQL could take for anything else.
        match self {
            Self::Tenant(tenant) => format!("begin; set local banyan.tenant_id = '{}'", tenant.uuid()),
            Self::Platform => "begin; set local role banyan_platform".to_owned(),
            Self::Nobody => "begin".to_owned(),
        }
    }
}

/// What every new connection is told: it is `banyan_app` unless a transaction says otherwise.
fn session_sql(config: &StoreConfig) -> String {
    format!(
        "set role banyan_app; set search_path = public; set timezone = 'UTC'; \
         set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {}",
        config.statement_timeout_ms,
        config.lock_timeout_ms,
        config.operation_timeout().as_millis(),
    )
}
