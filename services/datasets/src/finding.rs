//! What was found about one row: code, reason, fix, and where in the row. It never repeats a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{code::Code, privacy::Span};

/// A finding before its line is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub reason: String,
    pub spans: Vec<Span>,
}

impl Problem {
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Problem { code, reason: reason.into(), spans: Vec::new() }
    }

    pub fn at(self, file: FileName, line: u64) -> Finding {
        Finding { file, line, code: self.code, reason: self.reason, fix: self.code.fix().to_owned(), spans: self.spans }
    }
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileName {
    #[default]
    Rows,
    /// The file that the caller keeps for judging the result.
    HeldOut,
}

/// What a person is told about a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub file: FileName,
    /// Line of the file where the row begins, from 1; in Parquet the number of the row; 0 for what is about the whole file.
    pub line: u64,
    pub code: Code,
    /// What is wrong, in plain words.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
    /// Where secrets and personal data stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Span>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file == FileName::HeldOut {
            f.write_str("held-out ")?;
        }
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// Text of the user's, cut to `max` characters and freed of control characters, so that it can be shown.
pub(crate) fn clip(text: &str, max: usize) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut clipped: String = text.chars().take(max).map(printable).collect();
    if text.chars().nth(max).is_some() {
        clipped.push('…');
    }
    clipped
}
