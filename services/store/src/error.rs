//! What can go wrong, and which named constraint says what. The names are part of the contract with `migrations/`.

use std::fmt;

/// The error of every method here. `Unavailable` and `Internal` carry a cause for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Does not exist, or is another tenant's: the two cannot be told apart here either.
    #[error("{what} `{name}` was not found")]
    NotFound { what: Resource, name: String },
    #[error("{what} `{name}` exists already")]
    AlreadyExists { what: Resource, name: String },
    /// It has changed (an alias: moved) since its etag was read.
    #[error("{what} `{name}` was changed by somebody else")]
    Conflict { what: Resource, name: String },
    #[error("{0}")]
    FailedPrecondition(Precondition),
    /// A stock is used up; waiting does not help.
    #[error("{stock}: {used} of {max} used, {wanted} more wanted")]
    QuotaExceeded { stock: Stock, max: u64, used: u64, wanted: u64 },
    /// A value that the schema does not take.
    #[error("{field} must {rule}")]
    InvalidValue { field: &'static str, rule: &'static str },
    #[error("the page token is not one that this list gave out")]
    InvalidPageToken,
    #[error("the database's schema is at version {found} and this build needs {wanted}: run the migrations")]
    SchemaBehind { found: i64, wanted: i64 },
    #[error("a migration failed")]
    Migration(#[source] Box<sqlx::migrate::MigrateError>),
    /// No connection, a lost one, a timeout, or a server that is starting or stopping. Trying again later makes sense.
    #[error("the database does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("unexpected database error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Tenant,
    ApiKey,
    Adapter,
    AdapterVersion,
    Alias,
    Pin,
    Schedule,
    Model,
    Plan,
}

impl Resource {
    /// As `google.rpc.ResourceInfo` names its type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::ApiKey => "API key",
            Self::Adapter => "adapter",
            Self::AdapterVersion => "adapter version",
            Self::Alias => "alias",
            Self::Pin => "pin",
            Self::Schedule => "scheduled change",
            Self::Model => "model",
            Self::Plan => "plan",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What must be changed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Precondition {
    #[error("the tenant still has adapters: delete them first, or force")]
    TenantHasAdapters,
    #[error("an alias names this version, as what answers, canary or shadow: move or delete the alias first")]
    VersionHasAlias,
    #[error("a pin names this version: delete the pin first, or wait for its end")]
    VersionHasPin,
    #[error("the version is retired: nothing may point at it, and it is not answered with")]
    VersionRetired,
    #[error("the version is not checked yet")]
    VersionNotChecked,
    #[error("{0}")]
    Rollout(domain::RolloutError),
    #[error("the change is not pending any more")]
    ScheduleIsOver,
    /// The version's files were not reserved, or the reservation is over: reserve and write them (again).
    #[error("the files of this version are not stored: upload it again")]
    FilesNotStored,
    /// The last version with this content was deleted a moment ago, and its files are not gone yet.
    #[error("the files of an equal version are just being deleted: upload it again in a moment")]
    FilesBeingDeleted,
    #[error("the key is revoked: create another one")]
    KeyIsRevoked,
    #[error("tenants still have this plan: give them another one first")]
    PlanInUse,
    #[error("the default plan stays: it is the plan of tenants that were given none")]
    PlanIsDefault,
}

/// A stock that a tenant's limits bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    Adapters,
    AdapterBytes,
    /// Of one alias.
    Pins,
    /// Pending ones of one alias.
    Schedules,
}

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adapters => "adapters",
            Self::AdapterBytes => "bytes of adapter versions",
            Self::Pins => "pins of the alias",
            Self::Schedules => "scheduled changes of the alias",
        })
    }
}

impl StoreError {
    pub(crate) fn not_found(what: Resource, name: impl fmt::Display) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub(crate) fn conflict(what: Resource, name: impl fmt::Display) -> Self {
        Self::Conflict { what, name: name.to_string() }
    }

    /// A value in the database that this build cannot read.
    pub(crate) fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            return unavailable(error);
        }
        invalid_value(&error).unwrap_or_else(|| Self::Internal(Box::new(error)))
    }
}

pub(crate) fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

/// Whether the connection is of no use any more, while another may be.
pub(crate) fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // 57P01 to 57P03: stopped by an administrator, crashed, not accepting yet; class 08: connection exceptions.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        // Class 53: out of connections, memory or disk; 57014: statement timeout; 55P03: lock timeout; 40: deadlock or
        // serialisation failure; 25P03: idle in transaction.
        sqlx::Error::Database(database) => {
            is_lost_connection(error)
                || database.code().is_some_and(|code| {
                    code.starts_with("53") || code.starts_with("40") || ["57014", "55P03", "25P03"].contains(&&*code)
                })
        }
        other => is_lost_connection(other),
    }
}

/// What clients may get wrong in free text and numbers; everything else that the schema checks, our own types check first.
fn invalid_value(error: &sqlx::Error) -> Option<StoreError> {
    let error = error.as_database_error()?;
    let (field, rule) = match error.constraint() {
        Some(
            "tenants_display_name_length"
            | "api_keys_display_name_length"
            | "adapters_display_name_length"
            | "plans_display_name_length",
        ) => ("display_name", "have at most 256 characters"),
        Some("tenants_limits_positive" | "plans_limits_positive" | "api_keys_limits_positive") => {
            ("limits", "be above zero")
        }
        Some("tenants_budgets_exact" | "plans_budgets_exact" | "api_keys_budgets_exact") => {
            ("limits", "have budgets below 2^53 micro-units")
        }
        Some("prices_not_in_the_past") => ("effective_time", "not lie in the past"),
        Some("prices_range") => ("price", "be below 2^53 micro-units for a million tokens"),
        Some("api_keys_scopes") => ("scopes", "be absent or name something"),
        // 22021: a character that the encoding has not, which in UTF-8 from Rust can only be NUL.
        // 22P05: the same, escaped in JSON.
        _ if matches!(error.code().as_deref(), Some("22021" | "22P05")) => ("text", "not contain NUL characters"),
        _ => return None,
    };
    Some(StoreError::InvalidValue { field, rule })
}

/// Turns violations of named constraints into what they mean for the statement at hand; the rest stays what it is.
pub(crate) trait Violations<T> {
    fn violations(self, meaning: impl FnOnce(&str) -> Option<StoreError>) -> Result<T, StoreError>;
}

impl<T> Violations<T> for Result<T, sqlx::Error> {
    fn violations(self, meaning: impl FnOnce(&str) -> Option<StoreError>) -> Result<T, StoreError> {
        self.map_err(|error| {
            let constraint = error.as_database_error().and_then(|error| error.constraint());
            constraint.and_then(meaning).unwrap_or_else(|| error.into())
        })
    }
}
