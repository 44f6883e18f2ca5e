//! Memory that adapters take in an engine.

use engine::{AdapterKey, EngineHandle};

/// Memory of these adapters as the engine keeps them.
pub async fn bytes(engine: &EngineHandle, keys: &[AdapterKey]) -> u64 {
    let residents = engine.residents().await;
    residents.iter().filter(|resident| keys.contains(&resident.key)).map(|resident| resident.bytes).sum()
}
