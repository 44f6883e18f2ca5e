//! Flags of `banyan dataset`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datasets::{Mapping, ShapeName};

#[derive(Args, Debug)]
pub struct DatasetArgs {
    #[command(subcommand)]
    pub verb: DatasetVerb,
}

#[derive(Debug, Subcommand)]
pub enum DatasetVerb {
    /// Account for every row of a file: accepted, or refused with line, reason and fix.
    Check(Box<DatasetCheckArgs>),
    /// Verify a version and say what is in it.
    Show(DatasetShowArgs),
}

const CHECK_HELP: &str = "\
FILE is JSON Lines (.jsonl), CSV (.csv, .tsv) or Parquet (.parquet). Its shape is found from the first
rows, or named:
  messages   {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, {\"role\": \"assistant\", \"content\": \"…\"}]}
             as OpenAI has them; \"weight\": 0 keeps an answer from being learned
  sharegpt   {\"conversations\": [{\"from\": \"human\", \"value\": \"…\"}, {\"from\": \"gpt\", \"value\": \"…\"}]}
  alpaca     {\"instruction\": \"…\", \"input\": \"…\", \"output\": \"…\", \"system\": \"…\", \"history\": [[\"…\", \"…\"]]}
  prompt     {\"prompt\": \"…\", \"completion\": \"…\"}
  label      {\"text\": \"…\", \"label\": \"…\"}
  text       {\"text\": \"…\"}, of which everything is learned (continued pre-training)
Columns of other names need no rewriting: --map prompt=question,completion=answer
Columns that the shape does not read are ignored and counted; tools and images are refused.

Examples:
  banyan dataset check tickets.jsonl
  banyan dataset check faq.csv --map prompt=question,completion=answer --group customer --mask
  banyan dataset check mails.parquet --shape label --label-set complaint,order,other --account rows.jsonl
  banyan dataset check train.jsonl --held-out eval.jsonl --out ./claims-1
  banyan dataset check train.jsonl --strict --json | jq .codes

Exit code 1: no row was accepted; with --strict also when any was refused.";

/// Account for every row of a file.
#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub struct DatasetCheckArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Rows that judge the result; a row of FILE that asks the same is refused.
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// messages, sharegpt, alpaca, prompt, label or text; by default found from the first rows.
    #[arg(long)]
    pub shape: Option<ShapeName>,
    /// Which column holds which field.
    #[arg(long, value_name = "FIELD=COLUMN,…", default_value = "", hide_default_value = true)]
    pub map: Mapping,
    /// The labels that rows may have; by default whatever they have.
    #[arg(long, value_name = "LABEL,…", value_delimiter = ',')]
    pub label_set: Option<Vec<String>>,
    /// Rows with the same value in this column stay on one side of the split; by default rows with the same question.
    #[arg(long, value_name = "COLUMN")]
    pub group: Option<String>,
    /// Replace secrets and personal data by placeholders such as [EMAIL].
    #[arg(long)]
    pub mask: bool,
    /// Share of the groups that are held out; 0 with --held-out.
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    pub held_out_percent: u8,
    /// Share of the groups that tell training when to stop.
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    pub validation_percent: u8,
    /// Draws the groups of each side.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub split_seed: u64,
    /// Folder of the base checkpoint (Hugging Face layout), whose template and tokenizer count; by default the bundled one.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Most tokens of a conversation, template included; by default the base's context.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens_max: Option<u64>,
    /// Write the accepted rows as a version into this new folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write what became of each row into this file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub account: Option<PathBuf>,
    /// Exit with code 1 when any row is refused, and write no version then.
    #[arg(long)]
    pub strict: bool,
}

/// Verify a version and say what is in it.
#[derive(Args, Debug)]
pub struct DatasetShowArgs {
    /// Folder that `banyan dataset check --out` wrote.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
