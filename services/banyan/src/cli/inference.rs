//! Flags of `generate`, `chat` and `models`.

use std::path::PathBuf;

use clap::Args;
use domain::ModelName;

use super::ConnectionArgs;

const GENERATE_HELP: &str = "\
Examples:
  banyan generate --model demo/finance 'What does E-17 mean?'
  banyan generate --model base --temperature 0 --max-tokens 40 'Hello'
  banyan generate --model demo/legal --raw 'The contract says'
  banyan generate --model demo/legal@canary --seed 7 --logprobs 3 --json 'What does E-17 mean?'
  banyan generate --model demo/finance --json-schema answer.schema.json 'What does E-17 mean? Answer in JSON.'
  banyan generate --model demo/finance --regex '(yes|no)' 'Is E-17 a late fee?'
  echo 'What does E-17 mean?' | banyan generate --model demo/finance -

The PROMPT is sent as one chat message of the user, rendered with the model's own chat template.
With --raw it is sent as plain text that the model continues.";

/// Generate an answer and stream it to standard output.
#[derive(Args, Debug)]
#[command(after_help = GENERATE_HELP)]
pub struct GenerateArgs {
    /// `base`, `<tenant>/<adapter>`, `<tenant>/<adapter>@<alias>` or `<tenant>/<adapter>@sha256:<digest>`.
    #[arg(long, short, value_name = "MODEL")]
    pub model: ModelName,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Also report the n most likely tokens at each position (0 to 20); shown with --json.
    #[arg(long, value_name = "N")]
    pub logprobs: Option<u32>,

    #[command(flatten)]
    pub format: FormatArgs,

    /// Send PROMPT as plain text, without the chat template.
    #[arg(long)]
    pub raw: bool,

    /// A system message before PROMPT.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,

    /// Do not stop at the end-of-sequence token.
    #[arg(long, conflicts_with = "format")]
    pub ignore_eos: bool,

    /// Your own name for this request: while it is remembered, the same request with it gets the same answer, billed once.
    #[arg(long, value_name = "ID")]
    pub client_request_id: Option<String>,

    /// Requests with the same key get the same version of an alias that has a canary.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub routing_key: String,

    /// Print token usage and the receipt (which weights made the answer) on standard error.
    #[arg(long, short)]
    pub verbose: bool,

    /// What to answer; `-` reads standard input.
    #[arg(value_name = "PROMPT")]
    pub prompt: String,

    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// What form the answer must have; an answer that is cut at --max-tokens is only the beginning of it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Form of the answer")]
#[group(id = "format", multiple = false)]
pub struct FormatArgs {
    /// JSON that fits the JSON Schema in FILE.
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,

    /// Any JSON object.
    #[arg(long)]
    pub json_object: bool,

    /// Text that the regular expression matches as a whole.
    #[arg(long, value_name = "RE")]
    pub regex: Option<String>,

    /// Text of the Lark grammar in FILE.
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
}

/// How tokens are drawn; what is not given is the server's default.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Most tokens to generate.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,

    /// 0 always takes the most likely token; higher is more varied.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,

    /// Keep the smallest set of tokens whose probability reaches this.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,

    /// Keep the k most likely tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,

    /// Drop tokens less likely than this share of the most likely one.
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,

    /// Above 1 makes repetition of prompt and answer less likely.
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,

    /// Makes tokens that the answer already has less likely.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,

    /// Makes tokens less likely each time that the answer has them.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,

    /// Same seed, same request, same weights: same answer.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// End before this text appears; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

const CHAT_HELP: &str = "\
While chatting:
  /model NAME   go on with another model
  /new          forget the conversation
  /quit         leave (or Ctrl-D)";

/// Talk with a model, turn by turn.
#[derive(Args, Debug)]
#[command(after_help = CHAT_HELP)]
pub struct ChatArgs {
    /// `base` or `<tenant>/<adapter>[@…]`.
    #[arg(long, short, value_name = "MODEL")]
    pub model: ModelName,

    /// A system message before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// List the models that the key may use.
#[derive(Args, Debug)]
pub struct ModelsArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
}
