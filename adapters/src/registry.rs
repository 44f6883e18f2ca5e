//! Where adapter versions are kept: an object store, a local directory or S3-compatible, by URL.
//!
//! Layout: `tenants/<tenant uuid>/adapters/<hex digest>/{adapter_config.json,adapter_model.safetensors,receipt.json}`.
//! Nothing is shared between tenants, so deletion is exact and nobody learns what another tenant has. The receipt is
//! written last and removed first: a version is there exactly if its receipt is.
//!
//! What comes out is not trusted: whoever serves a version resolves it again and compares the digest.

mod open;

use std::sync::Arc;

use bytes::Bytes;
use domain::Digest;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use uuid::Uuid;

use crate::files::{CONFIG, WEIGHTS};
use crate::limits::Limits;

const RECEIPT: &str = "receipt.json";
/// Bytes of the JSON of a receipt.
const RECEIPT_BYTES_MAX: u64 = 64 << 20;

/// A handle on the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    limits: Limits,
}

/// The content of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionFiles {
    pub config: Bytes,
    pub weights: Bytes,
    /// JSON of [`crate::Receipt`].
    pub receipt: Bytes,
}

/// Whether a version was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Existed,
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
    Store(#[source] Error),
}

impl Registry {
    /// Opens a registry. `url` is a path, `file://…`, `s3://bucket/prefix` or `memory://`; `options` are those of the
    /// store by their usual names (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …), others are ignored. A local directory is
    /// made if it is absent.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Registry, RegistryError> {
        open::open(url, options)
    }

    /// The same registry, whose files may be as large as `limits` says.
    pub fn with_limits(self, limits: Limits) -> Registry {
        Registry { limits, ..self }
    }

    /// Keeps a version. Idempotent: a version that is there already stays as it is. Each file appears whole or not at
    /// all, and the version only with its last file; a call that is cut off can be repeated.
    pub async fn put_version(&self, tenant: Uuid, digest: Digest, files: &VersionFiles) -> Result<Put, RegistryError> {
        if self.has_version(tenant, digest).await? {
            return Ok(Put::Existed);
        }
        for (name, bytes) in [(CONFIG, &files.config), (WEIGHTS, &files.weights)] {
            self.put_uncommitted(&self.path(tenant, digest, name), bytes).await?;
        }
        let receipt = self.path(tenant, digest, RECEIPT);
        match self.store.put_opts(&receipt, files.receipt.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. }) => Ok(Put::Existed), // another call was faster
            Err(fault) => Err(fault.into()),
        }
    }

    /// Fetches a version.
    pub async fn get_version(&self, tenant: Uuid, digest: Digest) -> Result<VersionFiles, RegistryError> {
        Ok(VersionFiles {
            receipt: self.fetch(tenant, digest, RECEIPT, RECEIPT_BYTES_MAX).await?,
            config: self.fetch(tenant, digest, CONFIG, self.limits.config_bytes_max as u64).await?,
            weights: self.fetch(tenant, digest, WEIGHTS, self.limits.weights_bytes_max).await?,
        })
    }

    /// Fetches the receipt of a version alone.
    pub async fn get_receipt(&self, tenant: Uuid, digest: Digest) -> Result<Bytes, RegistryError> {
        self.fetch(tenant, digest, RECEIPT, RECEIPT_BYTES_MAX).await
    }

    /// Whether the version is there.
    pub async fn has_version(&self, tenant: Uuid, digest: Digest) -> Result<bool, RegistryError> {
        match self.store.head(&self.path(tenant, digest, RECEIPT)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Deletes a version, and what a cut-off [`Registry::put_version`] may have left of it. Idempotent.
    pub async fn delete_version(&self, tenant: Uuid, digest: Digest) -> Result<(), RegistryError> {
        for name in [RECEIPT, WEIGHTS, CONFIG] {
            match self.store.delete(&self.path(tenant, digest, name)).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Digests of all versions of a tenant, sorted.
    pub async fn list_versions(&self, tenant: Uuid) -> Result<Vec<Digest>, RegistryError> {
        let folder = self.tenant_folder(tenant);
        let digest_of = |path: &Path| {
            let mut parts = path.prefix_match(&folder)?;
            let digest = Digest::from_hex(parts.next()?.as_ref()).ok()?;
            (parts.next()?.as_ref() == RECEIPT && parts.next().is_none()).then_some(digest)
        };
        let mut digests = Vec::new();
        let mut listed = self.store.list(Some(&folder));
        while let Some(object) = listed.try_next().await? {
            digests.extend(digest_of(&object.location));
        }
        digests.sort_unstable();
        Ok(digests)
    }

    /// Writes a file of a version that is not there yet. What an earlier call left of it is replaced if it differs.
    async fn put_uncommitted(&self, path: &Path, bytes: &Bytes) -> Result<(), RegistryError> {
        match self.store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. }) => {
                let same_size = self.store.head(path).await?.size == bytes.len() as u64;
                if !same_size || self.store.get(path).await?.bytes().await? != *bytes {
                    self.store.put(path, bytes.clone().into()).await?;
                }
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    async fn fetch(
        &self,
        tenant: Uuid,
        digest: Digest,
        name: &'static str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let object = self.store.get(&self.path(tenant, digest, name)).await?;
        let found = object.meta.size;
        if found > limit {
            return Err(RegistryError::TooLarge { name, found, limit });
        }
        Ok(object.bytes().await?)
    }

    fn tenant_folder(&self, tenant: Uuid) -> Path {
        self.prefix.clone().join("tenants").join(tenant.to_string()).join("adapters")
    }

    fn path(&self, tenant: Uuid, digest: Digest, name: &str) -> Path {
        self.tenant_folder(tenant).join(digest.hex()).join(name)
    }
}

impl From<Error> for RegistryError {
    fn from(fault: Error) -> Self {
        match fault {
            Error::NotFound { .. } => RegistryError::NotFound,
            fault => RegistryError::Store(fault),
        }
    }
}
