//! The file of packed weights: a header in JSON that says what lies where, then the values, each aligned as the kernels
//! want them. It is ours and written whole before it gets its name; what does not read as such is packed anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kernels::{ALIGNMENT, Buffer, Matrix, Storage};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, finish, misshapen, missing};
use crate::model::{LoadError, TensorSource};

/// Raise the digit when the header or a packed layout changes.
const MAGIC: &[u8; 8] = b"BANYANB2";
/// Magic, then the header's length as a little-endian u64.
const PREFIX: usize = 16;

#[derive(Default, Serialize, Deserialize)]
struct Header {
    /// `[outputs, inputs]` and the first byte, counted from the end of the header.
    matrices: HashMap<String, ([usize; 2], usize)>,
    /// Elements and the first byte.
    vectors: HashMap<String, (usize, usize)>,
    /// All of the values.
    bytes: usize,
    /// Element type of the matrices.
    storage: String,
}

/// A mapped file of packed weights.
pub struct PackedFile {
    header: Header,
    storage: Storage,
    values: Buffer,
}

/// Writes all tensors of `checkpoint` to `path`, which appears only when it is complete.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut header = Header::default();
    let mut parts: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let mut at = 0;
    let mut place = |bytes: usize| {
        let first = at;
        at += bytes.next_multiple_of(ALIGNMENT);
        first
    };
    for (name, matrix) in &checkpoint.matrices {
        header.storage = format!("{:?}", matrix.storage());
        let first = place(matrix.packed().len());
        header.matrices.insert(name.clone(), ([matrix.outputs(), matrix.inputs()], first));
        parts.push((matrix.packed(), Vec::new()));
    }
    for (name, vector) in &checkpoint.vectors {
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        header.vectors.insert(name.clone(), (vector.len(), place(bytes.len())));
        parts.push((&[], bytes));
    }
    header.bytes = at;
    let mut text = serde_json::to_vec(&header)?;
    text.resize((PREFIX + text.len()).next_multiple_of(ALIGNMENT) - PREFIX, b' ');
    replace(path, |file| {
        file.write_all(MAGIC)?;
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(&text)?;
        for (shared, own) in parts {
            let bytes = if own.is_empty() { shared } else { &own };
            file.write_all(bytes)?;
            file.write_all(&[0; ALIGNMENT][..bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
        }
        Ok(())
    })
}

/// Writes a file beside `path` and gives it that name when it is on disk.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    let written = (|| {
        let file = File::create(&temporary)?;
        let mut buffered = BufWriter::new(&file);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // It may not even be there.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

impl PackedFile {
    /// Maps `path` and reads its header.
    ///
    /// # Errors
    /// A file that is not there, not ours, cut short, or of another element type.
    pub fn open(path: &Path, storage: Storage) -> io::Result<PackedFile> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let map = Buffer::map(&File::open(path)?)?;
        if map.len() < PREFIX || &map[..8] != MAGIC {
            return Err(broken("not packed weights of this version"));
        }
        let length = u64::from_le_bytes(map[8..PREFIX].try_into().unwrap_or_default());
        let first = usize::try_from(length).ok().and_then(|length| length.checked_add(PREFIX));
        let first = first.filter(|first| *first <= map.len() && first.is_multiple_of(ALIGNMENT));
        let first = first.ok_or_else(|| broken("its header is longer than the file"))?;
        let header: Header = serde_json::from_slice(&map[PREFIX..first])?;
        if header.bytes != map.len() - first {
            return Err(broken("it is cut short"));
        }
        if header.storage != format!("{storage:?}") {
            return Err(broken("it is of another element type"));
        }
        let values = map.slice(first..map.len());
        Ok(PackedFile { header, storage, values })
    }

    fn part(&self, first: usize, len: usize) -> Option<Buffer> {
        let end = first.checked_add(len)?;
        (end <= self.values.len() && first.is_multiple_of(ALIGNMENT)).then(|| self.values.slice(first..end))
    }
}

impl TensorSource for PackedFile {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, LoadError> {
        let (shape, first) = self.header.matrices.remove(name).ok_or_else(|| missing(name))?;
        if shape != [outputs, inputs] {
            return Err(misshapen(name, &shape, &[outputs, inputs]));
        }
        let part = self.part(first, Matrix::packed_len(outputs, inputs, self.storage)).ok_or_else(|| missing(name))?;
        Matrix::from_packed(outputs, inputs, self.storage, part)
            .map_err(|fault| LoadError::Checkpoint { file: name.to_owned(), message: fault.to_string() })
    }

    fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, LoadError> {
        let (found, first) = self.header.vectors.remove(name).ok_or_else(|| missing(name))?;
        if found != size {
            return Err(misshapen(name, &[found], &[size]));
        }
        let part = self.part(first, size * size_of::<f32>()).ok_or_else(|| missing(name))?;
        Ok(part.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.header.matrices.contains_key(name) || self.header.vectors.contains_key(name)
    }

    fn finish(self) -> Result<(), LoadError> {
        finish(self.header.matrices.into_keys().chain(self.header.vectors.into_keys()))
    }
}
