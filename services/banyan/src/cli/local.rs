//! Flags of the verbs that need no server: `inspect`, `score` and `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const INSPECT_HELP: &str = "\
Examples:
  banyan inspect ./claims-lora --base ./checkpoints/Qwen3-0.6B
  banyan inspect ./claims-lora --base ./checkpoints/Qwen3-0.6B --json | jq .refusals

Exit code 0: accepted, the receipt is printed. Exit code 1: refused, every reason is printed.";

/// Judge an adapter against a base model without a server.
#[derive(Args, Debug)]
#[command(after_help = INSPECT_HELP)]
pub struct InspectArgs {
    /// Folder with adapter_config.json and adapter_model.safetensors (PEFT layout).
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Folder of the base checkpoint (Hugging Face layout).
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// A name by which adapters may state this base; then any other name is refused. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub base_name: Vec<String>,
}

const SCORE_HELP: &str = "\
Each line of FILE is one of
  {\"tokens\": [1, 2, 3]}
      token ids, taken as they are
  {\"text\": \"…\"}
      encoded as a plain prompt, with the special tokens that the checkpoint's tokenizer adds
      (as transformers' tokenizer(text))
  {\"prompt\": \"…\", \"completion\": \"…\"}
      encoded as the one text prompt + completion; the completion begins at the first token that
      differs from those of the prompt alone

One JSON object comes out for each line, in order, and a last one:
  {\"line\": 1, \"logprobs\": […]}
      natural logarithm, one number for each token after the first; with prompt and completion also
      `completion_start`, the index in it of the first completion token
  {\"perplexity\": …, \"tokens\": …}
      exp(-mean) over all numbers above; with prompt/completion lines also `completion_perplexity`
      and `completion_tokens`, over their completions alone

--adapters FILE names an adapter for each line of the input, as a JSON array or one per line: a
folder (from the current directory), or `base` (also null or an empty line) for the base alone.
So one run scores a mixed batch.

Examples:
  banyan score --base ./base lines.jsonl
  banyan score --base ./base --adapter ./claims-lora --dtype f32 lines.jsonl
  banyan score --base ./base --adapters which.txt lines.jsonl";

/// Print the log-probability of every token of a file's lines, through the serving engine.
#[derive(Args, Debug)]
#[command(after_help = SCORE_HELP)]
pub struct ScoreArgs {
    /// Lines of JSON; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder of the base checkpoint (Hugging Face layout).
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// Score every line with this adapter (folder in PEFT layout).
    #[arg(long, value_name = "DIR", conflicts_with = "adapters")]
    pub adapter: Option<PathBuf>,
    /// One adapter folder (or `base`) for each line.
    #[arg(long, value_name = "FILE")]
    pub adapters: Option<PathBuf>,
    /// Arithmetic of weights and activations.
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: DtypeArg,
    /// Most lines that run in one batch.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// The reference: everything in 32 bits.
    F32,
    /// Weights and what enters a product in 16 bits.
    Bf16,
    /// Weights in 8 bits, in groups of 64: half the memory of bf16.
    Int8,
}

const BENCH_HELP: &str = "\
Measures tokens per second of the serving engine: prefill and decode, for batches of 1, 8 and 16
sequences with 0, 1 and 16 distinct adapters (random, rank 16, every linear layer), given out in
turn. Medians of several runs.

Examples:
  banyan bench                                        the bundled base model
  banyan bench --base ./checkpoints/Qwen3-0.6B
  banyan bench --shape hidden=1024,layers=28,heads=16,kv-heads=8,head=128,ff=3072,vocab=32000
  banyan bench --json > baseline.json";

/// Measure prefill and decode speed for batches with none, one and many adapters.
#[derive(Args, Debug)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    /// Folder of the base checkpoint; the bundled one by default.
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    pub base: Option<PathBuf>,
    /// Random weights of this shape instead of a checkpoint.
    #[arg(long, value_name = "KEY=N,…")]
    pub shape: Option<ShapeArgs>,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub prompt_tokens: u32,
    /// Tokens generated for each sequence.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub decode_tokens: u32,
    /// Runs of each case; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
}

/// Sizes of a Qwen3-shaped model with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeArgs {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head: usize,
    pub ff: usize,
    pub vocab: usize,
}

impl std::str::FromStr for ShapeArgs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shape = Self { hidden: 256, layers: 6, heads: 4, kv_heads: 2, head: 64, ff: 704, vocab: 4096 };
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not KEY=N"))?;
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
            if value == 0 || value > 1 << 20 {
                return Err(format!("{key} must be 1 to {}", 1 << 20));
            }
            *field = value;
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            return Err("heads must be a multiple of kv-heads".into());
        }
        if !shape.head.is_multiple_of(2) {
            return Err("head must be even".into());
        }
        Ok(shape)
    }
}
