//! Flags of `price`.

use clap::{Args, Subcommand};
use domain::Slug;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::ConnectionArgs;

const PRICE_HELP: &str = "\
Prices are in micro-units (millionths) of your currency for a million tokens: 0.15 for a million is
150000. A tenant's own list comes before the platform's, and a model's own price before `*`. What a
request costs is decided by the price that holds when it is let through.

Examples:
  banyan price set base --input 150000 --cached-input 15000 --output 600000
  banyan price set '*' --input 300000 --output 900000
  banyan price set acme/claims --tenant acme --input 200000 --output 700000
  banyan price list --tenant acme --history";

#[derive(Args, Debug)]
#[command(after_help = PRICE_HELP)]
pub struct PriceArgs {
    #[command(subcommand)]
    pub verb: PriceVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum PriceVerb {
    /// Give a model a price from now on, or from a time to come.
    Set {
        /// `base`, `<tenant>/<adapter>`, or `*` for every model without a price of its own.
        #[arg(value_name = "MODEL")]
        model: String,
        /// In this tenant's own list; the platform's by default.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        #[command(flatten)]
        price: TokenPriceArgs,
        /// From when it holds, such as 2027-01-01T00:00:00Z; now by default.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        effective: Option<OffsetDateTime>,
    },
    /// List the prices that hold or will hold.
    List {
        /// This tenant's own list; the platform's by default.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        /// Those too that hold no more.
        #[arg(long)]
        history: bool,
    },
}

/// Micro-units for a million tokens.
#[derive(Args, Clone, Copy, Debug)]
pub struct TokenPriceArgs {
    /// Of the prompt.
    #[arg(long, value_name = "MICROS")]
    pub input: u64,
    /// Of the prompt, where it came from the prefix cache; as --input by default.
    #[arg(long, value_name = "MICROS")]
    pub cached_input: Option<u64>,
    /// Of the answer.
    #[arg(long, value_name = "MICROS")]
    pub output: u64,
}

fn moment(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339)
}
