//! The least time that a machine needs for a piece of work: its bytes over the read bandwidth, or its operations over
//! the product rate, whichever is longer (Williams, Waterman, Patterson 2009, "Roofline").
//!
//! Counted are the weights that must be read, keys and values that are attended to, and multiply-adds of linear layers,
//! adapters and attention (two operations each). Activations, norms and sampling are not: they stay in the caches.

use adapters::ModuleKind;
use engine::model::{BLOCK_TOKENS, Model};

/// What the machine can do, as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    pub bytes_per_second: f64,
    pub operations_per_second: f64,
}

/// What a model needs, whatever the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Of all weights that a pass reads whole: everything but the rows of an untied embedding.
    pub base_bytes: f64,
    /// Weights of the layers' linears.
    pub layer_weights: f64,
    /// Weights of the output layer.
    pub head_weights: f64,
    /// Over all layers.
    pub kv_bytes_per_token: f64,
    /// Query heads times head size, over all layers.
    pub attention_width: f64,
}

/// Passes through the model, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// How often the base weights are read.
    pub passes: f64,
    pub rows: f64,
    /// Rows whose logits are computed.
    pub logits_rows: f64,
    /// Sum over the rows of how many tokens each attends to.
    pub attended: f64,
    /// Tokens whose keys and values are read.
    pub kv_tokens: f64,
    /// Rows with an adapter.
    pub adapted_rows: f64,
    /// Weights of one adapter.
    pub adapter_weights: f64,
    /// Of all adapters that are read.
    pub adapter_bytes: f64,
}

impl Demand {
    pub fn of(model: &Model) -> Self {
        let config = model.config();
        let (mut layer_weights, mut head_weights) = (0.0, 0.0);
        for (path, module) in model.base().modules() {
            let ModuleKind::Linear { in_features, out_features, .. } = module.kind else { continue };
            let weights = (in_features * out_features) as f64;
            *(if path == "lm_head" { &mut head_weights } else { &mut layer_weights }) += weights;
        }
        let embedding = if config.tied_embeddings { 0.0 } else { (config.vocab_size * config.hidden_size) as f64 };
        let read = (layer_weights + head_weights) / (layer_weights + head_weights + embedding);
        Self {
            base_bytes: model.bytes() as f64 * read,
            layer_weights,
            head_weights,
            kv_bytes_per_token: model.block_bytes() as f64 / BLOCK_TOKENS as f64,
            attention_width: (config.layers * config.heads * config.head_dim) as f64,
        }
    }

    pub fn bytes(&self, work: &Work) -> f64 {
        work.passes * self.base_bytes + work.adapter_bytes + work.kv_tokens * self.kv_bytes_per_token
    }

    pub fn operations(&self, work: &Work) -> f64 {
        let linear = work.rows * self.layer_weights + work.logits_rows * self.head_weights;
        let adapters = work.adapted_rows * work.adapter_weights;
        // Scores and the weighted sum of the values.
        let attention = 2.0 * work.attended * self.attention_width;
        2.0 * (linear + adapters + attention)
    }

    /// Seconds at least.
    pub fn least_seconds(&self, work: &Work, ceiling: Ceiling) -> f64 {
        (self.bytes(work) / ceiling.bytes_per_second).max(self.operations(work) / ceiling.operations_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        base_bytes: 1000.0,
        layer_weights: 400.0,
        head_weights: 100.0,
        kv_bytes_per_token: 8.0,
        attention_width: 4.0,
    };

    #[test]
    fn bytes_are_the_base_once_a_pass_and_each_adapter_and_the_keys_and_values() {
        let work = Work { passes: 2.0, adapter_bytes: 30.0, kv_tokens: 5.0, ..Work::default() };
        assert_eq!(DEMAND.bytes(&work), 2000.0 + 30.0 + 40.0);
    }

    #[test]
    fn operations_are_two_for_each_weight_and_row() {
        let base = Work { rows: 3.0, logits_rows: 1.0, ..Work::default() };
        assert_eq!(DEMAND.operations(&base), 2.0 * (3.0 * 400.0 + 100.0));
        let adapted = Work { adapted_rows: 2.0, adapter_weights: 7.0, attended: 10.0, ..base };
        assert_eq!(DEMAND.operations(&adapted) - DEMAND.operations(&base), 2.0 * (14.0 + 80.0));
    }

    #[test]
    fn the_longer_of_the_two_times_is_the_roofline() {
        let work = Work { passes: 1.0, rows: 1.0, logits_rows: 1.0, ..Work::default() };
        let memory_bound = Ceiling { bytes_per_second: 100.0, operations_per_second: 1e9 };
        assert_eq!(DEMAND.least_seconds(&work, memory_bound), 10.0);
        let compute_bound = Ceiling { bytes_per_second: 1e9, operations_per_second: 100.0 };
        assert_eq!(DEMAND.least_seconds(&work, compute_bound), 10.0);
    }
}
