//! Flags of `eval`: the gate without a server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const HELP: &str = "\
HELD_OUT is a dataset version (`banyan dataset check --out`), whose held-out side is asked, or a file of
which each line is a conversation that ends with the expected answer:
  {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, {\"role\": \"assistant\", \"content\": \"…\"}]}

The candidate is promoted if, with the confidence asked for,
  - it is better than the base, and than --current, by the figure of --by: the lower bound of the gain is above zero;
  - it loses no more of the base's skills than --regression-max: the upper bound of the loss is below it;
  - no answer gives away a line of --secrets.

Examples:
  banyan eval held-out.jsonl --candidate ./claims-lora
  banyan eval held-out.jsonl --candidate ./claims-lora --current ./claims-lora-v1 --out report
  banyan eval labels.jsonl --candidate ./triage-lora --by macro-f1 --json | jq .decision

Exit code 0: promoted. Exit code 1: refused, the report says why.";

/// Judge a candidate adapter against the current one and the base on held-out data, without a server.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct EvalArgs {
    /// Conversations that no training has seen: a file, or the folder of a dataset version.
    #[arg(value_name = "HELD_OUT")]
    pub held_out: PathBuf,
    /// The adapter to judge (folder in PEFT layout).
    #[arg(long, value_name = "DIR")]
    pub candidate: PathBuf,
    /// The adapter that answers today.
    #[arg(long, value_name = "DIR")]
    pub current: Option<PathBuf>,
    /// Folder of the base checkpoint; the bundled one by default.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Conversations of what the base can do; the bundled base brings its own. `none` leaves them out.
    #[arg(long, value_name = "FILE")]
    pub skills: Option<PathBuf>,
    /// Texts that no answer may have in it, one a line.
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// By which figure the candidate must be better.
    #[arg(long, value_enum, default_value = "exact-match")]
    pub by: FigureArg,
    /// Fewer held-out items decide nothing.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub items_min: usize,
    /// Most that may be lost of the base's skills, as a share of exact answers.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub regression_max: f64,
    /// Of all intervals.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,
    /// Draws of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub draws: u32,
    /// Of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_max: u32,
    /// Questions that are answered at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
    /// Write report.json, report.txt and report.html into this folder. They hold the answers.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FigureArg {
    /// Share of answers that are the expected one.
    ExactMatch,
    /// Of labels as answers.
    MacroF1,
    /// Of the expected answers' tokens.
    LogLikelihood,
}
