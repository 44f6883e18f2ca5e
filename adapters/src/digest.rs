//! Content digests: SHA-256 over length-prefixed parts under a domain string, so that no two different contents give
//! the same bytes to hash.

use domain::Digest;
use sha2::{Digest as _, Sha256};

use crate::base::Base;
use crate::config::LoraConfig;
use crate::container::{Container, TensorView};
use crate::dtype::Dtype;

/// A SHA-256 of length-prefixed parts.
#[derive(Clone)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Begins a digest in the domain `domain`, e.g. `banyan.base.v1`.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hasher = Hasher(Sha256::new());
        hasher.part(domain.as_bytes());
        hasher
    }

    /// Adds one part: its length, then its bytes.
    pub(crate) fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_le_bytes());
        self
    }

    /// Adds bytes without their length; the caller has added it.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::new(self.0.finalize().into())
    }
}

/// The hasher of a weight's values kept as `dtype`; feed it the little-endian elements with [`Hasher::raw`].
pub(crate) fn content_hasher(dtype: Dtype) -> Hasher {
    let mut hasher = Hasher::new("banyan.values.v1");
    hasher.part(dtype.name().as_bytes());
    hasher
}

/// The digest of a tensor's values, to compare with [`crate::base::ContentDigests`].
pub(crate) fn content(tensor: &TensorView<'_>) -> Digest {
    let mut hasher = content_hasher(tensor.dtype);
    hasher.raw(tensor.data);
    hasher.finish()
}

/// The digest that names a version: the meaning of its config, its tensors, and its base.
pub(crate) fn version(config: &LoraConfig, weights: &Container, base: &Base) -> Digest {
    let mut hasher = Hasher::new("banyan.adapter-version.v1");
    hasher.part(base.digest().as_bytes());
    hasher.part(config.canonical().as_bytes());
    hasher.number(weights.header().tensors().len() as u64);
    for name in weights.names() {
        let Some(tensor) = weights.get(name) else { continue };
        hasher.part(name.as_bytes()).part(tensor.dtype.name().as_bytes()).number(tensor.shape.len() as u64);
        for extent in tensor.shape {
            hasher.number(*extent as u64);
        }
        hasher.part(tensor.data);
    }
    hasher.finish()
}
