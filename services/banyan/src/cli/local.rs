//! Flags of the verbs that judge and score without a server: `inspect` and `score`.

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
    /// Weights that adapters bring; by default as the base's.
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub adapter_dtype: Option<DtypeArg>,
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
