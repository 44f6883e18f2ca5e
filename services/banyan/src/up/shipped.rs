//! What ships with the source: the demonstration base model and the industry adapters.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What the bundled adapters call the base that they were made for.
pub const BASE_NAME: &str = "banyan-seed";

/// A folder in PEFT layout, and the name that it is imported under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Industry {
    pub name: String,
    pub dir: PathBuf,
}

/// The bundled base model, as it lies in the source tree that this binary was built from.
pub fn base() -> PathBuf {
    adapters_folder().join("seed/base")
}

/// What the bundled base can do, as conversations that end with the one right answer.
pub fn skills() -> PathBuf {
    adapters_folder().join("seed/skills.jsonl")
}

/// Conversations of the same skills, none of them the same: what training mixes in so that they are not forgotten.
pub fn replay() -> PathBuf {
    adapters_folder().join("seed/replay.jsonl")
}

/// The bundled adapters' folder.
pub fn industries_folder() -> PathBuf {
    adapters_folder().join("industries")
}

/// The subfolders of `folder` that hold an adapter, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn industries(folder: &Path) -> anyhow::Result<Vec<Industry>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let dir = entry?.path();
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if dir.join("adapter_config.json").is_file() {
            found.push(Industry { name, dir });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn adapters_folder() -> PathBuf {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../adapters"));
    std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_industries_ship() {
        let names: Vec<_> = industries(&industries_folder()).expect("read").into_iter().map(|i| i.name).collect();
        for name in ["finance", "healthcare", "legal", "manufacturing"] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
        assert!(base().join("config.json").is_file());
    }
}
