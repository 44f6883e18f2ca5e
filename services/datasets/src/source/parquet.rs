//! Parquet, row by row through the format's own record reader. Lists and structs become JSON arrays and objects.

use std::{cell::Cell, fs::File, rc::Rc};

use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row, reader::RowIter},
};
use serde_json::{Number, Value};

use super::{Fields, Record, SourceError, quoted, too_long};
use crate::{code::Code, finding::Problem, limits::Limits};

pub(super) struct Rows {
    rows: RowIter<'static>,
    number: u64,
    bytes_max: usize,
    /// Rows of the whole file, at least 1.
    total: u64,
    file_bytes: u64,
    bytes_read: Rc<Cell<u64>>,
    failed: bool,
}

impl Rows {
    /// `bytes_read` follows the share of rows that were read, for nobody can say it exactly.
    pub(super) fn open(
        file: File,
        file_bytes: u64,
        limits: &Limits,
        bytes_read: Rc<Cell<u64>>,
    ) -> Result<Self, SourceError> {
        let fault = |error: parquet::errors::ParquetError| SourceError::Parquet(error.to_string());
        let reader = SerializedFileReader::new(file).map_err(fault)?;
        for (at, group) in reader.metadata().row_groups().iter().enumerate() {
            for column in group.columns() {
                let bytes = u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX);
                if bytes > limits.column_chunk_bytes_max {
                    let name = quoted(&column.column_path().string());
                    let max = limits.column_chunk_bytes_max;
                    let what = format!("column {name} of row group {at} has {bytes} bytes; at most {max} are taken");
                    return Err(SourceError::Parquet(what));
                }
            }
        }
        let total = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0).max(1);
        let rows = RowIter::from_file_into(Box::new(reader));
        Ok(Rows { rows, number: 0, bytes_max: limits.row_bytes_max, total, file_bytes, bytes_read, failed: false })
    }
}

impl Iterator for Rows {
    type Item = Result<Record, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.rows.next()? {
            Ok(row) => {
                self.number += 1;
                let share = u128::from(self.file_bytes) * u128::from(self.number) / u128::from(self.total);
                self.bytes_read.set(u64::try_from(share).unwrap_or(u64::MAX).min(self.file_bytes));
                let mut bytes = 0;
                let fields = object(&row, &mut bytes);
                let fields = if bytes > self.bytes_max { Err(too_long(self.bytes_max)) } else { fields };
                Some(Ok(Record { line: self.number, fields }))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(SourceError::Parquet(format!("after row {}: {error}", self.number))))
            }
        }
    }
}

/// `bytes` grows by what the row takes.
fn object(row: &Row, bytes: &mut usize) -> Result<Fields, Problem> {
    row.get_column_iter()
        .map(|(name, field)| {
            *bytes += name.len();
            Ok((name.clone(), value(field, bytes).map_err(|problem| in_column(name, problem))?))
        })
        .collect()
}

fn in_column(name: &str, problem: Problem) -> Problem {
    Problem { reason: format!("the column {} {}", quoted(name), problem.reason), ..problem }
}

fn value(field: &Field, bytes: &mut usize) -> Result<Value, Problem> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => number(f64::from(value.to_f32())),
        Field::Float(value) => number(f64::from(*value)),
        Field::Double(value) => number(*value),
        Field::Str(text) => string(text, bytes)?,
        Field::Bytes(raw) => match std::str::from_utf8(raw.data()) {
            Ok(text) => string(text, bytes)?,
            Err(_) => return Err(Problem::new(Code::Encoding, "holds bytes that are not UTF-8")),
        },
        Field::Group(row) => Value::Object(object(row, bytes)?),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(|element| value(element, bytes)).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(_)
        | Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => string(&field.to_string(), bytes)?,
    })
}

fn string(text: &str, bytes: &mut usize) -> Result<Value, Problem> {
    *bytes += text.len();
    if text.contains('\0') {
        return Err(Problem::new(Code::Encoding, "holds a NUL character"));
    }
    Ok(Value::String(text.to_owned()))
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
