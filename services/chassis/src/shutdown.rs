//! One signal that everything in a process waits on to stop.

use std::{future::Future, sync::Arc};

use tokio::sync::watch;

/// Cloneable; once triggered it stays triggered.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(false)) }
    }

    pub fn trigger(&self) {
        self.state.send_replace(true);
    }

    pub fn is_triggered(&self) -> bool {
        *self.state.borrow()
    }

    /// Completes once triggered. Owns all that it needs, so it may outlive `self`.
    pub fn triggered(&self) -> impl Future<Output = ()> + Send + 'static {
        let keep = Arc::clone(&self.state);
        let mut changes = keep.subscribe();
        async move {
            // The sender lives in `keep`, so waiting can only end by a trigger.
            let _ = changes.wait_for(|triggered| *triggered).await;
            drop(keep);
        }
    }

    /// Triggers on SIGINT (Ctrl-C) or SIGTERM; a second signal ends the process at once with status 130.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<tokio::task::JoinHandle<()>> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        Ok(tokio::spawn(async move {
            let mut stopping = false;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stopping {
                    std::process::exit(130);
                }
                stopping = true;
                shutdown.trigger();
            }
        }))
    }
}
