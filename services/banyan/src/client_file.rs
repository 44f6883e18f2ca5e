//! `client.toml` in the data directory: addresses and credentials, so that `banyan generate` beside `banyan up` needs
//! no flags. Readable by its owner only; written as a whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What the file holds. Unknown keys are refused: a typing error must not be ignored.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_token: Option<String>,
}

impl ClientFile {
    pub fn path(data: &Path) -> PathBuf {
        data.join("client.toml")
    }

    /// An absent file is an empty one.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn read(data: &Path) -> Result<Self, Failure> {
        let path = Self::path(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::Failed(format!("{}: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
    }

    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, data: &Path) -> Result<(), Failure> {
        let path = Self::path(data);
        let body = toml::to_string(self).map_err(|error| Failure::Failed(error.to_string()))?;
        let text = format!("# Written by `banyan up`; the client verbs read it. Keep it private.\n{body}");
        crate::private_file::write(&path, text.as_bytes())
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
    }
}
