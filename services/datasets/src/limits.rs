//! Every bound on what a file may hold and on what is kept while it is read, by name.

use serde::{Deserialize, Serialize};

/// Bounds of one check. Memory grows with rows, never with their length: about 600 bytes for each row up to
/// `compared_rows_max`, a quarter of that beyond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes_max: u64,
    /// Rows of one file; each later row is refused.
    pub rows_max: u64,
    /// Bytes of one row.
    pub row_bytes_max: usize,
    /// Columns of a CSV file.
    pub columns_max: usize,
    /// Uncompressed bytes of one column within one row group of a Parquet file.
    pub column_chunk_bytes_max: u64,
    /// Rows among which near-duplicates are looked for: the first ones.
    pub compared_rows_max: usize,
    /// Runs of words of the held-out file that are looked for in the others.
    pub held_out_runs_max: usize,
    /// Distinct labels.
    pub labels_max: usize,
    /// Findings in the report; all are counted, and each row's go to [`crate::Sink::outcome`].
    pub findings_max: usize,
    /// Names of fields that were ignored, in the report.
    pub ignored_fields_max: usize,
    /// Rows that are judged at a time.
    pub batch_rows: usize,
    /// Bytes of the file that these may be.
    pub batch_bytes: u64,
    /// Threads that judge them.
    pub threads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes_max: 4 << 30,
            rows_max: 1_000_000,
            row_bytes_max: 1 << 20,
            columns_max: 1024,
            column_chunk_bytes_max: 512 << 20,
            compared_rows_max: 500_000,
            held_out_runs_max: 2_000_000,
            labels_max: 1000,
            findings_max: 1000,
            ignored_fields_max: 64,
            batch_rows: 512,
            batch_bytes: 8 << 20,
            threads_max: 8,
        }
    }
}
