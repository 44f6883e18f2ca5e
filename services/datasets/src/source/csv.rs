//! CSV with a header, through `csv-core`: a record that is too long is read to its end without being kept, so that an
//! open quote costs time and no memory.

use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::Value;

use super::{Fields, Record, SourceError, quoted, too_long, utf8};
use crate::{code::Code, finding::Problem, limits::Limits};

pub(super) struct Rows<R> {
    input: R,
    reader: Reader,
    columns: Vec<String>,
    /// The fields of the last record, one after the other.
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    lines: Lines,
    done: bool,
}

/// Counts ends of lines, each of which may be LF, CR LF or CR.
#[derive(Default)]
struct Lines {
    ended: u64,
    after_return: bool,
}

impl Lines {
    fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let ends = *byte == b'\r' || *byte == b'\n' && !self.after_return;
            self.ended += u64::from(ends);
            self.after_return = *byte == b'\r';
        }
    }
}

/// What [`Rows::record`] left in the buffers.
struct Read {
    line: u64,
    fields: usize,
    fits: bool,
    has_columns: bool,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(input: R, delimiter: u8, limits: &Limits) -> Result<Self, SourceError> {
        let mut rows = Rows {
            input,
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            columns: Vec::new(),
            text: vec![0; limits.row_bytes_max],
            ends: vec![0; limits.columns_max],
            lines: Lines::default(),
            done: false,
        };
        rows.skip_byte_order_mark()?;
        rows.columns = rows.header(limits)?;
        Ok(rows)
    }

    /// The header is no row that could be refused, and spreadsheets begin theirs with this mark.
    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        if self.input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.input.consume(3);
        }
        Ok(())
    }

    fn header(&mut self, limits: &Limits) -> Result<Vec<String>, SourceError> {
        let fault = |what: String| SourceError::Header(what);
        let Some(read) = self.record()? else { return Err(fault("the file is empty".to_owned())) };
        if !read.fits {
            return Err(fault(format!("it is longer than {} bytes", limits.row_bytes_max)));
        }
        if !read.has_columns {
            return Err(fault(format!("it has more than {} columns", limits.columns_max)));
        }
        let mut columns: Vec<String> = Vec::with_capacity(read.fields);
        for field in self.fields(read.fields) {
            let name = utf8(field).map_err(|problem| fault(problem.reason))?.trim().to_owned();
            if name.is_empty() || columns.contains(&name) {
                return Err(fault(format!("the column {} is empty or stands twice", quoted(&name))));
            }
            columns.push(name);
        }
        Ok(columns)
    }

    /// Reads the next record into the buffers.
    fn record(&mut self) -> io::Result<Option<Read>> {
        let (mut written, mut fields, mut fits, mut has_columns) = (0, 0, true, true);
        let (mut first, mut line) = (true, self.lines.ended + 1);
        loop {
            let input = self.input.fill_buf()?;
            if first {
                // Ends of line before a record belong to none.
                let blank = input.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
                if blank > 0 {
                    self.lines.count(&input[..blank]);
                    line = self.lines.ended + 1;
                    self.input.consume(blank);
                    continue;
                }
                first = false;
            }
            let (result, used, wrote, ended) =
                self.reader.read_record(input, &mut self.text[written..], &mut self.ends[fields..]);
            self.lines.count(&input[..used]);
            self.input.consume(used);
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => (fits, written) = (false, 0),
                ReadRecordResult::OutputEndsFull => (has_columns, fields) = (false, 0),
                ReadRecordResult::Record => return Ok(Some(Read { line, fields, fits, has_columns })),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn fields(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).take(count).map(|(start, end)| &self.text[start..*end])
    }

    fn object(&self, read: &Read) -> Result<Fields, Problem> {
        if !read.fits {
            return Err(too_long(self.text.len()));
        }
        if !read.has_columns || read.fields != self.columns.len() {
            let has = if read.has_columns { read.fields.to_string() } else { format!("over {}", self.ends.len()) };
            return Err(Problem::new(Code::Csv, format!("has {has} fields, the header {}", self.columns.len())));
        }
        let mut fields = Fields::new();
        for (name, field) in self.columns.iter().zip(self.fields(read.fields)) {
            fields.insert(name.clone(), Value::String(utf8(field)?.to_owned()));
        }
        Ok(fields)
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Record, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.record() {
            Ok(Some(read)) => Some(Ok(Record { line: read.line, fields: self.object(&read) })),
            Ok(None) => None,
            Err(error) => {
                self.done = true;
                Some(Err(error.into()))
            }
        }
    }
}
