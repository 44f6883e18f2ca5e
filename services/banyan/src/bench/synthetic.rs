//! Random adapters for measuring, as folders in PEFT layout, and random bases, as checkpoints in Hugging Face layout.
//! The numbers mean nothing; their count and layout are real, and the same seed gives the same bytes.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use adapters::{Base, Module, ModuleKind};
use engine::model::ModelConfig;
use serde_json::{Map, Value, json};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const BASE_CONFIG: &str = "config.json";
const BASE_WEIGHTS: &str = "model.safetensors";
/// Makes an adapter's change about twice as large as what a random base layer gives (whose weights have a deviation of
/// 0.02, an adapter's of 0.012): else two adapters would often answer alike, and nobody could tell them apart.
const STRENGTH: f64 = 256.0;

/// Writes an adapter of `rank` on every linear layer of `base` but the output layer, in bf16, to the new folder `dir`.
///
/// # Errors
/// Whatever the file system says.
pub fn write_adapter(dir: &Path, base: &Base, rank: usize, seed: u64) -> io::Result<()> {
    let mut tensors = Tensors::default();
    for (path, module) in base.modules() {
        let ModuleKind::Linear { in_features, out_features, .. } = module.kind else { continue };
        if path == "lm_head" {
            continue;
        }
        let prefix = format!("base_model.model.{path}");
        tensors.push(format!("{prefix}.lora_A.weight"), &[rank, in_features], Fill::Random);
        tensors.push(format!("{prefix}.lora_B.weight"), &[out_features, rank], Fill::Random);
    }
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": STRENGTH * (rank as f64).sqrt(),
        "target_modules": "all-linear",
        "bias": "none",
    });
    fs::create_dir(dir)?;
    fs::write(dir.join(CONFIG), config.to_string())?;
    tensors.write(&dir.join(WEIGHTS), seed)
}

/// Writes `config.json` and the weights in bf16 of a base with the linear layers and embeddings of `base` to the folder
/// `dir`.
///
/// # Errors
/// Whatever the file system says.
pub fn write_base(dir: &Path, config_json: &Value, config: &ModelConfig, base: &Base, seed: u64) -> io::Result<()> {
    let mut tensors = Tensors::default();
    for (path, module) in base.modules() {
        match module.kind {
            ModuleKind::Linear { .. } if path == "lm_head" && config.tied_embeddings => {}
            ModuleKind::Linear { in_features, out_features, bias } => {
                tensors.push(format!("{path}.weight"), &[out_features, in_features], Fill::Random);
                if bias {
                    tensors.push(format!("{path}.bias"), &[out_features], Fill::Random);
                }
            }
            ModuleKind::Embedding { vocab, dim } => {
                tensors.push(format!("{path}.weight"), &[vocab, dim], Fill::Random);
            }
            // All of them come below: an inventory of random weights lists none.
            ModuleKind::Norm { .. } => {}
        }
    }
    for layer in 0..config.layers {
        let mut norm = |name: &str, size| {
            tensors.push(format!("model.layers.{layer}.{name}.weight"), &[size], Fill::Ones);
        };
        norm("input_layernorm", config.hidden_size);
        norm("post_attention_layernorm", config.hidden_size);
        if config.head_norms {
            norm("self_attn.q_norm", config.head_dim);
            norm("self_attn.k_norm", config.head_dim);
        }
    }
    tensors.push("model.norm.weight".to_owned(), &[config.hidden_size], Fill::Ones);
    fs::write(dir.join(BASE_CONFIG), config_json.to_string())?;
    tensors.write(&dir.join(BASE_WEIGHTS), seed)
}

/// Weights of such an adapter.
pub fn adapter_weights(base: &Base, rank: usize) -> usize {
    let one = |(path, module): (&String, &Module)| match module.kind {
        ModuleKind::Linear { in_features, out_features, .. } if path != "lm_head" => in_features + out_features,
        _ => 0,
    };
    base.modules().iter().map(one).sum::<usize>() * rank
}

/// A safetensors file to be made: its header, and what the data behind it are, in order.
#[derive(Default)]
struct Tensors {
    header: Map<String, Value>,
    data: Vec<(usize, Fill)>,
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Fill {
    Random,
    Ones,
}

impl Tensors {
    fn push(&mut self, name: String, dims: &[usize], fill: Fill) {
        let values: usize = dims.iter().product();
        let begin = self.bytes;
        self.bytes += values * 2;
        let entry = json!({ "dtype": "BF16", "shape": dims, "data_offsets": [begin, self.bytes] });
        self.header.insert(name, entry);
        self.data.push((values, fill));
    }

    fn write(self, path: &Path, seed: u64) -> io::Result<()> {
        const ONES: [u8; 8] = 0x3f80_3f80_3f80_3f80_u64.to_le_bytes();
        let header = Value::Object(self.header).to_string();
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut state = seed;
        for (values, fill) in self.data {
            for at in (0..values).step_by(4) {
                let four = match fill {
                    Fill::Random => four_values(&mut state),
                    Fill::Ones => ONES,
                };
                file.write_all(&four[..(values - at).min(4) * 2])?;
            }
        }
        file.flush()
    }
}

/// Four bf16 numbers of random sign and mantissa between 1/128 and 1/64: about the size of trained ones.
fn four_values(state: &mut u64) -> [u8; 8] {
    const RANDOM: u64 = 0x807f_807f_807f_807f;
    const EXPONENT: u64 = 0x3c00_3c00_3c00_3c00;
    // splitmix64
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) & RANDOM | EXPONENT).to_le_bytes()
}
