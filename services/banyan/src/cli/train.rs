//! Flags of `train`: an adapter from a dataset version, without a server.

use std::path::PathBuf;

use clap::Args;

const HELP: &str = "\
DATASET is a version that `banyan dataset check --out` wrote. Hyper-parameters are chosen by the size of
base and data; whatever is given here goes before. What is killed goes on where it was when the same
command is given again, to the same adapter.

Examples:
  banyan dataset check faq.csv --map prompt=question,completion=answer --out faq-1
  banyan train faq-1 --out faq-lora
  banyan eval faq-1 --candidate faq-lora
  banyan adapter push faq-lora --tenant acme --name faq --alias live

The adapter is plain PEFT: adapter_config.json and adapter_model.safetensors.";

/// Train an adapter on a dataset version, without a server.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct TrainArgs {
    /// Folder of the dataset version.
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,
    /// Write the adapter into this folder; until it is done, the checkpoint.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder of the base checkpoint; the bundled one by default.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// How the adapter names its base; by default the bundled base's name, or its folder's.
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Conversations of what the base can do, mixed in so that it is not forgotten; the bundled base brings its own.
    /// `none` leaves them out.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Rank of the low-rank changes.
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// Numerator of their scale; twice the rank by default.
    #[arg(long, value_name = "ALPHA")]
    pub alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank) instead of alpha / rank.
    #[arg(long)]
    pub rslora: bool,
    /// Modules to change.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub targets: Option<Vec<String>>,
    /// The highest learning rate.
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// Rounds over the training side.
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Tokens of one step, at least.
    #[arg(long, value_name = "N")]
    pub step_tokens: Option<usize>,
    /// Of the first factors, and of the order of the rows.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}
