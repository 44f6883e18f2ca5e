//! What a checkpoint's files looked like when they were last read, and the inventory that was read then.

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use adapters::Base;
use serde::{Deserialize, Serialize};

/// Raise it when inventories or digests are made in another way.
const VERSION: u32 = 1;

/// The place of a note, and the state of the files that it has to match.
pub struct Note {
    path: PathBuf,
    dir: String,
    files: Vec<FileState>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileState {
    name: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
}

#[derive(Serialize, Deserialize)]
struct Content<F, B> {
    version: u32,
    dir: String,
    files: F,
    base: B,
}

impl Note {
    /// For the checkpoint `dir`, in `folder`.
    pub fn of(dir: &Path, folder: &Path) -> io::Result<Note> {
        let dir = dir.canonicalize()?;
        // Two folders that share a name take turns; the note itself says whose it is.
        let name = crc32fast::hash(dir.as_os_str().as_encoded_bytes());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // Links are followed: what counts is the content.
            let state = std::fs::metadata(entry.path())?;
            if state.is_file() {
                let modified = state.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
                files.push(FileState {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    bytes: state.len(),
                    modified,
                });
            }
        }
        files.sort();
        let dir = dir.to_string_lossy().into_owned();
        Ok(Note { path: folder.join(format!("checkpoint-{name:08x}.json")), dir, files })
    }

    /// The inventory, if the files are as they were. A note that cannot be read is none.
    pub fn read(&self) -> Option<Base> {
        let text = std::fs::read(&self.path).ok()?;
        let content: Content<Vec<FileState>, Base> = serde_json::from_slice(&text).ok()?;
        (content.version == VERSION && content.dir == self.dir && content.files == self.files).then_some(content.base)
    }

    pub fn write(&self, base: &Base) -> io::Result<()> {
        let content = Content { version: VERSION, dir: self.dir.clone(), files: &self.files, base };
        super::file::replace(&self.path, |file| Ok(serde_json::to_writer(file, &content)?))
    }
}
