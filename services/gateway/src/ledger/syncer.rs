//! The thread that makes durable what was written: every end that was written meanwhile shares one sync, and no beginning
//! waits for it.

use std::{
    fs::File,
    io,
    sync::{Arc, mpsc::Receiver},
};

use tokio::sync::oneshot;

use super::{Held, state::State};

/// Taken from the inbox at once, at most.
const BATCH_MAX: usize = 512;

/// What the syncer is told.
pub enum Sync {
    /// The end of requests is written to this file: who waits until it is durable, and what they hold of the log.
    Ends { file: Arc<File>, waiting: Vec<oneshot::Sender<()>>, held: Vec<Held> },
    /// Nothing comes after it.
    Stop,
}

/// Makes durable what was written, until told to stop.
pub fn keep_syncing(inbox: &Receiver<Sync>, state: &State) {
    while let Ok(first) = inbox.recv() {
        let mut stop = false;
        let mut synced: Option<(Arc<File>, bool)> = None;
        // Taken before the sync: they all were written before it.
        let batch: Vec<_> = std::iter::once(first).chain(inbox.try_iter().take(BATCH_MAX)).collect();
        for sync in batch {
            let Sync::Ends { file, waiting, held } = sync else {
                stop = true;
                continue;
            };
            let known = synced.take().filter(|(known, _)| Arc::ptr_eq(known, &file)).map(|(_, well)| well);
            let well = known.unwrap_or_else(|| file.sync_data().map_err(|error| give_up(state, &error)).is_ok());
            drop(held);
            if well {
                for durable in waiting {
                    // Who asked may have gone.
                    let _ = durable.send(());
                }
            }
            synced = Some((file, well));
        }
        if stop {
            return;
        }
    }
}

/// After a sync that failed nobody knows what the disk holds, and another one may say that all is well.
fn give_up(state: &State, error: &io::Error) {
    tracing::error!(%error, "the log cannot be made durable: no request is taken until a restart");
    state.set_broken();
}
