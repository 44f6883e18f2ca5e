//! The story of a check: find the shape · read the held-out file, so that its questions are known · judge every row ·
//! report. Rows are prepared on several threads and entered into the book in the order of the file.

use std::{collections::BTreeSet, io, thread};

use crate::{
    book::Book,
    finding::FileName,
    limits::Limits,
    options::Options,
    prepare::{Context, Prepared},
    report::{Outcome, Report},
    row::Side,
    shape::{DETECT_ROWS, DetectError, ShapeName, check_mapping, detect},
    source::{Record, Source, SourceError},
    text::Text,
    version::{FORMAT, Manifest},
};

/// The files of a check.
pub struct Input {
    pub rows: Source,
    /// Rows for judging the result, none of which may stand among the others.
    pub held_out: Option<Source>,
}

/// Who is told while a check runs.
pub trait Sink {
    /// What became of a row, in the order of the file.
    ///
    /// # Errors
    /// End the check.
    fn outcome(&mut self, _outcome: &Outcome) -> io::Result<()> {
        Ok(())
    }

    /// An accepted row in its canonical spelling, without a line end.
    ///
    /// # Errors
    /// End the check.
    fn accepted(&mut self, _row: &str) -> io::Result<()> {
        Ok(())
    }

    /// Bytes of this file that were read so far.
    fn progress(&mut self, _file: FileName, _bytes: u64) {}
}

/// For whoever needs the report alone.
impl Sink for () {}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{}", .0.join("; "))]
    Options(Vec<String>),
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("the held-out file: {0}")]
    HeldOut(SourceError),
    #[error("{0}")]
    Detect(#[from] DetectError),
    #[error("the outcome cannot be written: {0}")]
    Sink(#[from] io::Error),
}

/// Accounts for every row.
///
/// # Errors
/// Choices that make no sense, a file that cannot be read to its end, rows without a shape. What is wrong with a row is
/// in the report.
pub fn check<T: Text>(
    input: Input,
    text: &T,
    options: &Options,
    limits: &Limits,
    sink: &mut impl Sink,
) -> Result<Report, CheckError> {
    options.validate().map_err(CheckError::Options)?;
    let mut options = options.clone();
    let (first, rows, shape) = first_rows(input.rows, &options)?;
    check_mapping(shape, readable(&first), &options.mapping)?;
    options.shape = Some(shape);
    let with_runs = input.held_out.is_some();
    if with_runs {
        options.split.held_out_percent = 0;
    }
    let context = Context { shape, options: &options, text, with_runs };
    let mut book = Book::new(&options, limits);
    if let Some(held_out) = input.held_out {
        let file = FileName::HeldOut;
        pass(file, Vec::new(), held_out, &context, &mut book, sink).map_err(|error| match error {
            CheckError::Source(error) => CheckError::HeldOut(error),
            error => error,
        })?;
    }
    pass(FileName::Rows, first, rows, &context, &mut book, sink)?;
    book.weigh_labels();
    Ok(report(book, text, &options, limits))
}

/// The first rows, what follows them, and their shape.
fn first_rows(mut rows: Source, options: &Options) -> Result<(Vec<Record>, Source, ShapeName), CheckError> {
    let first: Vec<Record> = rows.by_ref().take(DETECT_ROWS).collect::<Result<_, _>>()?;
    if readable(&first).next().is_none() {
        let fault = first.iter().find_map(|record| record.fields.as_ref().err());
        return Err(fault.map_or(DetectError::Empty, |problem| DetectError::NoRows(problem.reason.clone())).into());
    }
    let shape = match options.shape {
        Some(shape) => shape,
        None => detect(readable(&first), &options.mapping)?,
    };
    Ok((first, rows, shape))
}

fn readable(records: &[Record]) -> impl Iterator<Item = &crate::source::Fields> + Clone {
    records.iter().filter_map(|record| record.fields.as_ref().ok())
}

/// One file, batch by batch.
fn pass<T: Text>(
    file: FileName,
    first: Vec<Record>,
    mut rows: Source,
    context: &Context<'_, T>,
    book: &mut Book<'_>,
    sink: &mut impl Sink,
) -> Result<(), CheckError> {
    book.begin(file);
    let mut batch = first;
    loop {
        let from = rows.bytes_read();
        while batch.len() < book.limits().batch_rows && rows.bytes_read() - from < book.limits().batch_bytes {
            match rows.next() {
                Some(record) => batch.push(record?),
                None => break,
            }
        }
        if batch.is_empty() {
            break;
        }
        for prepared in prepare(std::mem::take(&mut batch), context, book.limits().threads_max) {
            let (outcome, row) = book.enter(prepared);
            sink.outcome(&outcome)?;
            if let Some(row) = row {
                sink.accepted(&row)?;
            }
        }
        sink.progress(file, rows.bytes_read());
    }
    book.end(rows.bytes_read());
    Ok(())
}

/// In the order of the batch, whatever the number of threads.
fn prepare<T: Text>(batch: Vec<Record>, context: &Context<'_, T>, threads_max: usize) -> Vec<Prepared> {
    let threads = thread::available_parallelism().map_or(1, usize::from).clamp(1, threads_max.max(1));
    let part = batch.len().div_ceil(threads).max(1);
    let mut batch = batch.into_iter();
    let parts: Vec<Vec<Record>> = std::iter::from_fn(|| {
        let records: Vec<_> = batch.by_ref().take(part).collect();
        (!records.is_empty()).then_some(records)
    })
    .collect();
    let all = |records: Vec<Record>| records.into_iter().map(|record| context.prepare(record)).collect::<Vec<_>>();
    thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|records| scope.spawn(|| all(records))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}

fn report<T: Text>(book: Book<'_>, text: &T, options: &Options, limits: &Limits) -> Report {
    let notes = notes(&book, options, limits);
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        rows_sha256: hex::encode(sha2::Digest::finalize(book.rows)),
        rows_bytes: book.rows_bytes,
        text_fingerprint: text.fingerprint().to_owned(),
        options: options.clone(),
        sides: book.sides,
        labels: book.labels,
    };
    Report {
        digest: manifest.digest(),
        manifest,
        files: book.files,
        codes: book.codes,
        personal: book.personal,
        findings: book.findings,
        findings_left_out: book.findings_left_out,
        ignored_fields: book.ignored_fields,
        tokens_longest: book.tokens_longest,
        samples: book.samples.render(text),
        notes,
    }
}

fn notes(book: &Book<'_>, options: &Options, limits: &Limits) -> Vec<String> {
    let mut notes = Vec::new();
    if book.not_compared > 0 {
        let (max, others) = (limits.compared_rows_max, book.not_compared);
        notes.push(format!("near-duplicates were looked for among the first {max} rows; {others} later ones were compared with those only"));
    }
    if book.held_out.not_compared > 0 {
        let (max, rows) = (limits.held_out_runs_max, book.held_out.not_compared);
        notes.push(format!(
            "the held-out file has over {max} runs of words: {rows} of its rows were looked for word by word only"
        ));
    }
    let wanted: BTreeSet<Side> = [
        (Side::Train, true),
        (Side::Validation, options.split.validation_percent > 0),
        (Side::HeldOut, options.split.held_out_percent > 0 || book.files.len() > 1),
    ]
    .into_iter()
    .filter_map(|(side, wanted)| wanted.then_some(side))
    .collect();
    for side in wanted.into_iter().filter(|side| !book.sides.contains_key(side)) {
        notes.push(format!("the side {} has no rows", side.as_str()));
    }
    notes
}
