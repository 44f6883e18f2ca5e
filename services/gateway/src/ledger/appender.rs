//! The end of the log, where one at a time appends: whoever comes while nobody is there, or the writer's thread with
//! everything that waits.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::Arc,
};

use super::{
    folder::Folder,
    segment::{self, HEADER_BYTES},
    state::{Position, State},
};

pub struct Appender {
    folder: Arc<Folder>,
    state: Arc<State>,
    segment_bytes: u64,
    file: Arc<File>,
    at: Position,
    stopped: bool,
}

impl Appender {
    /// Begins a segment behind `last`.
    pub fn new(folder: Arc<Folder>, state: Arc<State>, last: u64, segment_bytes: u64) -> io::Result<Self> {
        let file = Arc::new(segment::create(folder.path(), last + 1)?);
        let at = Position { segment: last + 1, offset: HEADER_BYTES };
        state.grown(HEADER_BYTES);
        state.written().send_replace(at);
        Ok(Self { folder, state, segment_bytes, file, at, stopped: false })
    }

    /// All of it or nothing; the file that has it, which is not durable yet.
    pub fn append(&mut self, frames: &[u8]) -> io::Result<Arc<File>> {
        if self.stopped || self.state.is_broken() {
            return Err(io::Error::other("the log has stopped"));
        }
        if !self.fits(frames) {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(frames) {
            if let Err(error) = self.file.set_len(self.at.offset) {
                tracing::error!(%error, "half a write cannot be taken back");
                self.state.set_broken();
            }
            return Err(error);
        }
        let bytes = frames.len() as u64;
        self.at.offset += bytes;
        self.state.grown(bytes);
        self.state.written().send_replace(self.at);
        Ok(Arc::clone(&self.file))
    }

    /// Whether this segment takes them, so that no new one must be made first.
    pub const fn fits(&self, frames: &[u8]) -> bool {
        self.at.offset + frames.len() as u64 <= self.segment_bytes || self.at.offset <= HEADER_BYTES
    }

    /// Nothing is appended after it.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.at.segment + 1;
        self.file = Arc::new(segment::create(self.folder.path(), number)?);
        self.at = Position { segment: number, offset: HEADER_BYTES };
        self.state.grown(HEADER_BYTES);
        Ok(())
    }
}
