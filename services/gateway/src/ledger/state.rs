//! What the parts of the log know together: how far it is written and shipped, and how much room there is.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use super::segment;
use crate::limits::Posts;

/// Bytes kept free for each running request: its beginning and its end.
const ROOM: u64 = 2 * segment::FRAMED_BYTES_MAX;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

pub struct State {
    bytes_max: u64,
    /// Of all segments.
    bytes: AtomicU64,
    /// Kept free for running requests.
    promised: AtomicU64,
    disk_full: AtomicBool,
    broken: AtomicBool,
    set_aside: AtomicU64,
    written: watch::Sender<Position>,
    shipped: watch::Sender<Position>,
}

/// Room for one request's records, given back when dropped.
pub struct Room(Arc<State>);

/// Why nothing new may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// As many bytes wait for PostgreSQL as may.
    LogFull,
    /// The file system takes no more.
    DiskFull,
    /// The file system has lost what it was given, or its answer is unknown: only a restart finds out.
    Broken,
}

impl State {
    pub fn new(bytes_max: u64, bytes: u64, written: Position, shipped: Position) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicU64::new(bytes),
            promised: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            set_aside: AtomicU64::new(0),
            written: watch::Sender::new(written),
            shipped: watch::Sender::new(shipped),
        })
    }

    pub fn take_room(self: &Arc<Self>) -> Result<Room, Closed> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Closed::Broken);
        }
        if self.disk_full.load(Ordering::Relaxed) {
            return Err(Closed::DiskFull);
        }
        let used = self.bytes.load(Ordering::Relaxed);
        let take = |promised: u64| (used + promised + ROOM <= self.bytes_max).then_some(promised + ROOM);
        match self.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Room(Arc::clone(self))),
            Err(_) => Err(Closed::LogFull),
        }
    }

    pub fn grown(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn shrunk(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// One more record that the database does not take.
    pub fn count_set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub const fn written(&self) -> &watch::Sender<Position> {
        &self.written
    }

    pub const fn shipped(&self) -> &watch::Sender<Position> {
        &self.shipped
    }

    /// Whether everything that is written is in PostgreSQL.
    pub fn is_shipped(&self) -> bool {
        *self.shipped.borrow() >= *self.written.borrow()
    }
}

impl Posts for State {
    fn posted(&self) -> BoxFuture<'_, ()> {
        let until = *self.written.borrow();
        let mut shipped = self.shipped.subscribe();
        async move {
            // Whoever ships lives as long as this.
            let _ = shipped.wait_for(|shipped| *shipped >= until).await;
        }
        .boxed()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.promised.fetch_sub(ROOM, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_for_as_many_as_fit_and_comes_back() {
        let state = State::new(3 * ROOM, ROOM, Position::default(), Position::default());
        let one = state.take_room().expect("room");
        let _two = state.take_room().expect("room");
        assert_eq!(state.take_room().err(), Some(Closed::LogFull));
        drop(one);
        let three = state.take_room().expect("room");
        drop(three);
        state.grown(1);
        assert_eq!(state.take_room().err(), Some(Closed::LogFull), "what is written counts");
        state.shrunk(1);
        state.set_disk_full(true);
        assert_eq!(state.take_room().err(), Some(Closed::DiskFull));
        state.set_broken();
        assert_eq!(state.take_room().err(), Some(Closed::Broken));
    }
}
