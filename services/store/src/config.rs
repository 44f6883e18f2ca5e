//! How a process holds its connections to PostgreSQL. Reading it from files and the environment is the process's matter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Most connections of this process. The embedded PostgreSQL takes one.
    pub pool_max: u32,
    /// Longest wait for a connection, a new one included; then [`crate::StoreError::Unavailable`].
    pub acquire_timeout_ms: u64,
    /// Longest that one statement may run on the server.
    pub statement_timeout_ms: u64,
    /// Longest wait for another transaction's lock.
    pub lock_timeout_ms: u64,
    /// How PostgreSQL lists this process's connections.
    pub application_name: String,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            pool_max: 10,
            acquire_timeout_ms: 5_000,
            statement_timeout_ms: 10_000,
            lock_timeout_ms: 5_000,
            application_name: "banyan".to_owned(),
        }
    }
}

impl StoreConfig {
    /// For a PostgreSQL that takes one connection.
    pub fn single_connection() -> Self {
        Self { pool_max: 1, ..Self::default() }
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }

    /// Longest that one method may take altogether. The server's own timeouts come first while it answers at all; this
    /// one is for a server that has stopped answering.
    pub(crate) fn operation_timeout(&self) -> Duration {
        self.acquire_timeout() + Duration::from_millis(self.lock_timeout_ms + self.statement_timeout_ms)
    }
}
