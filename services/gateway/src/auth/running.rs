//! Calls under way, by the key that they were made with, so that they can be ended when it is revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{Fault, Reason};
use tokio_util::sync::CancellationToken;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Running {
    /// Each with the number of its calls. As many as there are calls at most.
    keys: Arc<Mutex<HashMap<String, (CancellationToken, usize)>>>,
}

/// One call made with a key, for as long as this lives.
pub struct KeyInUse {
    running: Running,
    public_id: String,
    revoked: CancellationToken,
}

impl Running {
    pub fn enter(&self, public_id: &str) -> KeyInUse {
        let mut keys = self.keys();
        let (revoked, calls) = keys.entry(public_id.to_owned()).or_default();
        *calls += 1;
        let revoked = revoked.clone();
        drop(keys);
        KeyInUse { running: self.clone(), public_id: public_id.to_owned(), revoked }
    }

    pub fn keys_in_use(&self) -> Vec<String> {
        self.keys().keys().cloned().collect()
    }

    /// Ends every call of the key.
    pub fn end(&self, public_id: &str) {
        if let Some((revoked, calls)) = self.keys().remove(public_id) {
            tracing::info!(key = public_id, calls, "the key may not be used any more: its calls are ended");
            revoked.cancel();
        }
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<String, (CancellationToken, usize)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyInUse {
    /// Ends when the key is revoked, with what the caller is told.
    pub async fn revoked(&self) -> Fault {
        self.revoked.cancelled().await;
        Fault::new(Reason::Unauthenticated, "the API key was revoked or has expired while this was running")
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        // Calls that were ended are not in the list any more, and others of the same key may have come since.
        if self.revoked.is_cancelled() {
            return;
        }
        let mut keys = self.running.keys();
        if let Some((_, calls)) = keys.get_mut(&self.public_id) {
            *calls -= 1;
            if *calls == 0 {
                keys.remove(&self.public_id);
            }
        }
    }
}
