//! Base weights, packed once: the first load of a checkpoint writes them to a file as the kernels read them, every
//! later one maps that file, so that a start reads no weights and several processes share one copy of them.
//!
//! Files are named by the digest of the base and the element type. A small note beside them remembers which digest the
//! checkpoint's files had, by their sizes and times of change, so that an unchanged checkpoint is not hashed again.

mod file;
mod note;

use std::path::Path;

use adapters::Base;
use kernels::Cpu;

use crate::checkpoint::Checkpoint;
use crate::model::{LoadError, ModelConfig, ModelOptions, Weights};
use file::PackedFile;
use note::Note;

/// The inventory and the weights of the checkpoint `dir`.
pub(crate) fn load(
    dir: &Path,
    config: &ModelConfig,
    options: &ModelOptions,
    cpu: &Cpu,
) -> Result<(Base, Weights), LoadError> {
    let storage = options.dtype.storage();
    let Some(folder) = &options.packed_dir else {
        return Ok((Base::read(dir)?, Weights::take(config, Checkpoint::read(dir, storage, cpu)?)?));
    };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let note = Note::of(dir, folder).map_err(io(dir))?;
    let base = match note.read() {
        Some(base) => base,
        None => {
            let base = Base::read(dir)?;
            note.write(&base).map_err(io(folder))?;
            base
        }
    };
    let path = folder.join(format!("{}-{}.packed", base.digest().hex(), options.dtype.name()));
    let packed = match PackedFile::open(&path, storage) {
        Ok(packed) => packed,
        Err(fault) => {
            tracing::info!(path = %path.display(), %fault, "packing the base weights");
            file::write(&path, &Checkpoint::read(dir, storage, cpu)?).map_err(io(&path))?;
            PackedFile::open(&path, storage).map_err(io(&path))?
        }
    };
    Ok((base, Weights::take(config, packed)?))
}

#[cfg(test)]
mod tests;
