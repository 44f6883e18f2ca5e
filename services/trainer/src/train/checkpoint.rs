//! A job on disk, in one file that is there whole or not at all: how far it is, and the best adapter so far.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use engine::train::{Recipe, Sequence};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::JobOptions;
use crate::lessons::Lessons;

const FILE: &str = "checkpoint";

/// The adapter with the lowest validation loss.
pub struct Best {
    pub step: u64,
    pub loss: f64,
    /// `adapter_model.safetensors`
    pub weights: Bytes,
}

pub struct Checkpoint {
    /// As [`engine::train::Run::save`] wrote it.
    pub run: Bytes,
    pub best: Option<Best>,
    pub worse: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: it is no checkpoint, or a damaged one; delete it to begin anew", .0.display())]
    Damaged(PathBuf),
    #[error("{}: it is of another dataset, recipe or set of options; delete it to begin anew", .0.display())]
    OtherPlan(PathBuf),
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    plan: String,
    run_bytes: usize,
    best: Option<(u64, f64)>,
    best_bytes: usize,
    worse: u32,
    /// Of what follows.
    sha256: String,
}

/// Names everything that a job's result depends on besides the base.
pub fn plan(recipe: &Recipe, options: &JobOptions, lessons: &Lessons) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{recipe:?}{options:?}"));
    for rows in [&lessons.train, &lessons.validation, &lessons.replay] {
        hasher.update((rows.len() as u64).to_le_bytes());
        for Sequence { tokens, weights } in rows {
            hasher.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
            weights.iter().for_each(|weight| hasher.update(weight.to_le_bytes()));
        }
    }
    hex::encode(hasher.finalize())
}

impl Checkpoint {
    /// `None` where there is none.
    pub fn read(folder: &Path, plan: &str) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(FILE);
        let all = match fs::read(&path) {
            Ok(all) => Bytes::from(all),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::Io { path, error }),
        };
        let damaged = || CheckpointError::Damaged(path.clone());
        let border = all.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let head: Head = serde_json::from_slice(&all[..border]).map_err(|_| damaged())?;
        let rest = all.slice(border + 1..);
        let lengths = head.run_bytes.checked_add(head.best_bytes);
        if lengths != Some(rest.len()) || hex::encode(Sha256::digest(&rest)) != head.sha256 {
            return Err(damaged());
        }
        if head.plan != plan {
            return Err(CheckpointError::OtherPlan(path));
        }
        let best = head.best.map(|(step, loss)| Best { step, loss, weights: rest.slice(head.run_bytes..) });
        Ok(Some(Self { run: rest.slice(..head.run_bytes), best, worse: head.worse }))
    }
}

/// In the place of the one before; a kill at any moment leaves one of the two.
pub fn write(folder: &Path, plan: &str, run: &[u8], best: Option<&Best>, worse: u32) -> Result<(), CheckpointError> {
    let weights = best.map_or(&[][..], |best| &best.weights);
    let sha256 = hex::encode(Sha256::new().chain_update(run).chain_update(weights).finalize());
    let head = Head {
        plan: plan.to_owned(),
        run_bytes: run.len(),
        best: best.map(|best| (best.step, best.loss)),
        best_bytes: weights.len(),
        worse,
        sha256,
    };
    let (path, new) = (folder.join(FILE), folder.join("checkpoint.new"));
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&head)?)?;
        file.write_all(b"\n")?;
        file.write_all(run)?;
        file.write_all(weights)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| CheckpointError::Io { path: path.clone(), error })
}

/// What is over and kept needs none.
///
/// # Errors
/// A folder that cannot be written to.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CheckpointError::Io { path, error }),
        _ => Ok(()),
    }
}
