//! Flags of `usage`, `invoice` and `ledger`.

use clap::{Args, Subcommand, ValueEnum};
use domain::Slug;
use time::{Date, OffsetDateTime, format_description::well_known::Iso8601};

use super::ConnectionArgs;

const USAGE_HELP: &str = "\
Sums over the ledger's posted entries: requests, tokens, and what they cost in micro-units.

Examples:
  banyan usage acme                                     everything until now, by model
  banyan usage acme --by day --by key --from 2026-11-01
  banyan usage acme --by month --json";

#[derive(Args, Debug)]
#[command(after_help = USAGE_HELP)]
pub struct UsageArgs {
    #[arg(value_name = "TENANT")]
    pub tenant: Slug,
    /// What to divide by; may be given several times.
    #[arg(long, value_enum, default_values = ["model"])]
    pub by: Vec<GroupByArg>,
    /// From this day of UTC on, such as 2026-11-01.
    #[arg(long, value_name = "DATE", value_parser = day)]
    pub from: Option<OffsetDateTime>,
    /// Before this day of UTC.
    #[arg(long, value_name = "DATE", value_parser = day)]
    pub to: Option<OffsetDateTime>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupByArg {
    Day,
    Month,
    Model,
    Key,
}

const INVOICE_HELP: &str = "\
Lines by model (and by price, where it changed within the month). The total is the sum of the ledger's
posted entries of the month, exactly: each request's cost is rounded up to a whole micro-unit once.

Examples:
  banyan invoice acme --month 2026-11
  banyan invoice acme --month 2026-11 --format csv > acme-2026-11.csv";

#[derive(Args, Debug)]
#[command(after_help = INVOICE_HELP)]
pub struct InvoiceArgs {
    #[arg(value_name = "TENANT")]
    pub tenant: Slug,
    /// Of UTC, such as 2026-11.
    #[arg(long, value_name = "MONTH")]
    pub month: String,
    /// How to print it; --json is the same as `json`.
    #[arg(long, value_enum, default_value = "table")]
    pub format: InvoiceFormatArg,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InvoiceFormatArg {
    Table,
    Csv,
    Json,
}

const LEDGER_HELP: &str = "\
Every request has a `reserved` entry, written before it runs, and one that ends it: `posted` (charged),
`voided` (nothing ran) or `expired` (nobody knows what ran; not charged).

Examples:
  banyan ledger show acme
  banyan ledger reconcile        exit code 1 when there is a difference";

#[derive(Args, Debug)]
#[command(after_help = LEDGER_HELP)]
pub struct LedgerArgs {
    #[command(subcommand)]
    pub verb: LedgerVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum LedgerVerb {
    /// List a tenant's entries, the newest request first.
    Show {
        #[arg(value_name = "TENANT")]
        tenant: Slug,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Compare the ledger with everything that counts beside it.
    Reconcile,
}

fn day(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    Date::parse(text, &Iso8601::DATE).map(|date| date.midnight().assume_utc())
}
