//! Files as rows, one at a time, with bounded memory: JSON Lines, CSV and Parquet. A row that cannot be read is handed
//! on as a problem with its line; what makes the rest of the file unreadable is an error. It knows no shape.

mod csv;
mod jsonl;
mod parquet;

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    rc::Rc,
};

use serde_json::{Map, Value};

use crate::{
    code::Code,
    finding::{Problem, clip},
    limits::Limits,
};

/// Columns and their values, in the order of the file.
pub type Fields = Map<String, Value>;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; lines of white space alone are no rows.
    Jsonl,
    /// RFC 4180, with a header.
    Csv,
    /// As CSV, with tabs.
    Tsv,
    Parquet,
}

impl Format {
    /// As the file's name ends.
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
            "csv" => Some(Format::Csv),
            "tsv" | "tab" => Some(Format::Tsv),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }
}

/// One row as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it begins, from 1; in Parquet its number.
    pub line: u64,
    pub fields: Result<Fields, Problem>,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the file has {bytes} bytes; at most {max} are taken: split it")]
    FileBytes { bytes: u64, max: u64 },
    #[error("the file is one JSON array; write one object a line, as with: jq -c '.[]' FILE")]
    JsonArray,
    #[error("the header: {0}")]
    Header(String),
    #[error("not readable as Parquet: {0}")]
    Parquet(String),
    #[error("the name ends in none of .jsonl, .csv, .tsv and .parquet")]
    UnknownFormat,
}

/// A file that is being read.
pub struct Source {
    rows: Box<dyn Iterator<Item = Result<Record, SourceError>>>,
    counted: u64,
    rows_max: u64,
    bytes_read: Rc<Cell<u64>>,
    bytes: Option<u64>,
}

impl Source {
    /// Opens a file whose name says its format.
    ///
    /// # Errors
    /// A file that cannot be opened, is too long or has no good beginning.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, SourceError> {
        let format = Format::of(path).ok_or(SourceError::UnknownFormat)?;
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if bytes > limits.file_bytes_max {
            return Err(SourceError::FileBytes { bytes, max: limits.file_bytes_max });
        }
        let mut source = match format {
            Format::Parquet => {
                let bytes_read = Rc::new(Cell::new(0));
                Self::of(Box::new(parquet::Rows::open(file, bytes, limits, bytes_read.clone())?), limits, bytes_read)
            }
            format => Self::read(file, format, limits)?,
        };
        source.bytes = Some(bytes);
        Ok(source)
    }

    /// Reads text from anywhere; Parquet needs a file.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn read(input: impl Read + 'static, format: Format, limits: &Limits) -> Result<Self, SourceError> {
        let bytes_read = Rc::new(Cell::new(0));
        let counted = Counted { input, read: bytes_read.clone(), max: limits.file_bytes_max };
        let input = BufReader::with_capacity(1 << 16, counted);
        let rows: Box<dyn Iterator<Item = _>> = match format {
            Format::Jsonl => Box::new(jsonl::Rows::new(input, limits)?),
            Format::Csv => Box::new(csv::Rows::new(input, b',', limits)?),
            Format::Tsv => Box::new(csv::Rows::new(input, b'\t', limits)?),
            Format::Parquet => return Err(SourceError::Parquet("it is read from a file only".to_owned())),
        };
        Ok(Self::of(rows, limits, bytes_read))
    }

    fn of(
        rows: Box<dyn Iterator<Item = Result<Record, SourceError>>>,
        limits: &Limits,
        bytes_read: Rc<Cell<u64>>,
    ) -> Self {
        Source { rows, counted: 0, rows_max: limits.rows_max, bytes_read, bytes: None }
    }

    /// Bytes of the file that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Bytes of the file, where that is known.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

impl Iterator for Source {
    type Item = Result<Record, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = match self.rows.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        self.counted += 1;
        if self.counted > self.rows_max {
            record.fields = Err(Problem::new(
                Code::Rows,
                format!("comes after {} rows, which are all that are taken", self.rows_max),
            ));
        }
        Some(Ok(record))
    }
}

/// Counts what goes through, and refuses more than `max` bytes.
struct Counted<R> {
    input: R,
    read: Rc<Cell<u64>>,
    max: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        if self.read.get() > self.max {
            return Err(io::Error::other(format!(
                "more than {} bytes, which are all that are taken: split the file",
                self.max
            )));
        }
        Ok(count)
    }
}

/// A text of the file, or why it is none.
fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Problem::new(Code::Encoding, "begins with a byte-order mark"));
    }
    if bytes.contains(&0) {
        return Err(Problem::new(Code::Encoding, "holds a NUL character"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(Code::Encoding, format!("byte {} of the row is not UTF-8", error.valid_up_to() + 1))
    })
}

fn too_long(limits_max: usize) -> Problem {
    Problem::new(Code::RowBytes, format!("is longer than {limits_max} bytes"))
}

/// Such as `"a long na…"`.
fn quoted(name: &str) -> String {
    format!("{:?}", clip(name, 40))
}
