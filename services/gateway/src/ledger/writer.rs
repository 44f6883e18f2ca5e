//! The thread that appends what found the log busy: everything that waits goes in one write. It alone begins segments, and
//! deals with a disk that is full: that takes no new beginnings, and ends are tried until they are written, in room that
//! was kept for them.

use std::{
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Held, appender::Appender, folder::Folder, segment, state::State, syncer::Sync};

/// Records of one write, at most.
const BATCH_MAX: usize = 512;

/// What is appended.
pub enum Append {
    /// Answered when it is written: a killed process has it then.
    Beginning { record: Vec<u8>, written: oneshot::Sender<Result<(), NotWritten>> },
    /// Answered when it is durable.
    End { record: Vec<u8>, durable: oneshot::Sender<()>, held: Held },
    /// Nothing comes after it.
    Stop,
}

/// The file system did not take it.
#[derive(Clone, Copy, Debug)]
pub struct NotWritten;

pub struct Writer {
    appender: Arc<Mutex<Appender>>,
    folder: Arc<Folder>,
    state: Arc<State>,
    syncs: SyncSender<Sync>,
    /// Kept free for the ends of running requests.
    ballast_bytes: u64,
    retry: Duration,
}

/// Ends that are not written yet.
#[derive(Default)]
struct Ends {
    frames: Vec<u8>,
    waiting: Vec<oneshot::Sender<()>>,
    held: Vec<Held>,
}

impl Writer {
    pub fn new(
        appender: Arc<Mutex<Appender>>,
        folder: Arc<Folder>,
        state: Arc<State>,
        syncs: SyncSender<Sync>,
        ballast_bytes: u64,
        retry: Duration,
    ) -> Self {
        let writer = Self { appender, folder, state, syncs, ballast_bytes, retry };
        writer.keep_free();
        writer
    }

    /// Appends until told to stop, or nobody is left who could send. The syncer stops behind it.
    pub fn run(self, inbox: &Receiver<Append>) {
        self.work_off(inbox);
        self.appender().stop();
        // It is gone only if it has failed, which is told where it is waited for.
        let _ = self.syncs.send(Sync::Stop);
    }

    fn work_off(&self, inbox: &Receiver<Append>) {
        loop {
            let first = if self.state.is_disk_full() {
                match inbox.recv_timeout(self.retry) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.keep_free();
                        continue;
                    }
                    received => received.ok(),
                }
            } else {
                inbox.recv().ok()
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            batch.extend(inbox.try_iter().take(BATCH_MAX - 1));
            let stop = batch.iter().any(|append| matches!(append, Append::Stop));
            self.write(batch, inbox);
            if stop {
                return;
            }
        }
    }

    fn write(&self, batch: Vec<Append>, inbox: &Receiver<Append>) {
        let (mut frames, mut beginnings, mut ends) = (Vec::new(), Vec::new(), Ends::default());
        for append in batch {
            match append {
                Append::Beginning { record, written } => {
                    segment::frame(&record, &mut frames);
                    beginnings.push(written);
                }
                Append::End { record, durable, held } => {
                    // In their order, should all of it go in one write.
                    segment::frame(&record, &mut frames);
                    ends.add(&record, durable, held);
                }
                Append::Stop => {}
            }
        }
        if frames.is_empty() {
            return;
        }
        let appended = self.appender().append(&frames);
        for written in beginnings {
            // Who asked may have gone.
            let _ = written.send(appended.as_ref().map(|_| ()).map_err(|_| NotWritten));
        }
        let file = appended.or_else(|error| {
            tracing::error!(%error, path = %self.folder.path().display(), "the log cannot be written");
            self.state.set_disk_full(true);
            self.insist(&mut ends, inbox).ok_or(error)
        });
        if let Ok(file) = file
            && !ends.waiting.is_empty()
            && self.syncs.send(Sync::Ends { file, waiting: ends.waiting, held: ends.held }).is_err()
        {
            self.state.set_broken();
        }
    }

    fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until these ends, and those that come meanwhile, are written, and says where. Beginnings are refused.
    fn insist(&self, ends: &mut Ends, inbox: &Receiver<Append>) -> Option<Arc<File>> {
        if let Err(error) = self.folder.give_back() {
            tracing::error!(%error, "the room that was kept free cannot be given back");
        }
        let mut last_try = false;
        while !ends.frames.is_empty() && !self.state.is_broken() {
            if let Ok(file) = self.appender().append(&ends.frames) {
                return Some(file);
            }
            if last_try {
                tracing::error!(
                    ends = ends.waiting.len(),
                    "the ends of requests are lost: the disk is full at the stop"
                );
                return None;
            }
            match inbox.recv_timeout(self.retry) {
                Ok(Append::Beginning { written, .. }) => {
                    let _ = written.send(Err(NotWritten));
                }
                Ok(Append::End { record, durable, held }) => ends.add(&record, durable, held),
                Ok(Append::Stop) | Err(RecvTimeoutError::Disconnected) => last_try = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        None
    }

    /// With that there is room again.
    fn keep_free(&self) {
        match self.folder.keep_free(self.ballast_bytes) {
            Ok(()) => self.state.set_disk_full(false),
            Err(error) => {
                if !self.state.is_disk_full() {
                    tracing::error!(%error, "there is no room for the ends of running requests");
                }
                self.state.set_disk_full(true);
            }
        }
    }
}

impl Ends {
    fn add(&mut self, record: &[u8], durable: oneshot::Sender<()>, held: Held) {
        segment::frame(record, &mut self.frames);
        self.waiting.push(durable);
        self.held.push(held);
    }
}
