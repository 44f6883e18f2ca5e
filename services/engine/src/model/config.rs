//! `config.json` of a checkpoint, as transformers 4 and 5 write it. What we do not implement is refused, never
//! guessed; what transformers itself ignores for these families is ignored here too.

mod fields;

use std::path::{Path, PathBuf};

use super::rope::Rope;
pub(crate) use fields::Fields;

/// The shape of a model and the constants of its mathematics.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f32,
    /// The output layer is the input embedding.
    pub tied_embeddings: bool,
    /// Positions that the model is made for: `max_position_embeddings`, stretched where its RoPE scaling stretches it.
    /// [`super::Model::forward`] itself takes any position.
    pub context_length: usize,
    pub bos_token_id: Option<u32>,
    /// From `generation_config.json` where it says so, else from `config.json`.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// The widest look-back of any layer in tokens, the token itself included; `None` if a layer looks back without limit.
    pub sliding_window: Option<usize>,
    /// Biases that the family's layers have.
    pub biases: Biases,
    /// Queries and keys are normed by head (Qwen3).
    pub head_norms: bool,
    /// One entry for each layer.
    pub(crate) attention: Vec<LayerAttention>,
    pub(crate) ropes: Vec<Rope>,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    pub qkv: bool,
    pub o: bool,
    pub mlp: bool,
}

/// What differs by layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerAttention {
    pub window: Option<usize>,
    /// Index into [`ModelConfig::ropes`].
    pub rope: usize,
}

/// Why a `config.json` is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{file}: {message}")]
    Refused { file: String, message: String },
}

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

impl ModelConfig {
    /// Reads `config.json` and, if present, `generation_config.json` of `dir`.
    pub fn read(dir: &Path) -> Result<ModelConfig, ConfigError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| ConfigError::Io { path, source })
        };
        let generation = if dir.join(GENERATION).is_file() { Some(read(GENERATION)?) } else { None };
        ModelConfig::parse(&read(CONFIG)?, generation.as_deref())
    }

    /// From the text of the two files.
    pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<ModelConfig, ConfigError> {
        let refused = |file: &str| {
            let file = file.to_owned();
            |message| ConfigError::Refused { file, message }
        };
        let fields = Fields::parse(config).map_err(refused(CONFIG))?;
        let mut config = from_fields(&fields).map_err(refused(CONFIG))?;
        if let Some(text) = generation {
            let fields = Fields::parse(text).map_err(refused(GENERATION))?;
            config.apply_generation(&fields).map_err(refused(GENERATION))?;
        }
        Ok(config)
    }

    fn apply_generation(&mut self, fields: &Fields) -> Result<(), String> {
        let eos = fields.token_ids("eos_token_id")?;
        if !eos.is_empty() {
            self.eos_token_ids = eos;
        }
        self.bos_token_id = fields.token_ids("bos_token_id")?.first().copied().or(self.bos_token_id);
        self.pad_token_id = fields.token_ids("pad_token_id")?.first().copied().or(self.pad_token_id);
        Ok(())
    }
}

fn from_fields(fields: &Fields) -> Result<ModelConfig, String> {
    let model_type = fields.text("model_type")?.ok_or("model_type is missing")?;
    let family = Family::of(model_type)?;
    refuse_unsupported(fields)?;

    let hidden_size = fields.size("hidden_size")?;
    let layers = fields.size("num_hidden_layers")?;
    let heads = fields.size("num_attention_heads")?;
    let kv_heads = fields.optional_size("num_key_value_heads")?.unwrap_or(match family {
        Family::Mistral if !fields.has("num_key_value_heads") => 8,
        _ => heads,
    });
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} attention heads cannot share {kv_heads} key-value heads"));
    }
    let head_dim = match fields.optional_size("head_dim")? {
        Some(dim) => dim,
        None if family == Family::Qwen3 && !fields.has("head_dim") => 128,
        None => hidden_size / heads,
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(format!("head_dim is {head_dim}; rotary embedding needs an even one"));
    }
    let attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    let biases = match family {
        Family::Llama => {
            Biases { qkv: attention_bias, o: attention_bias, mlp: fields.flag("mlp_bias")?.unwrap_or(false) }
        }
        Family::Mistral => Biases::default(),
        Family::Qwen2 => Biases { qkv: true, ..Biases::default() },
        Family::Qwen3 => Biases { qkv: attention_bias, o: attention_bias, mlp: false },
    };
    let positions = fields.size("max_position_embeddings")?;
    let layer_types = layer_types(fields, family, layers)?;
    let (ropes, rope_of) = Rope::from_fields(fields, &layer_types, head_dim, positions)?;
    let window = window(fields, family)?;
    let mut attention = Vec::with_capacity(layers);
    for (layer, kind) in layer_types.iter().enumerate() {
        let window = match (family, kind.as_str()) {
            (Family::Llama, _) | (Family::Qwen2 | Family::Qwen3, "full_attention") => None,
            (Family::Mistral, _) => window,
            (_, "sliding_attention") => Some(window.ok_or("layer_types says sliding_attention, but no window is set")?),
            (_, other) => return Err(format!("layer_types: {other:?} is not supported")),
        };
        attention.push(LayerAttention { window, rope: rope_of[layer] });
    }
    let sliding_window =
        attention.iter().map(|layer| layer.window).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten();
    let (bos_default, eos_default) = match family {
        Family::Llama | Family::Mistral => (Some(1), vec![2]),
        _ => (None, vec![]),
    };
    let ids = |key: &str, default: Vec<u32>| {
        if fields.has(key) { fields.token_ids(key) } else { Ok(default) }
    };
    Ok(ModelConfig {
        model_type: model_type.to_owned(),
        vocab_size: fields.size("vocab_size")?,
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        tied_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        context_length: ropes.iter().map(Rope::context_length).min().unwrap_or(positions),
        bos_token_id: ids("bos_token_id", bos_default.into_iter().collect())?.first().copied(),
        eos_token_ids: ids("eos_token_id", eos_default)?,
        pad_token_id: fields.token_ids("pad_token_id")?.first().copied(),
        sliding_window,
        biases,
        head_norms: family == Family::Qwen3,
        attention,
        ropes,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Family {
    fn of(model_type: &str) -> Result<Family, String> {
        match model_type {
            "llama" => Ok(Family::Llama),
            "mistral" => Ok(Family::Mistral),
            "qwen2" => Ok(Family::Qwen2),
            "qwen3" => Ok(Family::Qwen3),
            other => Err(format!("model_type {other:?} is not supported; llama, mistral, qwen2 and qwen3 are")),
        }
    }
}

/// Settings that transformers acts upon for these families and we do not.
fn refuse_unsupported(fields: &Fields) -> Result<(), String> {
    match fields.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return Err(format!("hidden_act {other:?} is not supported; silu is")),
    }
    if fields.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err("partial_rotary_factor other than 1 is not supported".into());
    }
    if fields.flag("is_causal")? == Some(false) || fields.flag("use_bidirectional_attention")? == Some(true) {
        return Err("attention that is not causal is not supported".into());
    }
    for key in ["quantization_config", "per_layer_config"] {
        if fields.has_value(key) {
            return Err(format!("{key} is not supported"));
        }
    }
    Ok(())
}

/// The window in tokens if the config sets one: for Mistral whenever it is not null, for Qwen only if switched on.
fn window(fields: &Fields, family: Family) -> Result<Option<usize>, String> {
    let window = if fields.has("sliding_window") { fields.optional_size("sliding_window")? } else { Some(4096) };
    if window == Some(0) {
        return Err("sliding_window is 0".into());
    }
    match family {
        Family::Llama => Ok(None),
        Family::Mistral => Ok(window),
        Family::Qwen2 | Family::Qwen3 => Ok(window.filter(|_| fields.flag("use_sliding_window") == Ok(Some(true)))),
    }
}

/// `layer_types`, or what transformers derives where it is missing.
fn layer_types(fields: &Fields, family: Family, layers: usize) -> Result<Vec<String>, String> {
    if let Some(types) = fields.texts("layer_types")? {
        if types.len() != layers {
            return Err(format!("layer_types names {} layers, num_hidden_layers says {layers}", types.len()));
        }
        return Ok(types);
    }
    let slides = matches!(family, Family::Qwen2 | Family::Qwen3) && window(fields, family)?.is_some();
    let first = fields.optional_size("max_window_layers")?.unwrap_or(28);
    let kind = |layer| if slides && layer >= first { "sliding_attention" } else { "full_attention" };
    Ok((0..layers).map(|layer| kind(layer).to_owned()).collect())
}

#[cfg(test)]
mod tests;
