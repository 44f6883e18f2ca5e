//! A folder on this machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;

use super::{CONFIG, Files, Found, WEIGHTS, too_large};
use crate::limits::Limits;
use crate::refusal::{Code, Refusal};

/// More entries than this no adapter folder has.
const ENTRIES_MAX: usize = 1024;

pub(super) fn read(dir: &Path, limits: &Limits) -> Result<Files, Vec<Refusal>> {
    let mut found = Found::default();
    let unreadable = |name: &str, fault: &io::Error| {
        Refusal::new(
            Code::Files,
            name,
            format!("It cannot be read: {fault}. Give the folder that holds {CONFIG} and {WEIGHTS}."),
        )
    };
    let shown = dir.display().to_string();
    let entries = fs::read_dir(dir).map_err(|fault| vec![unreadable(&shown, &fault)])?;
    let mut nested = None;
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry.map_err(|fault| vec![unreadable(&shown, &fault)])?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file_type = entry.file_type().map_err(|fault| vec![unreadable(&name, &fault)])?;
        let wanted = name == CONFIG || name == WEIGHTS;
        if file_type.is_dir() {
            if entry.path().join(CONFIG).is_file() {
                nested = Some(name);
            }
        } else if wanted && !file_type.is_file() {
            let message = "It is a link or a device, not a file. Copy the file itself into the folder (`cp -L`).";
            found.refusals.push(Refusal::new(Code::Files, &name, message));
        } else if wanted {
            let limit = if name == CONFIG { limits.config_bytes_max as u64 } else { limits.weights_bytes_max };
            match read_bounded(&entry.path(), limit) {
                Ok(Ok(bytes)) if name == CONFIG => found.config = Some(bytes),
                Ok(Ok(bytes)) => found.weights = Some(bytes),
                Ok(Err(bytes)) => found.refusals.push(too_large(&name, bytes, limit)),
                Err(fault) => found.refusals.push(unreadable(&name, &fault)),
            }
        } else {
            found.others.push(name);
        }
    }
    found.others.sort();
    if let (None, None, Some(inner)) = (&found.config, &found.weights, nested) {
        let message = "The adapter lies in this inner folder. Give that folder instead.";
        found.refusals.push(Refusal::new(Code::Files, inner, message));
    }
    found.finish(limits)
}

/// The bytes, or the size of a file that is too large.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Result<Bytes, u64>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Ok(Err(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // the file may grow while it is read
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    Ok(if read > limit { Err(read) } else { Ok(Bytes::from(bytes)) })
}
