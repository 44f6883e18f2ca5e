//! Flags of `banyan load`.

use clap::Args;

const LOAD_HELP: &str = "\
Starts a gateway as a process of its own, in front of a worker that answers at once from a script,
and sends requests at constant average rates: to the worker directly and through the gateway, in
turn. What the gateway adds is the difference. Every request is authenticated, reserved over all
limits, written to the ledger and traced; nothing is left out.

Cases:
  bare     a relay in the gateway's place that governs nothing: what of the cost any gateway has
  local    limits in the gateway's memory, as with `banyan up`
  redis    limits in Redis, shared by all gateways

Without --postgres the embedded database is used, which this process runs; give a server's URL for
figures that mean something. The case `redis` needs --redis.

Examples:
  banyan load --postgres postgres://localhost/load --redis redis://localhost
  banyan load --cases local --rates 200 --seconds 2
  banyan load --postgres … --redis … --cases redis --rates 1000 --soak-minutes 10";

/// What the gateway costs with everything switched on.
#[derive(Args, Clone, Debug)]
#[command(after_help = LOAD_HELP)]
pub struct LoadArgs {
    /// A database that the gateway may bring up to date and write into.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// What to measure; all that can be by default.
    #[arg(long, value_enum, value_name = "CASE,…", value_delimiter = ',')]
    pub cases: Vec<LoadCase>,
    /// Requests per second, one row for each.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "100,250,500,1000,2000")]
    pub rates: Vec<u32>,
    /// How long each row is measured, directly and through the gateway.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Turns of each row; their median is printed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    /// Connections of the clients, taken in turn.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub connections: u32,
    /// API keys, each of a tenant of its own, taken in turn.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub tenants: u32,
    /// Messages of each answer, one token in each.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub messages: u32,
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub prompt_tokens: u32,
    /// Afterwards, minutes at the last rate, with the gateway's memory at their begin and end.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1440))]
    pub soak_minutes: u32,
    /// Any other setting of the gateway, as in its configuration file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What `banyan load` starts in the gateway's place.
#[derive(Args, Clone, Debug)]
pub struct BareRelayArgs {
    #[arg(long)]
    pub listen: String,
    #[arg(long)]
    pub worker: String,
    #[arg(long)]
    pub base_digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadCase {
    Bare,
    Local,
    Redis,
}
