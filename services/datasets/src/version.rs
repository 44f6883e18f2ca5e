//! A version of a dataset: immutable, and named by its content. A folder with the accepted rows in canonical JSON Lines
//! and a manifest that holds their hash, every choice that made them and what they count; the version's digest is the
//! hash of the manifest. Nothing in it depends on the machine, the day or the file's name.

mod read;
mod write;

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use read::Version;
pub use write::Draft;

use crate::{options::Options, row::Side};

/// The form of what is written here.
pub const FORMAT: &str = "banyan-dataset/1";

const ROWS: &str = "rows.jsonl";
const MANIFEST: &str = "manifest.json";

/// Everything about a version but its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: String,
    /// SHA-256 of `rows.jsonl`, in hexadecimal digits.
    pub rows_sha256: String,
    pub rows_bytes: u64,
    /// Template and tokenizer by which tokens were counted.
    pub text_fingerprint: String,
    /// With the shape that was found, where none was named.
    pub options: Options,
    /// Sides without rows are left out.
    pub sides: BTreeMap<Side, SideCounts>,
    /// Rows of each label, if the shape has labels.
    pub labels: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideCounts {
    pub rows: u64,
    pub tokens: u64,
    pub trained_tokens: u64,
}

impl Manifest {
    /// The bytes of `manifest.json`: fields in the order above, maps by key.
    fn to_bytes(&self) -> Vec<u8> {
        // Texts, integers and maps with text keys always have a JSON.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(self.to_bytes())))
    }
}

/// Why a version cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} is there already and holds something else; versions are never changed")]
    Taken(String),
    #[error("the manifest is none of ours: {0}")]
    Manifest(String),
    #[error("{what} is {found}, the manifest says {expected}: the version was changed after it was made")]
    Changed { what: &'static str, found: String, expected: String },
}
