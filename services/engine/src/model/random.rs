//! A model with seeded random weights: shapes and speed without a checkpoint. It says nothing sensible.

use adapters::Base;
use kernels::Cpu;
use serde_json::json;

use super::weights::{Slot, Weights};
use super::{LoadError, Model, ModelConfig, ModelOptions};

impl Model {
    /// A model of the shape of `config` whose weights come from `seed`. Its base digest is derived from neither, so it
    /// is for benchmarks and tests alone: adapters made for one random model are accepted by every other.
    ///
    /// # Errors
    /// [`LoadError::Cpu`].
    pub fn random(config: ModelConfig, options: &ModelOptions, seed: u64) -> Result<Model, LoadError> {
        let cpu = Cpu::new(&options.cpu).map_err(LoadError::Cpu)?;
        let weights = Weights::random(&config, &cpu, options.dtype.storage(), seed);
        let base = inventory(&config);
        let (adapter_storage, kv_storage) = (options.adapter_storage(), options.kv_storage());
        Ok(Model { config, base, weights, dtype: options.dtype, adapter_storage, kv_storage, cpu })
    }
}

/// What reading the checkpoint would have found.
fn inventory(config: &ModelConfig) -> Base {
    let mut modules = serde_json::Map::new();
    let mut add = |path: String, kind: serde_json::Value| {
        modules.insert(path, json!({"kind": kind, "dtype": "F32"}));
    };
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    add("model.embed_tokens".into(), json!({"kind": "embedding", "vocab": vocab, "dim": hidden}));
    add("lm_head".into(), json!({"kind": "linear", "in_features": hidden, "out_features": vocab, "bias": false}));
    for layer in 0..config.layers {
        for slot in Slot::ALL {
            let ([out_features, in_features], bias) = slot.shape(config);
            let kind =
                json!({"kind": "linear", "in_features": in_features, "out_features": out_features, "bias": bias});
            add(format!("model.layers.{layer}.{}", slot.path()), kind);
        }
    }
    let base = json!({
        "digest": domain::Digest::new([0; 32]), "model_type": config.model_type, "layers": config.layers,
        "hidden_size": hidden, "vocab_size": vocab, "tied_embeddings": config.tied_embeddings,
        "modules": modules, "content": {},
    });
    serde_json::from_value(base).expect("the inventory's own form")
}
