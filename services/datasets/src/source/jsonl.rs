//! JSON Lines. A line that is too long is skipped to its end without being kept.

use std::io::{self, BufRead};

use super::{Fields, Record, SourceError, too_long, utf8};
use crate::{
    code::Code,
    finding::{Problem, clip},
    limits::Limits,
};

pub(super) struct Rows<R> {
    input: R,
    line: u64,
    bytes_max: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(mut input: R, limits: &Limits) -> Result<Self, SourceError> {
        let start = input.fill_buf()?;
        if start.trim_ascii_start().first() == Some(&b'[') {
            return Err(SourceError::JsonArray);
        }
        Ok(Rows { input, line: 0, bytes_max: limits.row_bytes_max, buffer: Vec::new() })
    }

    /// The next line, without its end, in the buffer; whether there was one, and whether it fitted.
    fn line(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let (mut any, mut fits) = (false, true);
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(any.then_some(fits));
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = &available[..end.unwrap_or(available.len())];
            fits &= self.buffer.len() + piece.len() <= self.bytes_max;
            if fits {
                self.buffer.extend_from_slice(piece);
            }
            let used = end.map_or(available.len(), |at| at + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(fits));
            }
        }
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Record, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let fits = match self.line() {
                Ok(Some(fits)) => fits,
                Ok(None) => return None,
                Err(error) => return Some(Err(error.into())),
            };
            self.line += 1;
            if fits && self.buffer.trim_ascii().is_empty() {
                continue;
            }
            let fields = if fits { object(&self.buffer) } else { Err(too_long(self.bytes_max)) };
            return Some(Ok(Record { line: self.line, fields }));
        }
    }
}

fn object(line: &[u8]) -> Result<Fields, Problem> {
    let text = utf8(line)?;
    let fields: Fields = serde_json::from_str(text).map_err(|error| {
        let what = if text.trim_start().starts_with('{') { "is no JSON" } else { "is no JSON object" };
        Problem::new(Code::Json, format!("{what}: {}", clip(&error.to_string(), 160)))
    })?;
    // The line has no NUL, but an escape may stand for one.
    if text.contains("\\u0000") && fields.values().any(holds_nul) {
        return Err(Problem::new(Code::Encoding, "holds a NUL character"));
    }
    Ok(fields)
}

fn holds_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(values) => values.iter().any(holds_nul),
        serde_json::Value::Object(fields) => fields.values().any(holds_nul),
        _ => false,
    }
}
