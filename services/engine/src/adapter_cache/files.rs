//! Names and files of the cache: one folder for each first byte of a digest, one file for each image. Files appear whole
//! or not at all.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use domain::{Digest, TenantId};

use super::CacheKey;
use crate::residents::AdapterKey;

const LOCK: &str = "lock";
const INDEX: &str = "index";
/// Images on their way, removed at the next start after a crash.
const UNFINISHED: &str = "tmp";

/// The folder of a cache.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the folder, for its owner alone.
    pub fn open(dir: &Path) -> io::Result<Files> {
        make_folder(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Takes the folder for this process, until the file is closed.
    pub fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another worker uses it; each needs a folder of its own",
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub fn index(&self) -> PathBuf {
        self.dir.join(INDEX)
    }

    /// The image's file and its length.
    pub fn open_image(&self, key: &CacheKey) -> io::Result<(File, u64)> {
        let file = File::open(self.path(key))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Writes a file beside its place, brings it to the disk, and moves it there.
    pub fn write(&self, key: &CacheKey, image: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        make_folder(path.parent().unwrap_or(&self.dir))?;
        let unfinished = path.with_extension(UNFINISHED);
        let written = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(image)?;
            file.sync_data()?;
            fs::rename(&unfinished, &path)
        };
        written().inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    /// Removes a file if it is there.
    pub fn remove(&self, key: &CacheKey) {
        if let Err(error) = fs::remove_file(self.path(key))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(digest = %key.adapter.digest, %error, "a file of the adapter cache cannot be removed");
        }
    }

    /// Calls `found` with every image and its length; what was half written is removed, what is no image is left alone.
    pub fn each(&self, mut found: impl FnMut(&CacheKey, u64) -> io::Result<()>) -> io::Result<()> {
        for folder in fs::read_dir(&self.dir)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let path = file.path();
                if path.extension() == Some(OsStr::new(UNFINISHED)) {
                    fs::remove_file(&path)?;
                } else if let Some(key) = key_of(&file.file_name())
                    && self.path(&key) == path
                {
                    found(&key, file.metadata()?.len())?;
                }
            }
        }
        Ok(())
    }

    /// `<first byte of the digest>/<tenant>_<digest>.<storage>`
    fn path(&self, key: &CacheKey) -> PathBuf {
        let AdapterKey { tenant, digest } = key.adapter;
        let hex = digest.hex();
        self.dir.join(&hex[..2]).join(format!("{tenant}_{hex}.{}", key.storage))
    }
}

fn key_of(name: &OsStr) -> Option<CacheKey> {
    let (stem, storage) = name.to_str()?.split_once('.')?;
    let (tenant, digest) = stem.split_once('_')?;
    let adapter = AdapterKey { tenant: tenant.parse::<TenantId>().ok()?, digest: Digest::from_hex(digest).ok()? };
    Some(CacheKey { adapter, storage: storage.parse().ok()? })
}

fn make_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
