//! The supported model families: which modules each has, and how their sizes hang together. Sizes are taken from the
//! tensors and checked against one another and against `config.json`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BaseError, EMBED_TOKENS, LM_HEAD, Module, ModuleKind};
use crate::dtype::Dtype;

/// A supported model family, named as in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// What of `config.json` the inventory needs; the engine reads the rest.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub num_hidden_layers: usize,
    pub hidden_size: usize,
    pub vocab_size: usize,
    /// All supported families default to `false` in transformers.
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

/// Element type and shape of each tensor of the checkpoint.
pub(super) type Tensors = BTreeMap<String, (Dtype, Vec<usize>)>;

const LAYER_LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const LAYER_NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];
const HEAD_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// The modules of a checkpoint of this family.
///
/// Fails if a module is missing, a tensor belongs to none, or sizes contradict one another.
pub(super) fn inventory(
    model_type: ModelType,
    config: &Config,
    tensors: &Tensors,
) -> Result<BTreeMap<String, Module>, BaseError> {
    let mut inventory = Inventory { tensors, modules: BTreeMap::new() };
    inventory.embedding(EMBED_TOKENS, config)?;
    for layer in 0..config.num_hidden_layers {
        inventory.layer(model_type, layer, config.hidden_size)?;
    }
    inventory.norm("model.norm", Some(config.hidden_size))?;
    if config.tie_word_embeddings {
        let (vocab, dim) = (config.vocab_size, config.hidden_size);
        let dtype = inventory.modules[EMBED_TOKENS].dtype;
        let kind = ModuleKind::Linear { in_features: dim, out_features: vocab, bias: false };
        inventory.modules.insert(LM_HEAD.into(), Module { kind, dtype });
    } else {
        let [out, input] = inventory.linear(LM_HEAD)?;
        expect(LM_HEAD, [out, input] == [config.vocab_size, config.hidden_size])?;
    }
    inventory.all_tensors_used()?;
    Ok(inventory.modules)
}

struct Inventory<'a> {
    tensors: &'a Tensors,
    modules: BTreeMap<String, Module>,
}

impl Inventory<'_> {
    fn layer(&mut self, model_type: ModelType, layer: usize, hidden: usize) -> Result<(), BaseError> {
        let path = |name: &str| format!("model.layers.{layer}.{name}");
        let mut sizes = [[0; 2]; 7];
        for (size, name) in sizes.iter_mut().zip(LAYER_LINEARS) {
            *size = self.linear(&path(name))?;
        }
        let [q, k, v, o, gate, up, down] = sizes;
        expect(&path("self_attn"), q[1] == hidden && k[1] == hidden && o == [hidden, q[0]] && k == v)?;
        expect(&path("mlp"), gate[1] == hidden && gate == up && down == [hidden, gate[0]])?;
        for name in LAYER_NORMS {
            self.norm(&path(name), Some(hidden))?;
        }
        if model_type == ModelType::Qwen3 {
            for name in HEAD_NORMS {
                self.norm(&path(name), None)?;
            }
        }
        Ok(())
    }

    /// Returns `[out, in]`.
    fn linear(&mut self, path: &str) -> Result<[usize; 2], BaseError> {
        let (dtype, shape) = self.weight(path)?;
        let &[out_features, in_features] = shape.as_slice() else {
            return Err(BaseError::Checkpoint(format!("{path}.weight is not a matrix")));
        };
        let bias = self.tensors.get(&format!("{path}.bias"));
        if bias.is_some_and(|(_, shape)| *shape != [out_features]) {
            return Err(BaseError::Checkpoint(format!("{path}.bias does not fit {path}.weight")));
        }
        let kind = ModuleKind::Linear { in_features, out_features, bias: bias.is_some() };
        self.modules.insert(path.into(), Module { kind, dtype });
        Ok([out_features, in_features])
    }

    fn embedding(&mut self, path: &str, config: &Config) -> Result<(), BaseError> {
        let (dtype, shape) = self.weight(path)?;
        expect(path, *shape == [config.vocab_size, config.hidden_size])?;
        let kind = ModuleKind::Embedding { vocab: config.vocab_size, dim: config.hidden_size };
        self.modules.insert(path.into(), Module { kind, dtype });
        Ok(())
    }

    fn norm(&mut self, path: &str, dim: Option<usize>) -> Result<(), BaseError> {
        let (dtype, shape) = self.weight(path)?;
        let found = match shape.as_slice() {
            &[found] if dim.is_none_or(|dim| dim == found) => found,
            _ => return Err(BaseError::Checkpoint(format!("{path}.weight has shape {shape:?}"))),
        };
        self.modules.insert(path.into(), Module { kind: ModuleKind::Norm { dim: found }, dtype });
        Ok(())
    }

    fn weight(&self, path: &str) -> Result<(Dtype, &Vec<usize>), BaseError> {
        let name = format!("{path}.weight");
        let (dtype, shape) =
            self.tensors.get(&name).ok_or_else(|| BaseError::Checkpoint(format!("{name} is missing")))?;
        if !dtype.is_served() {
            return Err(BaseError::Checkpoint(format!("{name} is {}; F32, F16 and BF16 are served", dtype.name())));
        }
        Ok((*dtype, shape))
    }

    fn all_tensors_used(&self) -> Result<(), BaseError> {
        let used = |name: &str| {
            let weight = name.strip_suffix(".weight").is_some_and(|path| self.modules.contains_key(path));
            let bias = || {
                let module = name.strip_suffix(".bias").and_then(|path| self.modules.get(path));
                matches!(module, Some(Module { kind: ModuleKind::Linear { .. }, .. })) && name != "lm_head.bias"
            };
            // old checkpoints keep the table of rotary frequencies, which follows from the config
            weight || bias() || name.ends_with(".rotary_emb.inv_freq")
        };
        match self.tensors.keys().find(|name| !used(name)) {
            None => Ok(()),
            Some(name) => Err(BaseError::Checkpoint(format!("nothing is known that takes the tensor {name}"))),
        }
    }
}

fn expect(path: &str, fits: bool) -> Result<(), BaseError> {
    match fits {
        true => Ok(()),
        false => Err(BaseError::Checkpoint(format!("the sizes of {path} contradict one another or config.json"))),
    }
}

impl ModelType {
    pub(super) fn from_config(name: &str) -> Option<ModelType> {
        match name {
            "llama" => Some(ModelType::Llama),
            "mistral" => Some(ModelType::Mistral),
            "qwen2" => Some(ModelType::Qwen2),
            "qwen3" => Some(ModelType::Qwen3),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            ModelType::Llama => "llama",
            ModelType::Mistral => "mistral",
            ModelType::Qwen2 => "qwen2",
            ModelType::Qwen3 => "qwen3",
        }
    }
}

impl fmt::Display for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
