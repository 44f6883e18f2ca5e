//! Model shapes by name or by their sizes: what a `config.json` would say. The weights are random, so a shape has a
//! speed and no meaning.

use std::str::FromStr;

use engine::model::{ConfigError, ModelConfig};
use serde_json::{Value, json};

/// Largest size that a flag may give.
const SIZE_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// As it was asked for.
    pub name: String,
    family: Family,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    ff: usize,
    vocab: usize,
    tied: bool,
    context: usize,
    rope_theta: f64,
    rms_norm_eps: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Shape {
    /// # Errors
    /// Sizes that no model of the family can have.
    pub fn config(&self) -> Result<ModelConfig, ConfigError> {
        ModelConfig::parse(self.config_json().to_string().as_bytes(), None)
    }

    pub const fn vocab(&self) -> usize {
        self.vocab
    }

    /// As the family's `config.json` says it.
    pub fn config_json(&self) -> Value {
        let (architecture, model_type) = match self.family {
            Family::Llama => ("LlamaForCausalLM", "llama"),
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "intermediate_size": self.ff,
            "vocab_size": self.vocab,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "bos_token_id": Value::Null,
            "eos_token_id": 0,
        })
    }

    /// The sizes in the published configs of these models.
    fn published(name: &str) -> Option<Self> {
        let qwen = |family, hidden, layers, heads, kv_heads, head, ff, context| Self {
            name: name.to_owned(),
            family,
            hidden,
            layers,
            heads,
            kv_heads,
            head,
            ff,
            vocab: 151_936,
            tied: true,
            context,
            rope_theta: 1e6,
            rms_norm_eps: 1e-6,
        };
        match name {
            "qwen2.5-0.5b" => Some(qwen(Family::Qwen2, 896, 24, 14, 2, 64, 4864, 32_768)),
            "qwen2.5-1.5b" => Some(qwen(Family::Qwen2, 1536, 28, 12, 2, 128, 8960, 131_072)),
            "qwen3-0.6b" => Some(qwen(Family::Qwen3, 1024, 28, 16, 8, 128, 3072, 40_960)),
            "tinyllama-1.1b" => Some(Self {
                name: name.to_owned(),
                family: Family::Llama,
                hidden: 2048,
                layers: 22,
                heads: 32,
                kv_heads: 4,
                head: 64,
                ff: 5632,
                vocab: 32_000,
                tied: false,
                context: 2048,
                rope_theta: 1e4,
                rms_norm_eps: 1e-5,
            }),
            _ => None,
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(shape) = Self::published(text) {
            return Ok(shape);
        }
        let mut shape = Self {
            name: text.to_owned(),
            family: Family::Qwen3,
            hidden: 256,
            layers: 6,
            heads: 4,
            kv_heads: 2,
            head: 64,
            ff: 704,
            vocab: 4096,
            tied: true,
            context: 4096,
            rope_theta: 1e6,
            rms_norm_eps: 1e-6,
        };
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("`{pair}` is no shape's name and not KEY=N"))?;
            let value: usize = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
            let field = match key {
                "hidden" => &mut shape.hidden,
                "layers" => &mut shape.layers,
                "heads" => &mut shape.heads,
                "kv-heads" => &mut shape.kv_heads,
                "head" => &mut shape.head,
                "ff" => &mut shape.ff,
                "vocab" => &mut shape.vocab,
                _ => return Err(format!("`{key}` is none of hidden, layers, heads, kv-heads, head, ff, vocab")),
            };
            if value == 0 || value > SIZE_MAX {
                return Err(format!("{key} must be 1 to {SIZE_MAX}"));
            }
            *field = value;
        }
        shape.config().map_err(|error| error.to_string())?;
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_name_gives_the_published_model() {
        let shape: Shape = "qwen2.5-0.5b".parse().expect("known");
        let config = shape.config().expect("sound");
        assert_eq!((config.layers, config.hidden_size, config.vocab_size), (24, 896, 151_936));
        assert!(config.biases.qkv && !config.biases.o && config.tied_embeddings && !config.head_norms);
        let llama: Shape = "tinyllama-1.1b".parse().expect("known");
        let config = llama.config().expect("sound");
        assert!(!config.biases.qkv && !config.tied_embeddings);
        assert_eq!((config.context_length, config.kv_heads), (2048, 4));
        for name in ["qwen2.5-1.5b", "qwen3-0.6b"] {
            assert!(
                name.parse::<Shape>().and_then(|shape| shape.config().map_err(|e| e.to_string())).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn sizes_are_taken_one_by_one() {
        let shape: Shape = "hidden=128,layers=2,heads=4,kv-heads=1,head=32,ff=256,vocab=500".parse().expect("sizes");
        let config = shape.config().expect("sound");
        assert_eq!((config.hidden_size, config.head_dim, config.kv_heads, config.vocab_size), (128, 32, 1, 500));
    }

    #[test]
    fn what_is_no_shape_is_refused_with_the_reason() {
        for (text, reason) in [
            ("qwen9", "not KEY=N"),
            ("depth=2", "none of"),
            ("layers=many", "whole number"),
            ("layers=0", "must be 1"),
            ("heads=3,kv-heads=2", "share"),
            ("head=33", "even"),
        ] {
            let refusal = text.parse::<Shape>().expect_err(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
