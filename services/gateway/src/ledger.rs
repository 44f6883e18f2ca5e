//! The ledger's way in: every request that is let through is written to a local log before it runs, and its end before the
//! client sees it; the log goes to PostgreSQL behind their backs. Killed at any moment, a gateway finds in its log what
//! PostgreSQL does not have yet, and what has no end is ended by what the workers know ([`closer`]).
//!
//! No request waits for PostgreSQL here. When it is away the log grows to its bound; then nothing new is let through, and
//! what runs has room for its end.

mod appender;
mod closer;
mod folder;
mod processes;
mod record;
mod segment;
mod shipper;
mod state;
mod syncer;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use domain::{Fault, Reason, RequestId};
use store::{End, Hold, LedgerEntry, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{LedgerConfig, ms},
    limits::{Posts, RateLimits},
    workers::Workers,
};
use appender::Appender;
use folder::Folder;
pub use folder::LedgerError;
use record::encode;
use shipper::Shipper;
use state::{Room, State};
use syncer::{Sync, keep_syncing};
use writer::{Append, Writer};

/// When to try again while the log takes nothing.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    appender: Arc<Mutex<Appender>>,
    /// For what does not append itself.
    appends: SyncSender<Append>,
    syncs: SyncSender<Sync>,
    places: Arc<Semaphore>,
    state: Arc<State>,
}

/// Room for one request, from its beginning to its end.
pub struct Place {
    ledger: Ledger,
    held: Held,
}

/// What a running request holds of the log.
pub struct Held {
    _place: OwnedSemaphorePermit,
    _room: Room,
}

/// A request that is in the log and has no end there. Dropping it ends it as one of which nothing ran.
pub struct Open {
    ledger: Ledger,
    /// The beginning is written. Until then it waits for its turn, and so must the end.
    begun: bool,
    /// Taken at the end.
    held: Option<(Hold, Held)>,
}

/// How the log stands, for [`crate::reconcile`].
#[derive(Clone, Copy, Debug)]
pub struct LogStatus {
    /// Everything in it is in PostgreSQL.
    pub shipped: bool,
    /// Records since the start that PostgreSQL does not take.
    pub set_aside: u64,
}

impl Ledger {
    /// Takes the folder, checks what is in it, and begins to ship it. The task ends when told to stop and everything has
    /// been shipped, or `ship_wait_ms` later: what is left then is shipped at the next start.
    pub fn start(
        store: Store,
        workers: Workers,
        limits: Arc<dyn RateLimits>,
        config: &LedgerConfig,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), LedgerError> {
        let dir = Path::new(&config.dir);
        let folder = Arc::new(Folder::open(dir)?);
        let gateway = folder.gateway;
        let found = folder.recover()?;
        let processes = folder.processes(limits.process());
        let processes = processes.map_err(|error| LedgerError::Io { path: dir.to_owned(), error })?;
        let state = State::new(config.bytes_max, found.bytes, found.end, found.shipped);
        // Whatever began before is not running any more.
        let border = RequestId::new(Uuid::now_v7());
        let io = |error| LedgerError::Io { path: dir.to_owned(), error };
        let at_end = Appender::new(Arc::clone(&folder), Arc::clone(&state), found.end.segment, config.segment_bytes);
        let appender = Arc::new(Mutex::new(at_end.map_err(io)?));
        // A beginning and an end of each, and the word that stops; of each, the end waits for a sync.
        let (appends, inbox) = sync_channel(2 * config.requests_max + 1);
        let (syncs, to_sync) = sync_channel(config.requests_max + 1);
        let ballast_bytes = config.requests_max as u64 * segment::FRAMED_BYTES_MAX;
        let writer = Writer::new(
            Arc::clone(&appender),
            Arc::clone(&folder),
            Arc::clone(&state),
            syncs.clone(),
            ballast_bytes,
            ms(config.retry_ms),
        );
        let writing = tokio::task::spawn_blocking(move || writer.run(&inbox));
        let syncing_state = Arc::clone(&state);
        let syncing = tokio::task::spawn_blocking(move || keep_syncing(&to_sync, &syncing_state));

        let shipper = Shipper::new(folder, Arc::clone(&state), store.clone(), config);
        let earlier = closer::Earlier { gateway, border, processes, limits };
        let closing = closer::keep_closing(store, workers, Arc::clone(&state), earlier, config.clone());
        let patience = ms(config.ship_wait_ms);
        let to_stop = appends.clone();
        let task = tokio::spawn(async move {
            let mut shipper = shipper;
            tokio::select! {
                () = stop.cancelled() => {}
                () = shipper.keep_shipping() => {}
                () = closing => {}
            }
            // Room was kept for this one too; without a writer there is nothing to stop.
            let _ = to_stop.try_send(Append::Stop);
            drop(to_stop);
            for thread in [writing, syncing] {
                if let Err(error) = thread.await {
                    tracing::error!(%error, "a thread of the log has failed");
                }
            }
            if tokio::time::timeout(patience, shipper.ship_all()).await.is_err() {
                tracing::warn!("the database did not answer: the rest of the log is shipped at the next start");
            }
            shipper.keep_cursor();
        });
        Ok((Self { appender, appends, syncs, places: Arc::new(Semaphore::new(config.requests_max)), state }, task))
    }

    /// Room for one more request, or a refusal before anything of it has run.
    pub fn place(&self) -> Result<Place, Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| refused("too many requests run at the same time"))?;
        let room = self.state.take_room().map_err(|closed| {
            tracing::error!(?closed, bytes = self.state.bytes(), "the log takes no new request");
            refused("usage cannot be recorded now")
        })?;
        Ok(Place { ledger: self.clone(), held: Held { _place: place, _room: room } })
    }

    /// Appends a record here and now: a few microseconds in the page cache, where a hand-over to another thread and back
    /// takes ten times as long. `None` when somebody else is appending, the segment is full, or the disk: the writer sees to it.
    fn append_now(&self, record: &[u8]) -> Option<Arc<File>> {
        if self.state.is_disk_full() {
            return None;
        }
        let mut frame = Vec::with_capacity(record.len() + 16);
        segment::frame(record, &mut frame);
        let mut appender = self.appender.try_lock().ok()?;
        if appender.fits(&frame) { appender.append(&frame).ok() } else { None }
    }

    /// Says when what was written is in PostgreSQL.
    pub fn posts(&self) -> Arc<dyn Posts> {
        Arc::clone(&self.state) as _
    }

    pub fn status(&self) -> LogStatus {
        LogStatus { shipped: self.state.is_shipped(), set_aside: self.state.set_aside() }
    }
}

impl Place {
    /// Writes the beginning. When this returns, it outlives a kill of the process.
    pub async fn begin(self, hold: Hold) -> Result<Open, Fault> {
        let Self { ledger, held } = self;
        let record = encode(&LedgerEntry::Reserved(hold.clone()));
        if ledger.append_now(&record).is_some() {
            return Ok(Open { ledger, begun: true, held: Some((hold, held)) });
        }
        let (written, answer) = oneshot::channel();
        // It is there before the answer is: should this call be dropped, its end follows.
        let mut open = Open { ledger, begun: false, held: Some((hold, held)) };
        let sent = open.ledger.appends.try_send(Append::Beginning { record, written });
        if sent.is_ok() && matches!(answer.await, Ok(Ok(()))) {
            open.begun = true;
            return Ok(open);
        }
        open.held = None;
        Err(refused("usage cannot be recorded now"))
    }
}

impl Open {
    /// Hands the end over. The answer comes when it is durable, and never if it could not be made so.
    pub fn end(mut self, end: End) -> oneshot::Receiver<()> {
        self.hand_over(end)
    }

    fn hand_over(&mut self, end: End) -> oneshot::Receiver<()> {
        let (durable, answer) = oneshot::channel();
        if let Some((hold, held)) = self.held.take() {
            let record = encode(&LedgerEntry::Ended(hold, end));
            let written = self.begun.then(|| self.ledger.append_now(&record)).flatten();
            // There is room for it; only a log that has stopped takes nothing, and then the next start ends the request.
            let taken = match written {
                Some(file) => {
                    let sync = Sync::Ends { file, waiting: vec![durable], held: vec![held] };
                    self.ledger.syncs.try_send(sync).is_ok()
                }
                None => self.ledger.appends.try_send(Append::End { record, durable, held }).is_ok(),
            };
            if !taken {
                tracing::error!("the log has stopped: the end of a request is left to the next start");
            }
        }
        answer
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.held.is_some() {
            drop(self.hand_over(End::Voided));
        }
    }
}

fn refused(words: &str) -> Fault {
    Fault::new(Reason::BackendUnavailable, words).retry_after(RETRY_AFTER)
}
