//! A folder of packed images that has every adapter before a measurement begins: what a worker's disk holds after a while.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use engine::{AdapterKey, EngineHandle};
use tempfile::TempDir;

use super::client::{ask, request};
use crate::{
    cli::{BenchBaseArgs, ColdFromArgs},
    failure::Failure,
};

/// An image should be written within this time after its adapter was loaded.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

/// Goes with the value.
pub struct Images {
    dir: TempDir,
}

/// The folder if the flags want one, and the flags of an engine that keeps its images there.
///
/// # Errors
/// No temporary folder to be had.
pub fn prepare(args: &ColdFromArgs, model: &BenchBaseArgs) -> io::Result<(Option<Images>, BenchBaseArgs)> {
    let mut model = model.clone();
    if !args.packed {
        return Ok((None, model));
    }
    let dir = TempDir::with_prefix("banyan-bench-packed-")?;
    model.set.push(format!("adapter_cache_dir={}", dir.path().display()));
    Ok((Some(Images { dir }), model))
}

/// Where cold adapters come from, for people.
pub const fn source(args: &ColdFromArgs) -> &'static str {
    if args.packed { "packed images" } else { "files" }
}

impl Images {
    /// Asks for each adapter once, and waits until its image is written.
    ///
    /// # Errors
    /// A request that fails, or an image that does not come: the disk's budget may be too small.
    pub async fn fill(&self, engine: &EngineHandle, keys: &[AdapterKey]) -> Result<(), Failure> {
        for &key in keys {
            let failed = |fault: domain::Fault| Failure::Failed(fault.to_string());
            ask(engine, request(Some(key), vec![0], 1)).await.map_err(failed)?;
            let deadline = Instant::now() + PATIENCE;
            while !has_image(self.dir.path(), &key)? {
                if Instant::now() > deadline {
                    let message = "an adapter's image was not written; is `adapter_cache_bytes_max` too small?";
                    return Err(Failure::Failed(message.to_owned()));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// Whether some file in some folder of `dir` is named after the adapter.
fn has_image(dir: &Path, key: &AdapterKey) -> io::Result<bool> {
    let name = format!("{}_{}.", key.tenant, key.digest.hex());
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        if folder.file_type()?.is_dir() && holds(&folder.path(), &name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the folder has a finished file whose name begins so.
fn holds(folder: &Path, name: &str) -> io::Result<bool> {
    for file in fs::read_dir(folder)? {
        let file = file?.file_name();
        if file.to_string_lossy().starts_with(name) && !file.to_string_lossy().ends_with(".tmp") {
            return Ok(true);
        }
    }
    Ok(false)
}
