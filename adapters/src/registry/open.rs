//! From a URL to a store. The environment is not read here: what the store needs comes as options.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStoreScheme, parse_url_opts};
use url::Url;

use super::{Registry, RegistryError};
use crate::limits::Limits;

pub(super) fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Registry, RegistryError> {
    let fault = |fault: String| RegistryError::Url { url: without_secrets(url), fault };
    let parsed = match Url::parse(url) {
        Ok(parsed) if url.contains("://") => parsed,
        _ => return directory(FilePath::new(url)).map_err(fault),
    };
    if parsed.scheme() == "file" {
        let path = parsed.to_file_path().map_err(|()| fault("it is not a path of this machine".into()))?;
        return directory(&path).map_err(fault);
    }
    match ObjectStoreScheme::parse(&parsed) {
        Ok((ObjectStoreScheme::AmazonS3 | ObjectStoreScheme::Memory, _)) => {}
        _ => return Err(fault("give a path, file://…, s3://bucket/prefix or memory://".into())),
    }
    let (store, prefix) = parse_url_opts(&parsed, options).map_err(|error| fault(error.to_string()))?;
    Ok(Registry { store: Arc::from(store), prefix, limits: Limits::default() })
}

fn directory(path: &FilePath) -> Result<Registry, String> {
    if path.as_os_str().is_empty() {
        return Err("it is empty".into());
    }
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    // a version survives a power cut once it is reported as kept, and deleting it leaves no empty folders
    let store = store.with_fsync(true).with_automatic_cleanup(true);
    Ok(Registry { store: Arc::new(store), prefix: Path::default(), limits: Limits::default() })
}

/// The URL as it may be shown: without user, password and query.
fn without_secrets(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.has_host() => {
            parsed.set_query(None);
            // a URL with a host takes both
            let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
            if cleared.is_ok() { parsed.to_string() } else { String::new() }
        }
        _ => url.to_owned(),
    }
}
