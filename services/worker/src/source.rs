//! Adapters from the registry, for the engine's loader threads. What is fetched is not trusted: the engine judges it
//! again and compares its digest.

use std::time::Duration;

use adapters::{Files, Registry, RegistryError};
use engine::{AdapterFault, AdapterKey, AdapterSource};
use tokio::runtime::Handle;

/// Fetches on the runtime while a loader thread waits, for a bounded time.
pub struct RegistrySource {
    registry: Registry,
    runtime: Handle,
    timeout: Duration,
}

impl RegistrySource {
    pub const fn new(registry: Registry, runtime: Handle, timeout: Duration) -> Self {
        Self { registry, runtime, timeout }
    }

    async fn fetch(&self, key: &AdapterKey) -> Result<Files, AdapterFault> {
        let fetching = self.registry.get_version(key.tenant.uuid(), key.digest);
        match tokio::time::timeout(self.timeout, fetching).await {
            Ok(Ok(version)) => Ok(Files { config: version.config, weights: version.weights, notes: Vec::new() }),
            Ok(Err(RegistryError::NotFound)) => Err(AdapterFault::NotFound),
            Ok(Err(RegistryError::TooLarge { found, limit, .. })) => {
                Err(AdapterFault::TooLarge { bytes: found, bytes_max: limit })
            }
            Ok(Err(error)) => {
                // The address and cause are for the operator, not for the client.
                tracing::warn!(tenant = %key.tenant, digest = %key.digest, error = %error, "adapter not fetched");
                Err(AdapterFault::Unavailable("it cannot be read now".to_owned()))
            }
            Err(_) => Err(AdapterFault::Unavailable(format!("no answer within {} ms", self.timeout.as_millis()))),
        }
    }
}

impl AdapterSource for RegistrySource {
    fn load(&self, key: &AdapterKey) -> Result<Files, AdapterFault> {
        self.runtime.block_on(self.fetch(key))
    }
}
