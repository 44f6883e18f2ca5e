//! The data directory of `banyan up`: one process at a time, private to its owner, secrets made once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use chassis::config::Secret;
use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::private_file;

/// A data directory that this process alone may use, until dropped (or killed: the lock dies with the process).
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// Made at the first start; every later one needs the same.
#[derive(Clone)]
pub struct Secrets {
    /// May do everything in the admin services.
    pub operator_token: Secret,
    /// Keys the hashes of API keys.
    pub pepper: Secret,
    /// Gateway to worker.
    pub cluster_token: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsFile {
    operator_token: String,
    pepper: String,
    cluster_token: String,
}

impl DataDir {
    /// Makes the directory if it is not there, and takes it.
    ///
    /// # Errors
    /// When it is not writable, or another process uses it.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let shown = root.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let root = fs::canonicalize(root).with_context(|| format!("cannot read {shown}"))?;
        let lock = OpenOptions::new().create(true).append(true).open(root.join("lock"));
        let lock = lock.with_context(|| format!("cannot write in {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!("{shown} is in use by another `banyan up`; use --data for another"),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub fn registry(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// What the gateway has not brought to PostgreSQL yet.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The worker's packed adapters; may be deleted while nothing runs.
    pub fn adapter_cache(&self) -> PathBuf {
        self.root.join("adapter-cache")
    }

    /// Packed weights of the base.
    pub fn packed(&self) -> PathBuf {
        self.root.join("packed")
    }

    /// Reads the secrets, or makes them.
    ///
    /// # Errors
    /// When the file is damaged, not readable or cannot be written.
    pub fn secrets(&self) -> anyhow::Result<Secrets> {
        let path = self.root.join("secrets.toml");
        let file = match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = SecretsFile { operator_token: random(), pepper: random(), cluster_token: random() };
                let text = format!(
                    "# Made by `banyan up`. Without it, no API key is valid any more.\n{}",
                    toml::to_string(&file)?
                );
                private_file::write(&path, text.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                file
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Secrets {
            operator_token: Secret::new(file.operator_token),
            pepper: Secret::new(file.pepper),
            cluster_token: Secret::new(file.cluster_token),
        })
    }

    /// Whether the shipped adapters have been imported for this base.
    pub fn is_imported(&self, base: Digest) -> bool {
        self.imported(base).is_file()
    }

    /// Records that they have: a later start does not bring back what was deleted since.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn set_imported(&self, base: Digest) -> anyhow::Result<()> {
        private_file::write(&self.imported(base), b"").context("cannot record the import")
    }

    fn imported(&self, base: Digest) -> PathBuf {
        self.root.join(format!("imported-{}", &base.hex()[..16]))
    }
}

/// 256 random bits in hex.
fn random() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("folder");
        let first = DataDir::open(folder.path()).expect("open").secrets().expect("made");
        let again = DataDir::open(folder.path()).expect("open").secrets().expect("found");
        assert_eq!(first.pepper.reveal(), again.pepper.reveal());
        assert_ne!(first.pepper.reveal(), first.operator_token.reveal());
    }

    #[test]
    fn a_data_directory_has_one_user_at_a_time() {
        let folder = tempfile::tempdir().expect("folder");
        let first = DataDir::open(folder.path()).expect("open");
        let refused = DataDir::open(folder.path()).err().expect("in use").to_string();
        assert!(refused.contains("in use"), "{refused}");
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn an_import_is_remembered_for_its_base() {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataDir::open(folder.path()).expect("open");
        let digest = |c: &str| format!("sha256:{}", c.repeat(64)).parse().expect("digest");
        data.set_imported(digest("a")).expect("recorded");
        assert!(data.is_imported(digest("a")) && !data.is_imported(digest("b")));
    }
}
