//! Packed adapters on this machine's disk, so that an adapter that leaves memory comes back with one sequential read and
//! no question to the registry. It keeps bytes under keys; what they mean is [`crate::packed_adapter`]'s business.
//!
//! - One file for each adapter, and one index file of fixed-size records ([`index`]). Two files are open whatever the
//!   number of adapters, nothing is mapped, and opening reads one page: memory and start do not grow with the number.
//! - A cache, not a store: every fault on the way is a miss, and the adapter is fetched again. The process may be
//!   killed at any line; at the next start the writer's thread puts files and index in step.
//! - Beyond its budget it forgets what is worth least of a random sample, as Redis' approximate LRU does, so that no
//!   eviction looks at all records.
//!
//! It does not check what it keeps: whoever reads an image does.

mod files;
mod index;
mod record;
mod writer;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::residents::AdapterKey;
use files::Files;
use index::{Index, State};
use record::Record;

pub(crate) use writer::CacheWriter;

/// What a file is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub adapter: AdapterKey,
    /// How matrices are held, as [`crate::packed_adapter::Identity::storage`] has it.
    pub storage: u16,
}

/// Records looked at for one eviction.
const SAMPLE: usize = 24;
/// What a fetch from the registry costs before its first byte, in bytes that could be read meanwhile.
const FETCH_FIXED_BYTES: f64 = (4u64 << 20) as f64;

/// The cache of one engine; a folder has one at a time.
pub(crate) struct AdapterCache {
    files: Files,
    index: Mutex<Index>,
    bytes_max: u64,
    /// The last process did not end well, or the index was lost.
    doubtful: bool,
    /// Held while the cache is open.
    _lock: File,
}

impl AdapterCache {
    /// Opens the cache in `dir`, which is made if it is absent, in a time that does not depend on what it holds.
    ///
    /// # Errors
    /// When the folder cannot be written or another process uses it. A damaged index is no error: it begins anew.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<AdapterCache> {
        let files = Files::open(dir)?;
        let lock = files.lock()?;
        let (index, state) = Index::open(&files.index())?;
        Ok(Self { files, index: Mutex::new(index), bytes_max, doubtful: state == State::Doubtful, _lock: lock })
    }

    /// Whether there is an image of it, for whoever cannot wait: no use of it, and no as well while the index is busy.
    pub fn is_listed(&self, key: &CacheKey) -> bool {
        self.index.try_lock().is_ok_and(|index| index.find(key).is_ok_and(|found| found.is_some()))
    }

    /// The image's file and its length, if there is one.
    pub fn find(&self, key: &CacheKey) -> Option<(File, u64)> {
        let known = self.index().touch(key).unwrap_or_else(|error| failed("its index cannot be read", key, &error));
        known?;
        match self.files.open_image(key) {
            Ok(found) => Some(found),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    failed("its file cannot be opened", key, &error)
                }
                self.discard(key);
                None
            }
        }
    }

    /// Keeps an image; a larger one than the whole budget is not kept. It is there whole or not at all.
    ///
    /// # Errors
    /// What the disk says; the cache is as before, less what made room.
    pub fn put(&self, key: &CacheKey, image: &[u8]) -> io::Result<()> {
        let bytes = image.len() as u64;
        if bytes > self.bytes_max {
            return Ok(());
        }
        self.make_room(key, bytes)?;
        self.files.write(key, image)?;
        let kept = self.index().put(key, bytes);
        if kept.is_err() {
            self.files.remove(key);
        }
        kept
    }

    /// Forgets an image that is damaged, or that somebody else has deleted.
    pub fn discard(&self, key: &CacheKey) {
        self.files.remove(key);
        if let Err(error) = self.index().remove(key) {
            failed("its record cannot be removed", key, &error)
        }
    }

    /// After a crash: adopts files that have no record, removes what was half written, counts anew. Takes time for every
    /// file, so it is the writer's thread that does it.
    fn reconcile(&self) -> io::Result<()> {
        if self.doubtful {
            self.files.each(|key, bytes| self.index().adopt(key, bytes))?;
            self.index().recount()?;
        }
        Ok(())
    }

    /// Evicts until `bytes` more fit. One that already has the key makes way for its successor first.
    fn make_room(&self, key: &CacheKey, bytes: u64) -> io::Result<()> {
        loop {
            let mut index = self.index();
            let own = index.find(key)?.map_or(0, |record| record.bytes);
            if index.bytes() - own.min(index.bytes()) + bytes <= self.bytes_max {
                return Ok(());
            }
            let now = index.clock();
            let sample = index.sample(SAMPLE)?;
            let others = sample.into_iter().filter(|record| record.key != *key);
            let Some(victim) = others.min_by(|a, b| worth(a, now).total_cmp(&worth(b, now))) else {
                // The sums said more than there is.
                return index.recount();
            };
            // The file first: what a crash leaves is a record without one, which is a miss.
            self.files.remove(&victim.key);
            index.remove(&victim.key)?;
            tracing::debug!(digest = %victim.key.adapter.digest, "adapter evicted from disk");
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetching that a kept byte is expected to save: uses by age, times the cost of a fetch, by size.
fn worth(record: &Record, now: u64) -> f64 {
    let bytes = record.bytes.max(1) as f64;
    let age = now.saturating_sub(record.used_at) as f64 + 1.0;
    f64::from(record.uses.max(1)) / age * (FETCH_FIXED_BYTES + bytes) / bytes
}

/// A fault of the cache delays one load and nothing else.
fn failed<T: Default>(what: &str, key: &CacheKey, error: &io::Error) -> T {
    tracing::warn!(digest = %key.adapter.digest, %error, "the adapter cache: {what}");
    T::default()
}

#[cfg(test)]
mod tests;
