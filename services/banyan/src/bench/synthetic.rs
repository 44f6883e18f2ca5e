//! Random weights for measuring: base checkpoints of a given shape and adapters for any base. The numbers mean
//! nothing; their count and layout are real, and the same seed gives the same bytes.

use std::{fs, io, path::Path};

use adapters::{Base, ModuleKind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};

use crate::cli::ShapeArgs;

/// Rank of every synthetic adapter.
pub const RANK: usize = 16;
/// Keeps activations in a range that no element type overflows.
const WEIGHT_MAX: f32 = 0.05;

/// The two files of an adapter.
pub struct AdapterFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
}

/// An adapter of [`RANK`] on every linear layer of `base` but the output layer, in bf16.
pub fn adapter(base: &Base, seed: u64) -> AdapterFiles {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tensors = Tensors::default();
    for (path, module) in base.modules() {
        let ModuleKind::Linear { in_features, out_features, .. } = module.kind else { continue };
        if path == "lm_head" {
            continue;
        }
        let prefix = format!("base_model.model.{path}");
        tensors.push(format!("{prefix}.lora_A.weight"), &[RANK, in_features], &mut random);
        tensors.push(format!("{prefix}.lora_B.weight"), &[out_features, RANK], &mut random);
    }
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": "all-linear",
        "bias": "none",
    });
    AdapterFiles { config: config.to_string().into_bytes(), weights: tensors.into_file() }
}

/// Writes a checkpoint of `shape` to `dir`: `config.json` and `model.safetensors` in bf16.
///
/// # Errors
/// Whatever the file system says.
pub fn checkpoint(dir: &Path, shape: ShapeArgs) -> io::Result<()> {
    let ShapeArgs { hidden, layers, heads, kv_heads, head, ff, vocab } = shape;
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "intermediate_size": ff,
        "vocab_size": vocab,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "attention_bias": false,
        "bos_token_id": Value::Null,
        "eos_token_id": 0,
    });
    let mut random = StdRng::seed_from_u64(0);
    let mut tensors = Tensors::default();
    tensors.push("model.embed_tokens.weight".into(), &[vocab, hidden], &mut random);
    tensors.push("model.norm.weight".into(), &[hidden], &mut random);
    for layer in 0..layers {
        let mut put = |name: &str, dims: &[usize]| {
            tensors.push(format!("model.layers.{layer}.{name}.weight"), dims, &mut random);
        };
        put("input_layernorm", &[hidden]);
        put("post_attention_layernorm", &[hidden]);
        put("self_attn.q_proj", &[heads * head, hidden]);
        put("self_attn.k_proj", &[kv_heads * head, hidden]);
        put("self_attn.v_proj", &[kv_heads * head, hidden]);
        put("self_attn.o_proj", &[hidden, heads * head]);
        put("self_attn.q_norm", &[head]);
        put("self_attn.k_norm", &[head]);
        put("mlp.gate_proj", &[ff, hidden]);
        put("mlp.up_proj", &[ff, hidden]);
        put("mlp.down_proj", &[hidden, ff]);
    }
    fs::write(dir.join("config.json"), config.to_string())?;
    fs::write(dir.join("model.safetensors"), tensors.into_file())
}

/// A safetensors file being made: header entries and the data behind them.
#[derive(Default)]
struct Tensors {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Tensors {
    fn push(&mut self, name: String, dims: &[usize], random: &mut StdRng) {
        let begin = self.data.len();
        for _ in 0..dims.iter().product::<usize>() {
            let value: f32 = random.random_range(-WEIGHT_MAX..WEIGHT_MAX);
            // bf16 is the upper half of f32; cutting is as good as rounding for random numbers.
            self.data.extend_from_slice(&value.to_le_bytes()[2..]);
        }
        let entry = json!({ "dtype": "BF16", "shape": dims, "data_offsets": [begin, self.data.len()] });
        self.header.insert(name, entry);
    }

    fn into_file(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&self.data);
        file
    }
}
