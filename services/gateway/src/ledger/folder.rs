//! The folder of the log: one gateway at a time, its lasting id, what a crash left behind, how far it was shipped.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    processes::Processes,
    segment::{self, HEADER_BYTES, SegmentError},
    state::Position,
};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger.dir: {} is in use by another gateway", .0.display())]
    InUse(PathBuf),
    #[error("ledger.dir: {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// Held until dropped (or killed: the lock dies with the process).
pub struct Folder {
    dir: PathBuf,
    /// The same at every start.
    pub gateway: Uuid,
    _lock: File,
}

/// What was found at the start.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    pub shipped: Position,
    /// Where the last whole record ends.
    pub end: Position,
    /// Of all segments.
    pub bytes: u64,
}

impl Folder {
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let io = |error| LedgerError::Io { path: dir.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let lock = OpenOptions::new().create(true).append(true).open(dir.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let gateway = gateway(&dir.join("gateway")).map_err(io)?;
        Ok(Self { dir: dir.to_owned(), gateway, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Reads and checks all that is there, and cuts off what a crash left unfinished at the end.
    pub fn recover(&self) -> Result<Recovered, LedgerError> {
        let io = |error| LedgerError::Io { path: self.dir.clone(), error };
        let mut numbers = segment::list(&self.dir).map_err(io)?;
        if let Some(last) = numbers.last().copied() {
            let path = segment::path(&self.dir, last);
            if fs::metadata(&path).map_err(io)?.len() < HEADER_BYTES {
                tracing::warn!(path = %path.display(), "a segment that was only just begun is removed");
                fs::remove_file(&path).map_err(io)?;
                numbers.pop();
            }
        }
        let (mut bytes, mut end) = (0, Position::default());
        for (at, number) in numbers.iter().copied().enumerate() {
            let contents = segment::read(&self.dir, number, 0, None)?;
            let path = segment::path(&self.dir, number);
            if contents.torn > 0 {
                if at + 1 < numbers.len() {
                    return Err(SegmentError::Damaged { path, at: contents.end, follow: 0 }.into());
                }
                tracing::warn!(path = %path.display(), bytes = contents.torn, "an unfinished record is cut off");
                let file = OpenOptions::new().write(true).open(&path).map_err(io)?;
                file.set_len(contents.end).and_then(|()| file.sync_all()).map_err(io)?;
            }
            bytes += contents.end;
            end = Position { segment: number, offset: contents.end };
        }
        let first = numbers.first().map_or(end, |number| Position { segment: *number, offset: HEADER_BYTES });
        // A cursor that is behind, or lost, ships again what is there already, and changes nothing.
        let shipped = self.cursor().filter(|cursor| numbers.contains(&cursor.segment)).unwrap_or(first).max(first);
        Ok(Recovered { shipped: shipped.min(end), end, bytes })
    }

    /// The processes that have had it, this one among them.
    pub fn processes(&self, own: Uuid) -> io::Result<Processes> {
        Processes::open(self.dir.join("processes"), own)
    }

    fn cursor(&self) -> Option<Position> {
        let text = fs::read_to_string(self.dir.join("cursor")).ok()?;
        let (segment, offset) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    }

    /// Remembers how far the log is shipped.
    pub fn keep_cursor(&self, at: Position) -> io::Result<()> {
        let new = self.dir.join("cursor.new");
        fs::write(&new, format!("{} {}\n", at.segment, at.offset))?;
        fs::rename(new, self.dir.join("cursor"))
    }

    /// Keeps a record that the database does not take, where a person finds it.
    pub fn set_aside(&self, record: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join("set-aside"))?;
        let mut bytes = Vec::new();
        segment::frame(record, &mut bytes);
        file.write_all(&bytes)?;
        file.sync_all()
    }

    /// Takes up so many bytes of the disk, which [`Folder::give_back`] frees when it is full.
    pub fn keep_free(&self, bytes: u64) -> io::Result<()> {
        let path = self.dir.join("ballast");
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
            return Ok(());
        }
        let new = self.dir.join("ballast.new");
        let made = (|| {
            let mut file = File::create(&new)?;
            io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        if made.is_err() {
            // Half of it would only take up room.
            let _ = fs::remove_file(&new);
        }
        made
    }

    pub fn give_back(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join("ballast")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// The id in this file, made if there is none.
fn gateway(path: &Path) -> io::Result<Uuid> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::now_v7();
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            writeln!(file, "{id}")?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Folder, number: u64, records: &[&[u8]]) {
        let mut file = segment::create(folder.path(), number).expect("creates");
        let mut bytes = Vec::new();
        records.iter().for_each(|record| segment::frame(record, &mut bytes));
        file.write_all(&bytes).expect("writes");
    }

    #[test]
    fn one_gateway_has_a_folder_and_keeps_its_id() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(dir.path()).expect("opens");
        assert!(matches!(Folder::open(dir.path()), Err(LedgerError::InUse(_))));
        let id = folder.gateway;
        drop(folder);
        assert_eq!(Folder::open(dir.path()).expect("opens again").gateway, id);
    }

    #[test]
    fn an_unfinished_end_is_cut_off_and_an_unfinished_middle_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(dir.path()).expect("opens");
        assert_eq!(folder.recover().expect("an empty log").bytes, 0);
        write(&folder, 1, &[b"one", b"two"]);
        write(&folder, 2, &[b"three", b"four"]);
        fs::write(segment::path(dir.path(), 3), "BN").expect("a segment that was only just begun");
        let path = segment::path(dir.path(), 2);
        let whole = fs::metadata(&path).expect("is there").len();
        OpenOptions::new().write(true).open(&path).expect("opens").set_len(whole - 1).expect("cuts");
        let found = folder.recover().expect("a torn end is no damage");
        assert_eq!(found.end, Position { segment: 2, offset: HEADER_BYTES + 8 + 5 });
        assert_eq!(found.shipped, Position { segment: 1, offset: HEADER_BYTES });
        assert_eq!(found, folder.recover().expect("and is whole then"));
        let at = Position { segment: 1, offset: HEADER_BYTES + 8 + 3 };
        folder.keep_cursor(at).expect("keeps");
        assert_eq!(folder.recover().expect("recovers").shipped, at);
        let first = segment::path(dir.path(), 1);
        let whole = fs::metadata(&first).expect("is there").len();
        OpenOptions::new().write(true).open(&first).expect("opens").set_len(whole - 1).expect("cuts");
        assert!(matches!(folder.recover(), Err(LedgerError::Segment(SegmentError::Damaged { .. }))));
    }
}
