//! What is measured: a base model, loaded or random, and an engine around it.

use std::{fs, iter, sync::Arc};

use engine::{
    Engine, EngineConfig, EngineHandle, FairnessConfig,
    model::{BLOCK_TOKENS, CpuConfig, Model, ModelOptions},
    text::TextModel,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{pool::Pool, shape::Shape};
use crate::{
    cli::{BenchBaseArgs, CpuArgs, DtypeArg},
    failure::Failure,
    local_base::Checkpoint,
    process::Settings,
    score,
    up::shipped,
};

/// The tokenizer's file in a checkpoint.
pub const TOKENIZER: &str = "tokenizer.json";

/// A base model and its text side.
pub struct Subject {
    pub model: Arc<Model>,
    text: TextModel,
}

/// What the engine must have room for.
pub struct Room {
    pub sequences: usize,
    pub tokens_each: u32,
    /// Sequences that may wait besides.
    pub waiting: usize,
    /// Keep at least these many bytes of adapters; none: the serving default.
    pub adapter_bytes: Option<u64>,
}

impl Subject {
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn load(args: &BenchBaseArgs, dtype: DtypeArg) -> Result<Self, Failure> {
        let options = ModelOptions {
            cpu: cpu_config(&args.cpu)?,
            adapter_dtype: args.adapter_dtype.map(score::dtype),
            ..ModelOptions::new(score::dtype(dtype))
        };
        if let Some(shape) = &args.shape {
            let config = shape.config().map_err(|error| Failure::Usage(error.to_string()))?;
            let model = Model::random(config, &options, 0).map_err(|error| Failure::Failed(error.to_string()))?;
            return Ok(Self { model: Arc::new(model), text: words(shape)? });
        }
        let dir = args.base.clone().unwrap_or_else(shipped::base);
        let checkpoint = Checkpoint::open(&dir)?;
        let model = Model::load(checkpoint.dir(), &options)
            .map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))?;
        Ok(Self { model: Arc::new(model), text: checkpoint.text().clone() })
    }

    /// An engine with the serving defaults, `room`, and what `--set` says. There is no prefix cache, which would hide
    /// the prefill, and no guessing of tokens, which would hide what a step costs.
    ///
    /// # Errors
    /// Lengths that do not fit the model, or a setting that makes no sense.
    pub fn start(&self, args: &BenchBaseArgs, room: &Room, source: Pool) -> Result<EngineHandle, Failure> {
        let context = self.model.config().context_length;
        if room.tokens_each as usize > context {
            return Err(Failure::Usage(format!("prompt plus answer must fit the context of {context} tokens")));
        }
        let default = EngineConfig::default();
        let blocks = (room.tokens_each as usize).div_ceil(BLOCK_TOKENS) + 1;
        let waiting_max = default.waiting_max.max(room.waiting);
        // What is measured may come from one tenant.
        let fairness = FairnessConfig { tenant_waiting_max: waiting_max, ..default.fairness.clone() };
        let config = EngineConfig {
            kv_bytes_max: default.kv_bytes_max.max((room.sequences * blocks * self.model.block_bytes()) as u64),
            prefix_cache: false,
            speculative_tokens_max: 0,
            running_max: default.running_max.max(room.sequences),
            waiting_max,
            fairness,
            adapter_bytes_max: room.adapter_bytes.unwrap_or(default.adapter_bytes_max),
            ..default
        };
        let config = with_settings(config, &args.set, "--set")?;
        Engine::start(Arc::clone(&self.model), self.text.clone(), config, Box::new(source))
            .map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// What is measured, for people.
pub fn name(args: &BenchBaseArgs) -> String {
    match (&args.shape, &args.base) {
        (Some(shape), _) => format!("{} (random weights)", shape.name),
        (None, Some(dir)) => dir.display().to_string(),
        (None, None) => "bundled".to_owned(),
    }
}

/// Checks what every mode asks for.
///
/// # Errors
/// A length of zero.
pub fn check_lengths(prompt_tokens: u32, decode_tokens: u32) -> Result<u32, Failure> {
    if prompt_tokens == 0 || decode_tokens < 2 {
        return Err(Failure::Usage("--prompt-tokens must be at least 1, --decode-tokens at least 2".to_owned()));
    }
    prompt_tokens.checked_add(decode_tokens).ok_or_else(|| Failure::Usage("too many tokens".to_owned()))
}

/// The prompt of a turn: spread over the vocabulary, and different for every turn.
pub fn prompt(turn: usize, tokens: u32, vocab_size: usize) -> Vec<u32> {
    (0..tokens as usize).map(|at| ((turn * 7919 + at * 104_729 + 17) % vocab_size) as u32).collect()
}

/// The processor as the flags want it used.
///
/// # Errors
/// A setting that makes no sense.
pub fn cpu_config(args: &CpuArgs) -> Result<CpuConfig, Failure> {
    with_settings(CpuConfig::default(), &args.cpu, "--cpu")
}

/// The text side of a shape, as [`TOKENIZER`] says it: a byte-level tokenizer as the Qwen family's, of the shape's
/// vocabulary. Its first entries are the printable characters, so that text becomes tokens; the others are plain words, so
/// that tokens become text as they do with a real model.
pub fn tokenizer_json(shape: &Shape) -> String {
    /// A space in the byte-level alphabet.
    const SPACE: &str = "\u{120}";
    let characters = ('!'..='~').map(String::from).chain([SPACE.to_owned()]);
    let entries = characters.map(Some).chain(iter::repeat(None)).zip(0..shape.vocab());
    let vocab: Map<String, Value> =
        entries.map(|(character, id)| (character.unwrap_or_else(|| format!("word{id}")), id.into())).collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    tokenizer.to_string()
}

fn with_settings<T: Serialize + DeserializeOwned>(config: T, pairs: &[String], flag: &str) -> Result<T, Failure> {
    if pairs.is_empty() {
        return Ok(config);
    }
    let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("{flag}: {error}"));
    let mut table = toml::Table::try_from(&config).map_err(|error| wrong(&error))?;
    overlay(&mut table, Settings::from_pairs(pairs)?.table());
    table.try_into().map_err(|error| wrong(&error))
}

fn overlay(table: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => overlay(inner, over),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

fn words(shape: &Shape) -> Result<TextModel, Failure> {
    let dir = TempDir::with_prefix("banyan-bench-")?;
    fs::write(dir.path().join(TOKENIZER), tokenizer_json(shape))?;
    TextModel::load(dir.path()).map_err(|error| Failure::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use engine::model::Isa;

    use super::*;

    #[test]
    fn settings_change_what_they_name_and_nothing_else() {
        let pairs = ["running_max=3".to_owned(), "adapter.rank_max=7".to_owned()];
        let config = with_settings(EngineConfig::default(), &pairs, "--set").expect("both exist");
        let mut wanted = EngineConfig { running_max: 3, ..EngineConfig::default() };
        wanted.adapter.rank_max = 7;
        assert_eq!(config, wanted);
        assert!(with_settings(EngineConfig::default(), &["no_such=1".to_owned()], "--set").is_err());
    }

    #[test]
    fn the_processor_is_used_as_the_flags_say() {
        let args = |pairs: &[&str]| CpuArgs { cpu: pairs.iter().map(ToString::to_string).collect() };
        let config = cpu_config(&args(&["threads=1", "isa=portable"])).expect("both exist");
        assert_eq!((config.threads, config.isa), (1, Some(Isa::Portable)));
        assert!(cpu_config(&args(&["isa=abacus"])).is_err());
    }

    #[test]
    fn prompts_of_different_turns_differ() {
        let (first, second) = (prompt(0, 16, 4096), prompt(1, 16, 4096));
        assert!(first != second && first.len() == 16 && first.iter().chain(&second).all(|id| *id < 4096));
        assert_eq!(first, prompt(0, 16, 4096));
    }

    #[test]
    fn every_token_of_a_shape_has_a_text() {
        let shape: Shape = "vocab=300".parse().expect("shape");
        let text = words(&shape).expect("tokenizer");
        assert_eq!(text.token_text(299), "word299");
        let ids = text.encode("E-17, please").expect("known characters");
        assert_eq!(text.decode(&ids).expect("known"), "E-17, please");
    }
}
