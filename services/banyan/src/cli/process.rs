//! Flags of the verbs that start servers: `up`, `gateway` and `worker`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{DataArgs, DtypeArg};

const UP_HELP: &str = "\
The first start makes the data directory: embedded PostgreSQL, generated secrets, the bundled
industry models as adapters of the tenant `demo`, and an API key in DIR/client.toml, where the
client verbs find it. Every later start finds all of it again. Ctrl-C lets running answers finish;
a second Ctrl-C stops at once.

Examples:
  banyan up
  banyan up --data /var/lib/banyan --listen 0.0.0.0:7070
  banyan up --base ~/checkpoints/Qwen3-0.6B --data ./qwen
  banyan up --postgres postgres://banyan@localhost/banyan --redis redis://localhost";

/// Start everything in this process.
#[derive(Args, Clone, Debug)]
#[command(after_help = UP_HELP)]
pub struct UpArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder of the base checkpoint (Hugging Face layout); the bundled demonstration model by default.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// A name by which adapters may state the base; then any other name is refused. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub base_name: Vec<String>,
    /// Folder whose subfolders are adapters to import on the first start; the bundled ones by default.
    #[arg(long, value_name = "DIR")]
    pub industries: Option<PathBuf>,
    /// Use this PostgreSQL (15 or later) instead of the embedded one.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Keep rate limits in this Redis instead of in this process.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Keep adapters here instead of in the data directory: a folder's file:// URL or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Public door.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Admin door.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    pub admin_listen: SocketAddr,
    /// Arithmetic of weights and activations.
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Any other setting of the worker, as in its configuration file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub worker_set: Vec<String>,
    /// Any other setting of the gateway, as in its configuration file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub gateway_set: Vec<String>,
    /// Seconds that running answers may take after the first Ctrl-C.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct LogArgs {
    /// What to log, such as `info` or `warn,engine=debug`.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormatArg>,
    /// Send traces to this OpenTelemetry collector (OTLP over gRPC).
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    Text,
    Json,
}

const GATEWAY_HELP: &str = "\
Settings come from the compiled-in defaults, then FILE, then the environment (BANYAN_GATEWAY_…),
then flags; the later wins.

Examples:
  banyan gateway --dump-config                          every setting, with its default
  banyan gateway --config gateway.toml
  banyan gateway --worker http://10.0.0.5:7080 --worker http://10.0.0.6:7080
  banyan gateway --worker dns:///workers.banyan.svc:7080 a worker at each address of a name

SIGTERM or Ctrl-C drains it: the doors take nothing new, and running answers may go on for listen.drain_ms.";

/// Start a gateway alone.
#[derive(Args, Clone, Debug)]
#[command(after_help = GATEWAY_HELP)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Public door.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Admin door.
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Without it, rate limits hold for this process alone.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Where adapters are kept: a folder's file:// URL or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// A worker's address, or a name in the DNS for many; may be given several times.
    #[arg(long, value_name = "URL")]
    pub worker: Vec<String>,
    /// Bring the database's schema up to date before listening.
    #[arg(long)]
    pub migrate: bool,
}

const WORKER_HELP: &str = "\
Settings come from the compiled-in defaults, then FILE, then the environment (BANYAN_WORKER_…),
then flags; the later wins.

Examples:
  banyan worker --dump-config                           every setting, with its default
  banyan worker --config worker.toml --base ./checkpoints/Qwen3-0.6B

SIGTERM or Ctrl-C drains it: it takes nothing new, and gateways ask other workers at once; running answers go on
for listen.drain_ms, and what runs then goes on at another worker. A second signal ends it at once.";

/// Start a worker alone.
#[derive(Args, Clone, Debug)]
#[command(after_help = WORKER_HELP)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Folder of the base checkpoint (Hugging Face layout).
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Where adapters are kept: a folder's file:// URL or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// How receipts name this worker; random by default.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeArg>,
}

#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any setting, by its dotted name in the file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the settings that would be used, without secrets, and stop.
    #[arg(long)]
    pub dump_config: bool,
    #[command(flatten)]
    pub log: LogArgs,
}
