//! The two threads that own the log's files. One appends: everything that waits goes in one write. The other makes durable:
//! every end that was written meanwhile shares one sync, and no beginning waits for it.
//!
//! A disk that is full takes no new beginnings; ends are tried until they are written, in room that was kept for them.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Held,
    folder::Folder,
    segment::{self, HEADER_BYTES},
    state::{Position, State},
};

/// Records of one write, at most.
const BATCH_MAX: usize = 512;
/// Writes that wait for a sync, at most; then appending waits.
pub const SYNCS_MAX: usize = 64;

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

/// A file whose writes are to be made durable, and who waits for it.
pub struct Sync {
    file: Arc<File>,
    waiting: Vec<oneshot::Sender<()>>,
}

pub struct Writer {
    folder: Arc<Folder>,
    state: Arc<State>,
    syncs: SyncSender<Sync>,
    segment_bytes: u64,
    /// Kept free for the ends of running requests.
    ballast_bytes: u64,
    retry: Duration,
    file: Arc<File>,
    at: Position,
}

/// Ends that are not written yet.
#[derive(Default)]
struct Ends {
    frames: Vec<u8>,
    waiting: Vec<oneshot::Sender<()>>,
    held: Vec<Held>,
}

impl Writer {
    /// Begins a segment behind `last`.
    pub fn new(
        folder: Arc<Folder>,
        state: Arc<State>,
        syncs: SyncSender<Sync>,
        last: u64,
        (segment_bytes, ballast_bytes): (u64, u64),
        retry: Duration,
    ) -> io::Result<Self> {
        let file = Arc::new(segment::create(folder.path(), last + 1)?);
        let at = Position { segment: last + 1, offset: HEADER_BYTES };
        let mut writer = Self { folder, state, syncs, segment_bytes, ballast_bytes, retry, file, at };
        writer.state.grown(HEADER_BYTES);
        writer.state.written().send_replace(at);
        writer.keep_free();
        Ok(writer)
    }

    /// Appends until told to stop, or nobody is left who could send.
    pub fn run(mut self, inbox: &Receiver<Append>) {
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

    fn write(&mut self, batch: Vec<Append>, inbox: &Receiver<Append>) {
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
        let appended = self.append(&frames);
        for written in beginnings {
            // Who asked may have gone.
            let _ = written.send(appended.as_ref().map_err(|_| NotWritten).copied());
        }
        if let Err(error) = appended {
            tracing::error!(%error, path = %self.folder.path().display(), "the log cannot be written");
            self.state.set_disk_full(true);
            self.insist(&mut ends, inbox);
        }
        if !ends.waiting.is_empty() {
            let sync = Sync { file: Arc::clone(&self.file), waiting: ends.waiting };
            if self.syncs.send(sync).is_err() {
                self.state.set_broken();
            }
        }
    }

    /// Tries until these ends, and those that come meanwhile, are written. Beginnings are refused.
    fn insist(&mut self, ends: &mut Ends, inbox: &Receiver<Append>) {
        if let Err(error) = self.folder.give_back() {
            tracing::error!(%error, "the room that was kept free cannot be given back");
        }
        let mut last_try = false;
        while !ends.frames.is_empty() {
            if self.state.is_broken() {
                return ends.waiting.clear();
            }
            let frames = std::mem::take(&mut ends.frames);
            if self.append(&frames).is_ok() {
                return;
            }
            ends.frames = frames;
            if last_try {
                tracing::error!(
                    ends = ends.waiting.len(),
                    "the ends of requests are lost: the disk is full at the stop"
                );
                return ends.waiting.clear();
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
    }

    /// All of it or nothing.
    fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.state.is_broken() {
            return Err(io::Error::other("the log is broken"));
        }
        let bytes = frames.len() as u64;
        if bytes == 0 {
            return Ok(());
        }
        if self.at.offset + bytes > self.segment_bytes && self.at.offset > HEADER_BYTES {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(frames) {
            if let Err(error) = self.file.set_len(self.at.offset) {
                tracing::error!(%error, "half a write cannot be taken back");
                self.state.set_broken();
            }
            return Err(error);
        }
        self.at.offset += bytes;
        self.state.grown(bytes);
        self.state.written().send_replace(self.at);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.at.segment + 1;
        self.file = Arc::new(segment::create(self.folder.path(), number)?);
        self.at = Position { segment: number, offset: HEADER_BYTES };
        self.state.grown(HEADER_BYTES);
        Ok(())
    }

    /// With that there is room again.
    fn keep_free(&mut self) {
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

/// Makes durable what was written, until the writer is gone.
pub fn keep_syncing(inbox: &Receiver<Sync>, state: &State) {
    while let Ok(first) = inbox.recv() {
        let mut syncs = vec![first];
        syncs.extend(inbox.try_iter().take(SYNCS_MAX));
        let mut synced: Option<(Arc<File>, bool)> = None;
        for Sync { file, waiting } in syncs {
            let known = synced.take().filter(|(known, _)| Arc::ptr_eq(known, &file)).map(|(_, well)| well);
            // One sync covers every write of the batch into the same file: they all came before it.
            let well = known.unwrap_or_else(|| file.sync_data().map_err(|error| give_up(state, &error)).is_ok());
            if well {
                for durable in waiting {
                    let _ = durable.send(());
                }
            }
            synced = Some((file, well));
        }
    }
}

/// After a sync that failed nobody knows what the disk holds, and another one may say that all is well.
fn give_up(state: &State, error: &io::Error) {
    tracing::error!(%error, "the log cannot be made durable: no request is taken until a restart");
    state.set_broken();
}
