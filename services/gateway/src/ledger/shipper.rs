//! Carries the log to PostgreSQL, in its order, in batches, as often as it takes: writing there is idempotent. What is
//! shipped is deleted segment by segment. Nothing is skipped: a record that the database does not take is put aside, loudly.

use std::{
    collections::VecDeque,
    io, slice,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{LedgerEntry, Store, StoreError};

use super::{
    folder::Folder,
    record,
    segment::{self, HEADER_BYTES, SegmentError},
    state::{Position, State},
};
use crate::config::{LedgerConfig, ms};

/// Between two writes of the cursor.
const KEEP_EVERY: Duration = Duration::from_secs(1);

pub struct Shipper {
    folder: Arc<Folder>,
    state: Arc<State>,
    store: Store,
    batch_max: usize,
    /// Records that come within it go together.
    linger: Duration,
    retry: Duration,
    /// Behind the last record that was shipped.
    at: Position,
    /// When the cursor was kept.
    kept: Instant,
    /// Read, and not shipped: records and where each ends.
    ahead: VecDeque<(Vec<u8>, Position)>,
}

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("the log's folder: {0}")]
    Io(#[from] io::Error),
    #[error("reading the log was broken off")]
    Read(#[from] tokio::task::JoinError),
}

impl Shipper {
    pub fn new(folder: Arc<Folder>, state: Arc<State>, store: Store, config: &LedgerConfig) -> Self {
        let at = *state.shipped().borrow();
        Self {
            folder,
            state,
            store,
            batch_max: config.batch_max,
            linger: ms(config.ship_interval_ms),
            retry: ms(config.retry_ms),
            at,
            kept: Instant::now(),
            ahead: VecDeque::new(),
        }
    }

    /// Never ends by itself. What is written while a batch is on its way waits for the next one, so that a busy gateway
    /// makes few large transactions instead of many small ones.
    pub async fn keep_shipping(&mut self) {
        let mut written = self.state.written().subscribe();
        loop {
            let at = self.at;
            if written.wait_for(|written| *written > at).await.is_err() {
                return std::future::pending().await;
            }
            tokio::time::sleep(self.linger).await;
            let until = *written.borrow_and_update();
            self.ship(until).await;
        }
    }

    /// Ends when everything that is written now is shipped.
    pub async fn ship_all(&mut self) {
        let until = *self.state.written().borrow();
        self.ship(until).await;
    }

    /// Ends when everything before `until` is shipped.
    async fn ship(&mut self, until: Position) {
        while self.at < until {
            if let Err(error) = self.ship_some(until).await {
                tracing::error!(%error, "the log cannot be shipped");
                tokio::time::sleep(self.retry).await;
            }
        }
    }

    /// One batch, or a step into the next segment.
    async fn ship_some(&mut self, until: Position) -> Result<(), ShipError> {
        if self.ahead.is_empty() && !self.read_ahead(until).await? {
            return self.next_segment();
        }
        let batch: Vec<_> = self.ahead.iter().take(self.batch_max).collect();
        let Some(end) = batch.last().map(|(_, end)| *end) else { return Ok(()) };
        let (mut entries, mut unreadable) = (Vec::with_capacity(batch.len()), Vec::new());
        for (bytes, _) in &batch {
            match record::decode(bytes) {
                Ok(entry) => entries.push(entry),
                Err(error) => unreadable.push((bytes.clone(), error)),
            }
        }
        let count = batch.len();
        for (bytes, error) in unreadable {
            self.set_aside(&bytes, &error)?;
        }
        self.post(&entries).await?;
        self.ahead.drain(..count);
        self.arrive(end);
        Ok(())
    }

    /// Reads on in the segment; whether there was anything.
    async fn read_ahead(&mut self, until: Position) -> Result<bool, ShipError> {
        let (folder, at) = (Arc::clone(&self.folder), self.at);
        if at.segment == 0 {
            // Before the first segment of all.
            return Ok(false);
        }
        let to = (at.segment == until.segment).then_some(until.offset);
        let read = move || segment::read(folder.path(), at.segment, at.offset, to);
        let contents = tokio::task::spawn_blocking(read).await??;
        if contents.torn > 0 {
            let path = segment::path(self.folder.path(), at.segment);
            return Err(SegmentError::Damaged { path, at: contents.end, follow: 0 }.into());
        }
        let mut end = Position { offset: at.offset.max(HEADER_BYTES), ..at };
        for record in contents.records {
            end.offset += segment::framed_bytes(&record);
            self.ahead.push_back((record, end));
        }
        Ok(!self.ahead.is_empty())
    }

    /// Goes on to the next segment, and deletes this one.
    fn next_segment(&mut self) -> Result<(), ShipError> {
        let numbers = segment::list(self.folder.path())?;
        let Some(next) = numbers.iter().copied().find(|number| *number > self.at.segment) else { return Ok(()) };
        let done: Vec<_> = numbers.into_iter().filter(|number| *number < next).collect();
        self.arrive(Position { segment: next, offset: HEADER_BYTES });
        self.keep_cursor();
        for number in done {
            let path = segment::path(self.folder.path(), number);
            let bytes = std::fs::metadata(&path)?.len();
            std::fs::remove_file(&path)?;
            self.state.shrunk(bytes);
        }
        Ok(())
    }

    fn arrive(&mut self, at: Position) {
        self.at = at;
        self.state.shipped().send_replace(at);
        if self.kept.elapsed() >= KEEP_EVERY {
            self.keep_cursor();
        }
    }

    /// Remembers how far it is. One that is behind costs a start some records that are there already, and nothing else.
    pub fn keep_cursor(&mut self) {
        self.kept = Instant::now();
        if let Err(error) = self.folder.keep_cursor(self.at) {
            tracing::warn!(%error, "the cursor is not kept: more than needed will be shipped again after a restart");
        }
    }

    /// Until they are there.
    async fn post(&self, entries: &[LedgerEntry]) -> Result<(), ShipError> {
        let Err(refusal) = self.try_post(entries).await else { return Ok(()) };
        if entries.len() == 1 {
            return Ok(self.set_aside(&record::encode(&entries[0]), &refusal)?);
        }
        // One of them is at fault: it takes no other with it.
        for entry in entries {
            if let Err(refusal) = self.try_post(slice::from_ref(entry)).await {
                self.set_aside(&record::encode(entry), &refusal)?;
            }
        }
        Ok(())
    }

    /// Until the database says yes or no.
    async fn try_post(&self, entries: &[LedgerEntry]) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            match self.store.platform().post(self.folder.gateway, entries).await {
                Ok(posted) => {
                    for request in posted.ended_before {
                        tracing::error!(%request, "it had been ended otherwise before its own end came: see the ledger");
                    }
                    return Ok(());
                }
                Err(error @ StoreError::Unavailable(_)) => {
                    if !told {
                        tracing::warn!(%error, bytes = self.state.bytes(), "the log waits for the database");
                        told = true;
                    }
                    tokio::time::sleep(self.retry).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn set_aside(&self, bytes: &[u8], error: &dyn std::error::Error) -> io::Result<()> {
        let cause = error.source().map(ToString::to_string);
        tracing::error!(%error, cause, entry = ?record::decode(bytes), "an entry is put aside: it is not in the ledger");
        self.folder.set_aside(bytes)?;
        self.state.count_set_aside();
        Ok(())
    }
}
