//! A loaded adapter: the weights that a step adds to the base for the rows of that adapter.
//! Judging an adapter is the `adapters` crate's work; what arrives here has a plan already.

mod load;
mod pack;
mod unpack;

use domain::Digest;
use kernels::{Lora, Matrix};

use crate::model::Slot;

pub use load::AdapterLoadError;
pub(crate) use load::parse_path;

/// An adapter's weights, ready to be applied. Immutable; share it by `Arc`.
pub struct Adapter {
    digest: Digest,
    pub(crate) base_digest: Digest,
    bytes: usize,
    pub(crate) embed: EmbeddingChange,
    /// One entry for each layer of the base, indexed by [`Slot`].
    pub(crate) layers: Vec<[LinearChange; 7]>,
    pub(crate) head: HeadChange,
}

/// What an adapter does to one linear layer: `y = gain ⊙ (x Wᵀ + scale · x Aᵀ Bᵀ) + bias + lora_bias`.
#[derive(Default)]
pub(crate) struct LinearChange {
    pub lora: Option<Lora>,
    /// DoRA: magnitude over norm, `[outputs]`.
    pub gain: Option<Vec<f32>>,
    /// Bias of B, scaled already, `[outputs]`.
    pub lora_bias: Option<Vec<f32>>,
    /// Takes the place of the base's bias, `[outputs]`.
    pub bias: Option<Vec<f32>>,
}

/// What an adapter does to the output layer.
#[derive(Default)]
pub(crate) struct HeadChange {
    /// The tenant's own `[vocab, hidden]` in place of the base's.
    pub private: Option<Matrix>,
    pub change: LinearChange,
}

/// What an adapter does to the embedding: `y = gain ⊙ (E[x] + scale · (Aᵀ[x]) Bᵀ)`.
#[derive(Default)]
pub(crate) struct EmbeddingChange {
    /// The tenant's own `[vocab, hidden]` in place of the base's.
    pub private: Option<Matrix>,
    pub lora: Option<EmbeddingLora>,
    /// DoRA: magnitude over norm, `[hidden]`.
    pub gain: Option<Vec<f32>>,
}

pub(crate) struct EmbeddingLora {
    /// Transposed: `[vocab, rank]`.
    pub a: Vec<f32>,
    /// Transposed: `[rank, hidden]`.
    pub b: Vec<f32>,
    pub rank: usize,
    pub scale: f32,
}

impl Adapter {
    /// Memory that the adapter holds: its image, and what is no view of that.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The version digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The largest rank of its changes: what it adds to the work for a token grows with that.
    pub fn rank(&self) -> usize {
        let changes = self.layers.iter().flatten().chain([&self.head.change]);
        let ranks = changes.filter_map(|change| change.lora.as_ref()).map(Lora::rank);
        ranks.chain(self.embed.lora.as_ref().map(|lora| lora.rank)).max().unwrap_or(0)
    }

    pub(crate) fn linear(&self, layer: usize, slot: Slot) -> &LinearChange {
        &self.layers[layer][slot as usize]
    }
}

impl LinearChange {
    fn is_empty(&self) -> bool {
        self.lora.is_none() && self.gain.is_none() && self.lora_bias.is_none() && self.bias.is_none()
    }
}

impl EmbeddingChange {
    /// Changes `row` `[hidden]`, which holds the embedding of `token`.
    pub fn apply(&self, token: usize, row: &mut [f32]) {
        if let Some(lora) = &self.lora {
            kernels::expand(&lora.a[token * lora.rank..][..lora.rank], &lora.b, lora.scale, row);
        }
        if let Some(gain) = &self.gain {
            kernels::scale_row(row, gain);
        }
    }
}
