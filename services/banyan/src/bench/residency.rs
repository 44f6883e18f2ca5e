//! Which adapters an engine has in memory.

use engine::{AdapterKey, EngineHandle, ResidentStatus};

/// Every adapter in memory or on its way.
pub async fn residents(engine: &EngineHandle) -> Vec<ResidentStatus> {
    engine.status().residents
}

/// Whether this one could be used at once.
pub async fn is_ready(engine: &EngineHandle, key: &AdapterKey) -> bool {
    residents(engine).await.iter().any(|resident| resident.key == *key && !resident.loading)
}

/// Adapters that could be used at once.
pub async fn ready(engine: &EngineHandle) -> u64 {
    residents(engine).await.iter().filter(|resident| !resident.loading).count() as u64
}

/// Memory of these adapters as the engine keeps them.
pub async fn bytes(engine: &EngineHandle, keys: &[AdapterKey]) -> u64 {
    residents(engine).await.iter().filter(|resident| keys.contains(&resident.key)).map(|resident| resident.bytes).sum()
}
