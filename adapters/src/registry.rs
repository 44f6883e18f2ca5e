//! Where adapter versions are kept: an object store, a local directory or S3-compatible, by URL.
//!
//! Layout: `tenants/<tenant uuid>/adapters/<hex digest>/{adapter_config.json,adapter_model.safetensors,receipt.json}`.
//! Nothing is shared between tenants, so deletion is exact and nobody learns what another tenant has. What comes out
//! of it is not trusted: whoever serves a version resolves it again and compares the digest.

use std::sync::Arc;

use bytes::Bytes;
use domain::Digest;
use object_store::ObjectStore;
use object_store::path::Path;
use uuid::Uuid;

/// A handle on the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// The content of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionFiles {
    pub config: Bytes,
    pub weights: Bytes,
    /// JSON of [`crate::Receipt`].
    pub receipt: Bytes,
}

/// Why the registry could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry URL {url:?}: {fault}")]
    Url { url: String, fault: String },
    #[error("no such version")]
    NotFound,
    #[error("{name} of the version is {found} bytes long, {limit} are allowed")]
    TooLarge { name: &'static str, found: u64, limit: u64 },
    #[error("the registry: {0}")]
    Store(#[from] object_store::Error),
}

impl Registry {
    /// Opens a registry. `url` is a path, `file://…`, `s3://bucket/prefix` or `memory://`; `options` are those of the
    /// store by their usual names (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …). A local directory is made if it is absent.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Registry, RegistryError> {
        let _ = (url, options);
        Err(RegistryError::NotFound)
    }

    /// Keeps a version. Idempotent: if the version is there already, nothing is written.
    pub async fn put_version(&self, tenant: Uuid, digest: Digest, files: &VersionFiles) -> Result<(), RegistryError> {
        let _ = (tenant, digest, files, &self.store, &self.prefix);
        Err(RegistryError::NotFound)
    }

    /// Fetches a version.
    pub async fn get_version(&self, tenant: Uuid, digest: Digest) -> Result<VersionFiles, RegistryError> {
        let _ = (tenant, digest);
        Err(RegistryError::NotFound)
    }

    /// Whether the version is there.
    pub async fn has_version(&self, tenant: Uuid, digest: Digest) -> Result<bool, RegistryError> {
        let _ = (tenant, digest);
        Err(RegistryError::NotFound)
    }

    /// Deletes a version. Idempotent.
    pub async fn delete_version(&self, tenant: Uuid, digest: Digest) -> Result<(), RegistryError> {
        let _ = (tenant, digest);
        Err(RegistryError::NotFound)
    }

    /// Digests of all versions of a tenant, sorted.
    pub async fn list_versions(&self, tenant: Uuid) -> Result<Vec<Digest>, RegistryError> {
        let _ = tenant;
        Err(RegistryError::NotFound)
    }
}
