//! Small bases and adapters, made in code.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use adapters::{Base, Code, Container, Dtype, Limits, ModuleKind, Note, NoteCode, Plan, Refusal, Resolved};
use bytes::Bytes;
use serde_json::{Value, json};

pub const HIDDEN: usize = 8;
pub const VOCAB: usize = 16;
pub const LAYERS: usize = 2;
pub const QUERY: usize = 12;
pub const KEY: usize = 6;
pub const FEED: usize = 10;
pub const PREFIX: &str = "base_model.model.";

/// Untied, every linear of the layers has a bias.
pub static LLAMA: LazyLock<Base> = LazyLock::new(|| write_and_read(|dir| write_base(dir, "llama", false, true)));
/// Tied, no biases, norms of heads.
pub static QWEN3: LazyLock<Base> = LazyLock::new(|| write_and_read(|dir| write_base(dir, "qwen3", true, false)));

/// A tensor with its values; it is stored as `dtype`.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// An adapter that can be changed before it is judged.
#[derive(Clone)]
pub struct Adapter {
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Adapter {
    /// Plain LoRA, rank 2, alpha 4, on all modules of `base` that end in one of `targets`.
    pub fn lora(base: &Base, targets: &[&str]) -> Adapter {
        let config = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4,
            "target_modules": targets, "base_model_name_or_path": null});
        let mut adapter = Adapter { config, tensors: BTreeMap::new() };
        for (path, module) in base.modules() {
            if targets.iter().any(|target| path == target || path.ends_with(&format!(".{target}"))) {
                adapter.pair(path, module.kind, 2);
            }
        }
        adapter
    }

    /// `q_proj` and `v_proj` on the untied base.
    pub fn plain() -> Adapter {
        Adapter::lora(&LLAMA, &["q_proj", "v_proj"])
    }

    pub fn pair(&mut self, path: &str, kind: ModuleKind, rank: usize) {
        let seed = self.tensors.len() as u32;
        let (a, b, input, output) = match kind {
            ModuleKind::Linear { in_features, out_features, .. } => {
                ("lora_A.weight", "lora_B.weight", in_features, out_features)
            }
            ModuleKind::Embedding { vocab, dim } => ("lora_embedding_A", "lora_embedding_B", vocab, dim),
            ModuleKind::Norm { .. } => return,
        };
        self.tensors.insert(format!("{PREFIX}{path}.{a}"), Tensor::random(&[rank, input], seed));
        self.tensors.insert(format!("{PREFIX}{path}.{b}"), Tensor::random(&[output, rank], seed + 1));
    }

    pub fn with(mut self, field: &str, value: Value) -> Adapter {
        self.config[field] = value;
        self
    }

    pub fn without(mut self, name: &str) -> Adapter {
        let name = format!("{PREFIX}{name}");
        assert!(self.tensors.remove(&name).is_some(), "{name}");
        self
    }

    pub fn tensor(mut self, name: &str, tensor: Tensor) -> Adapter {
        self.tensors.insert(format!("{PREFIX}{name}"), tensor);
        self
    }

    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Adapter {
        self.tensors = self.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        self
    }

    /// The same adapter with a vector for each adapted module.
    pub fn with_vectors(mut self, base: &Base, suffix: &str) -> Adapter {
        let modules: Vec<String> = self.modules();
        for (seed, path) in modules.iter().enumerate() {
            let output = match base.module(path).map(|module| module.kind) {
                Some(ModuleKind::Linear { out_features, .. }) => out_features,
                Some(ModuleKind::Embedding { dim, .. }) => dim,
                _ => continue,
            };
            self.tensors.insert(format!("{PREFIX}{path}.{suffix}"), Tensor::random(&[output], 100 + seed as u32));
        }
        self
    }

    pub fn modules(&self) -> Vec<String> {
        let module = |name: &String| {
            let name = name.strip_prefix(PREFIX).unwrap();
            let (path, _) = name.split_once(".lora_A").or_else(|| name.split_once(".lora_embedding_A"))?;
            Some(path.to_owned())
        };
        self.tensors.keys().filter_map(module).collect()
    }

    pub fn container(&self) -> Container {
        Container::parse(safetensors(&self.tensors).into(), &Limits::default()).unwrap()
    }

    pub fn judge(&self, base: &Base) -> Result<Resolved, Vec<Refusal>> {
        self.judge_within(base, &Limits::default())
    }

    /// As whoever keeps a version sees it, which must be what whoever serves it sees, and agree with the exact norms.
    #[track_caller]
    pub fn judge_within(&self, base: &Base, limits: &Limits) -> Result<Resolved, Vec<Refusal>> {
        let (config, weights) = (self.config.to_string().into_bytes(), self.container());
        let resolved = adapters::resolve(&config, &weights, base, limits);
        let judged = adapters::judge(&config, &weights, base, limits);
        assert_eq!(judged.as_ref(), resolved.as_ref().map(|resolved| &resolved.plan));
        if let Ok(Resolved { plan, receipt }) = &resolved {
            for (module, measured) in plan.modules.iter().zip(&receipt.modules) {
                assert!((measured.delta_norm as f32).is_finite(), "{}", module.module);
                let pair_alone = module.magnitude.is_none() && module.lora_bias.is_none();
                let noted = |note: &&Note| note.code == NoteCode::ZeroDelta && note.subject == module.module;
                let is_zero = plan.notes.iter().any(|note| noted(&note));
                assert!(!pair_alone || is_zero == (measured.delta_norm == 0.0), "{}", module.module);
            }
        }
        resolved
    }

    #[track_caller]
    pub fn accepted(&self, base: &Base) -> Resolved {
        match self.judge(base) {
            Ok(plan) => plan,
            Err(refusals) => panic!("refused: {refusals:#?}"),
        }
    }

    /// All codes of the refusals, which must name what the user can do.
    #[track_caller]
    pub fn refused(&self, base: &Base) -> Vec<Code> {
        let refusals = self.judge(base).expect_err("accepted");
        codes(&refusals)
    }
}

#[track_caller]
pub fn codes(refusals: &[Refusal]) -> Vec<Code> {
    assert!(!refusals.is_empty());
    for refusal in refusals {
        assert!(refusal.message.len() > 20 && refusal.message.ends_with(['.', ')']), "{refusal}");
        assert!(!refusal.subject.is_empty(), "{refusal}");
    }
    let mut codes: Vec<Code> = refusals.iter().map(|refusal| refusal.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

pub fn note(plan: &Plan, code: NoteCode) -> Option<&Note> {
    plan.notes.iter().find(|note| note.code == code)
}

impl Tensor {
    pub fn new(shape: &[usize], values: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { dtype: Dtype::F32, shape: shape.to_vec(), values }
    }

    /// Multiples of 1/64 in [-1, 1), which every float type holds exactly.
    pub fn random(shape: &[usize], seed: u32) -> Tensor {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 25) as f32 - 64.0) / 64.0
        };
        Tensor::new(shape, (0..shape.iter().product()).map(|_| next()).collect())
    }

    pub fn zeros(shape: &[usize]) -> Tensor {
        Tensor::new(shape, vec![0.0; shape.iter().product()])
    }

    pub fn stored_as(self, dtype: Dtype) -> Tensor {
        Tensor { dtype, ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let encode = |value: &f32| match self.dtype {
            Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
            Dtype::F32 => value.to_le_bytes().to_vec(),
            _ => vec![0; self.dtype.size()],
        };
        self.values.iter().flat_map(encode).collect()
    }
}

/// A safetensors file.
pub fn safetensors(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend(tensor.bytes());
        let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    raw_safetensors(&Value::Object(header).to_string(), &data)
}

/// A file with this text as its header, whatever it says.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// The weights of a base, as [`write_base`] writes them.
pub fn base_tensors(model_type: &str, tied: bool, biased: bool) -> BTreeMap<String, Tensor> {
    let mut shapes: Vec<(String, Vec<usize>)> =
        vec![("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]), ("model.norm.weight".into(), vec![HIDDEN])];
    if !tied {
        shapes.push(("lm_head.weight".into(), vec![VOCAB, HIDDEN]));
    }
    for layer in 0..LAYERS {
        let linears = [
            ("self_attn.q_proj", QUERY, HIDDEN),
            ("self_attn.k_proj", KEY, HIDDEN),
            ("self_attn.v_proj", KEY, HIDDEN),
            ("self_attn.o_proj", HIDDEN, QUERY),
            ("mlp.gate_proj", FEED, HIDDEN),
            ("mlp.up_proj", FEED, HIDDEN),
            ("mlp.down_proj", HIDDEN, FEED),
        ];
        for (name, output, input) in linears {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![output, input]));
            if biased {
                shapes.push((format!("model.layers.{layer}.{name}.bias"), vec![output]));
            }
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![HIDDEN]));
        }
        if model_type == "qwen3" {
            for name in ["q_norm", "k_norm"] {
                shapes.push((format!("model.layers.{layer}.self_attn.{name}.weight"), vec![6]));
            }
        }
    }
    let tensor =
        |(seed, (name, shape)): (usize, (String, Vec<usize>))| (name, Tensor::random(&shape, 1000 + seed as u32));
    shapes.into_iter().enumerate().map(tensor).collect()
}

pub fn base_config(model_type: &str, tied: bool) -> Value {
    json!({"model_type": model_type, "hidden_size": HIDDEN, "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": FEED,
        "tie_word_embeddings": tied})
}

pub fn write_base(dir: &Path, model_type: &str, tied: bool, biased: bool) {
    std::fs::write(dir.join("config.json"), base_config(model_type, tied).to_string()).unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    std::fs::write(dir.join("model.safetensors"), safetensors(&base_tensors(model_type, tied, biased))).unwrap();
}

pub fn write_and_read(write: impl FnOnce(&Path)) -> Base {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    Base::read(dir.path()).unwrap()
}

pub fn parse(file: Vec<u8>) -> Result<Container, Refusal> {
    Container::parse(Bytes::from(file), &Limits::default())
}
