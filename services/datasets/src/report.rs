//! What a check says, for programs (serde) and for people. `accepted + refused = rows` in every file of it.

mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    finding::{FileName, Finding},
    privacy::Kind,
    row::Side,
    version::Manifest,
};

/// A dataset as it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Names the version that the accepted rows make.
    pub digest: String,
    pub manifest: Manifest,
    pub files: Vec<FileReport>,
    /// Rows with each finding; a row may have several warnings.
    pub codes: BTreeMap<Code, u64>,
    /// Secrets and personal data that were found, or masked.
    pub personal: BTreeMap<Kind, u64>,
    /// The first ones, [`crate::Limits::findings_max`] of them.
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
    /// Columns that no shape reads, and in how many rows.
    pub ignored_fields: BTreeMap<String, u64>,
    /// Tokens of the longest accepted row.
    pub tokens_longest: u64,
    pub samples: Vec<Sample>,
    /// What holds for the whole dataset and no row is to blame for.
    pub notes: Vec<String>,
}

impl Report {
    pub fn accepted(&self) -> u64 {
        self.files.iter().map(|file| file.accepted).sum()
    }

    pub fn refused(&self) -> u64 {
        self.files.iter().map(|file| file.refused).sum()
    }

    /// For people, lines of at most about 120 characters.
    pub fn to_text(&self) -> String {
        text::text(self)
    }
}

/// The rows of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    pub file: FileName,
    pub bytes: u64,
    pub rows: u64,
    pub accepted: u64,
    pub refused: u64,
}

/// An accepted row as training sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub file: FileName,
    pub line: u64,
    pub side: Side,
    pub tokens: u64,
    pub trained_tokens: u64,
    /// The rendered text, in order.
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub text: String,
    /// Whether it is learned.
    pub trained: bool,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub file: FileName,
    pub line: u64,
    /// None: refused, for the reason among the findings.
    pub accepted: Option<Accepted>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub side: Side,
    pub tokens: u64,
    pub trained_tokens: u64,
}
