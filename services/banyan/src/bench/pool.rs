//! Many adapters for the engine from few files: key i is of tenant i and of the content i modulo their number. For the
//! engine all keys are different adapters, since residency is not shared between tenants; on disk there are few, so
//! their number is not bounded by the disk. Every load reads its files.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use adapters::{Base, Files, Limits};
use domain::{Digest, TenantId};
use engine::{AdapterFault, AdapterKey, AdapterSource};
use tempfile::TempDir;
use uuid::Uuid;

use super::synthetic;
use crate::failure::Failure;

/// The adapters of a bench. Cheap to clone; the files go with the last clone.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// One folder for each content, named by its index.
    dir: TempDir,
    digests: Vec<Digest>,
    registered: usize,
    loads: AtomicU64,
    bytes: AtomicU64,
    read_nanos: AtomicU64,
}

/// What was loaded since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    pub loads: u64,
    pub bytes: u64,
    /// Time that reading the files took, over all loads.
    pub read_nanos: u64,
}

impl Pool {
    /// Writes `contents` random adapters of `rank` to a temporary folder and registers `registered` keys for them.
    ///
    /// # Errors
    /// What the file system or the judge of adapters says.
    pub fn new(base: &Base, rank: usize, contents: usize, registered: usize) -> Result<Self, Failure> {
        let dir = TempDir::with_prefix("banyan-bench-")?;
        let mut digests = Vec::with_capacity(contents);
        for content in 0..contents.min(registered) {
            let folder = dir.path().join(content.to_string());
            // Ranks of one bench must not give the same content.
            synthetic::write_adapter(&folder, base, rank, ((rank as u64) << 32) | content as u64)?;
            let limits = Limits::default();
            let plan = Files::read(&folder, &limits).and_then(|files| files.judge(base, &limits));
            let plan = plan.map_err(|refusals| {
                let reasons: Vec<_> = refusals.iter().map(ToString::to_string).collect();
                Failure::Failed(format!("a synthetic adapter is refused: {}", reasons.join("; ")))
            })?;
            digests.push(plan.digest);
        }
        let (loads, bytes, read_nanos) = Default::default();
        Ok(Self { shared: Arc::new(Shared { dir, digests, registered, loads, bytes, read_nanos }) })
    }

    pub fn key(&self, index: usize) -> AdapterKey {
        let digest = self.shared.digests[index % self.shared.digests.len()];
        AdapterKey { tenant: tenant(index), digest }
    }

    pub fn keys(&self, count: usize) -> Vec<AdapterKey> {
        (0..count).map(|index| self.key(index)).collect()
    }

    /// The folders of the contents.
    pub fn folders(&self) -> Vec<std::path::PathBuf> {
        (0..self.shared.digests.len()).map(|content| self.shared.dir.path().join(content.to_string())).collect()
    }

    pub fn loads(&self) -> Loads {
        let Shared { loads, bytes, read_nanos, .. } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Loads { loads: read(loads), bytes: read(bytes), read_nanos: read(read_nanos) }
    }

    fn content(&self, key: &AdapterKey) -> Option<usize> {
        let index = usize::try_from(key.tenant.uuid().as_u128()).ok()?.checked_sub(1)?;
        (index < self.shared.registered && self.key(index) == *key).then(|| index % self.shared.digests.len())
    }
}

impl AdapterSource for Pool {
    fn load(&self, key: &AdapterKey) -> Result<Files, AdapterFault> {
        let content = self.content(key).ok_or(AdapterFault::NotFound)?;
        let begin = Instant::now();
        let files = Files::read(&self.shared.dir.path().join(content.to_string()), &Limits::default())
            .map_err(AdapterFault::Refused)?;
        let Shared { loads, bytes, read_nanos, .. } = &*self.shared;
        loads.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(files.weights.len() as u64, Ordering::Relaxed);
        read_nanos.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(files)
    }
}

impl Loads {
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            loads: self.loads - earlier.loads,
            bytes: self.bytes - earlier.bytes,
            read_nanos: self.read_nanos - earlier.read_nanos,
        }
    }
}

/// Physical memory of this process in bytes; none where the system does not say.
pub fn resident_memory() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// 0 is the share group of what runs without a tenant.
const fn tenant(index: usize) -> TenantId {
    TenantId::new(Uuid::from_u128(index as u128 + 1))
}
