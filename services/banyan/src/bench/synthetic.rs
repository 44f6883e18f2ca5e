//! Random adapters for measuring, as folders in PEFT layout. The numbers mean nothing; their count and layout are real,
//! and the same seed gives the same bytes.

use std::{fs, io, path::Path};

use adapters::{Base, Module, ModuleKind};
use serde_json::{Map, Value, json};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Makes an adapter's change about twice as large as what a random base layer gives (whose weights have a deviation of
/// 0.02, an adapter's of 0.012): else two adapters would often answer alike, and nobody could tell them apart.
const STRENGTH: f64 = 256.0;

/// Writes an adapter of `rank` on every linear layer of `base` but the output layer, in bf16, to the new folder `dir`.
///
/// # Errors
/// Whatever the file system says.
pub fn write_adapter(dir: &Path, base: &Base, rank: usize, seed: u64) -> io::Result<()> {
    let mut tensors = Tensors { header: Map::new(), data: Vec::new(), state: seed };
    for (path, module) in base.modules() {
        let ModuleKind::Linear { in_features, out_features, .. } = module.kind else { continue };
        if path == "lm_head" {
            continue;
        }
        let prefix = format!("base_model.model.{path}");
        tensors.push(format!("{prefix}.lora_A.weight"), [rank, in_features]);
        tensors.push(format!("{prefix}.lora_B.weight"), [out_features, rank]);
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
    fs::write(dir.join(WEIGHTS), tensors.into_file())
}

/// Weights of such an adapter.
pub fn adapter_weights(base: &Base, rank: usize) -> usize {
    let one = |(path, module): (&String, &Module)| match module.kind {
        ModuleKind::Linear { in_features, out_features, .. } if path != "lm_head" => in_features + out_features,
        _ => 0,
    };
    base.modules().iter().map(one).sum::<usize>() * rank
}

/// A safetensors file being made: header entries and the data behind them.
struct Tensors {
    header: Map<String, Value>,
    data: Vec<u8>,
    state: u64,
}

impl Tensors {
    fn push(&mut self, name: String, dims: [usize; 2]) {
        let begin = self.data.len();
        let end = begin + dims[0] * dims[1] * 2;
        while self.data.len() < end {
            let values = self.four_values();
            self.data.extend_from_slice(&values);
        }
        self.data.truncate(end);
        let entry = json!({ "dtype": "BF16", "shape": dims, "data_offsets": [begin, end] });
        self.header.insert(name, entry);
    }

    /// Four bf16 numbers of random sign and mantissa between 1/128 and 1/64: about the size of trained ones.
    fn four_values(&mut self) -> [u8; 8] {
        const RANDOM: u64 = 0x807f_807f_807f_807f;
        const EXPONENT: u64 = 0x3c00_3c00_3c00_3c00;
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) & RANDOM | EXPONENT).to_le_bytes()
    }

    fn into_file(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&self.data);
        file
    }
}
