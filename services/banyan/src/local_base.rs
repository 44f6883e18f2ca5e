//! A checkpoint to compute with locally. One without `tokenizer.json` serves for token ids: it is seen through a
//! temporary folder that links to its files and adds a tokenizer without words.
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use engine::text::TextModel;
use tempfile::TempDir;

use crate::failure::Failure;

const TOKENIZER: &str = "tokenizer.json";
const NO_WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{"type":"BPE","vocab":{},"merges":[]}}"#;

pub struct Checkpoint {
    dir: PathBuf,
    text: TextModel,
    /// Removed with this.
    view: Option<TempDir>,
}

impl Checkpoint {
    /// # Errors
    /// A folder or tokenizer that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let fault = |error: &dyn std::fmt::Display| Failure::Failed(format!("--base {}: {error}", dir.display()));
        let view = match dir.join(TOKENIZER).try_exists() {
            Ok(true) => None,
            _ => Some(view(dir).map_err(|error| fault(&error))?),
        };
        let dir = view.as_ref().map_or(dir, TempDir::path).to_owned();
        let text = TextModel::load(&dir).map_err(|error| fault(&error))?;
        Ok(Self { dir, text, view })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub const fn text(&self) -> &TextModel {
        &self.text
    }

    pub const fn has_tokenizer(&self) -> bool {
        self.view.is_none()
    }
}

fn view(dir: &Path) -> io::Result<TempDir> {
    let view = TempDir::with_prefix("banyan-score-")?;
    let dir = fs::canonicalize(dir)?;
    for entry in fs::read_dir(&dir)? {
        let name = entry?.file_name();
        symlink(dir.join(&name), view.path().join(&name))?;
    }
    fs::write(view.path().join(TOKENIZER), NO_WORDS)?;
    Ok(view)
}
