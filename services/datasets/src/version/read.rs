//! Reads a version back, and believes nothing that its hashes do not say.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{FORMAT, MANIFEST, Manifest, ROWS, SideCounts, VersionError};
use crate::row::{Row, Side};

/// A verified version.
#[derive(Debug)]
pub struct Version {
    dir: PathBuf,
    manifest: Manifest,
    digest: String,
}

impl Version {
    /// Opens the version in `dir` and verifies every byte of it.
    ///
    /// # Errors
    /// A folder that is no version, or one that was changed.
    pub fn open(dir: &Path) -> Result<Self, VersionError> {
        let bytes = fs::read(dir.join(MANIFEST))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| VersionError::Manifest(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(VersionError::Manifest(format!("its format is {:?}, ours {FORMAT:?}", manifest.format)));
        }
        if manifest.to_bytes() != bytes {
            return Err(VersionError::Manifest("it is not in its canonical spelling".to_owned()));
        }
        let digest = manifest.digest();
        let version = Version { dir: dir.to_owned(), manifest, digest };
        version.verify()?;
        Ok(version)
    }

    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The rows, in the order of the file.
    ///
    /// # Errors
    /// A file that is gone; each row that cannot be read.
    pub fn rows(&self) -> io::Result<impl Iterator<Item = io::Result<Row>> + use<>> {
        let lines = BufReader::new(File::open(self.dir.join(ROWS))?).lines();
        Ok(lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::from)))
    }

    fn verify(&self) -> Result<(), VersionError> {
        let mut hasher = Sha256::new();
        let mut file = File::open(self.dir.join(ROWS))?;
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        same("the length of the rows", bytes.to_string(), self.manifest.rows_bytes.to_string())?;
        same("the hash of the rows", hex::encode(hasher.finalize()), self.manifest.rows_sha256.clone())?;
        let mut counted: BTreeMap<Side, SideCounts> = BTreeMap::new();
        for row in self.rows()? {
            counted.entry(row?.side).or_default().rows += 1;
        }
        let rows = |sides: &BTreeMap<Side, SideCounts>| {
            let rows: Vec<_> =
                sides.iter().map(|(side, counts)| format!("{} {}", side.as_str(), counts.rows)).collect();
            rows.join(", ")
        };
        same("the count of the rows", rows(&counted), rows(&self.manifest.sides))
    }
}

fn same(what: &'static str, found: String, expected: String) -> Result<(), VersionError> {
    if found == expected { Ok(()) } else { Err(VersionError::Changed { what, found, expected }) }
}
