//! What can be typed: verbs, flags and their help. It decides nothing; each verb's module acts on what was parsed.

mod admin;
mod audit;
mod bench;
mod connection;
mod dataset;
mod eval;
mod inference;
mod key;
mod ledger;
mod limits;
mod load;
mod local;
mod price;
mod process;
mod rollout;
mod train;

pub use admin::{
    AdapterArgs, AdapterVerb, KeyLimitArgs, LimitArgs, OutageArg, PlanArgs, PlanTermsArgs, PlanVerb, TenantArgs,
    TenantVerb,
};
pub use audit::{AuditArgs, AuditVerb, KnownEntry};
pub use bench::{
    BenchArgs, BenchBaseArgs, BenchMode, CeilingArgs, ClientsBenchArgs, ColdFromArgs, CpuArgs, FairnessBenchArgs,
    GatewayBenchArgs, LoadBenchArgs, MachineBenchArgs, PhaseArg, SpeedBenchArgs, StormBenchArgs, SwapBenchArgs,
};
pub use connection::{ConnectionArgs, DataArgs};
pub use dataset::{DatasetArgs, DatasetCheckArgs, DatasetShowArgs, DatasetVerb};
pub use eval::{EvalArgs, FigureArg};
pub use inference::{ChatArgs, FormatArgs, GenerateArgs, ModelsArgs, SamplingArgs};
pub use key::{KeyArgs, KeyFieldArgs, KeyNameArgs, KeyVerb, Period, RoleArg};
pub use ledger::{GroupByArg, InvoiceArgs, InvoiceFormatArg, LedgerArgs, LedgerVerb, UsageArgs};
pub use limits::{LimitsArgs, LimitsVerb};
pub use load::{BareRelayArgs, LoadArgs, LoadCase};
pub use local::{DtypeArg, InspectArgs, ScoreArgs};
pub use price::{PriceArgs, PriceVerb, TokenPriceArgs};
pub use process::{ConfigArgs, GatewayArgs, LogArgs, LogFormatArg, UpArgs, WorkerArgs};
pub use rollout::{
    AliasArgs, CanaryArgs, ChangeArgs, EvaluateArgs, PinArgs, PinVerb, PromoteArgs, RetireArgs, RolloutArgs,
    ScheduleAddArgs, ScheduleArgs, ScheduleVerb, ShadowArgs, ShadowVerb, VersionArgs,
};
pub use train::TrainArgs;

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Try it:
  banyan up                                            start everything on this machine
  banyan models                                        in a second terminal, same directory
  banyan generate --model demo/finance 'What does E-17 mean?'
  banyan generate --model demo/legal   'What does E-17 mean?'

Serve another base model:
  banyan up --base ~/checkpoints/Qwen3-0.6B            any Llama, Mistral, Qwen2 or Qwen3 checkpoint

Exit codes:
  0  done
  1  refused or failed; every reason is printed
  2  wrong usage
  3  the server cannot be reached
  4  the key or token is missing, unknown or not allowed to do this
  5  refused for now (rate limit, full queue, stopping server): try again later
  130  stopped by Ctrl-C";

/// One base model, many industry models: a multi-tenant LoRA serving platform in one command.
#[derive(Debug, Parser)]
#[command(name = "banyan", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,

    /// Print JSON instead of text: data on standard output, faults on standard error.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start everything in this process: worker, gateway, embedded PostgreSQL, demo models.
    Up(UpArgs),
    /// Start a gateway alone: the public and the admin door.
    Gateway(GatewayArgs),
    /// Start a worker alone: the engine behind a gateway.
    Worker(WorkerArgs),
    /// Generate an answer and stream it to standard output.
    Generate(GenerateArgs),
    /// Talk with a model, turn by turn.
    Chat(ChatArgs),
    /// List the models that the key may use.
    Models(ModelsArgs),
    /// Create, list, show, change and delete plans: limits and parts that tenants share.
    Plan(PlanArgs),
    /// Set and list what tokens cost.
    Price(PriceArgs),
    /// Sum what a tenant has used and what it cost, by day, month, model or key.
    Usage(UsageArgs),
    /// Print a tenant's invoice for a month.
    Invoice(InvoiceArgs),
    /// List the ledger's entries, and compare it with everything that counts beside it.
    Ledger(LedgerArgs),
    /// Create, list, show, change and delete tenants.
    Tenant(TenantArgs),
    /// Create, list, show, change, rotate and revoke API keys.
    Key(KeyArgs),
    /// List, export and verify the audit trail.
    Audit(AuditArgs),
    /// Upload adapter versions, show what was loaded, lead aliases from one version to the next and back.
    Adapter(AdapterArgs),
    /// Say which limit would decide a request now, and what other limits would have refused of the last hour's.
    Limits(LimitsArgs),
    /// Judge an adapter against a base model without a server: the load receipt, or every refusal.
    Inspect(InspectArgs),
    /// Print the log-probability of every token of a file's lines, through the serving engine.
    Score(ScoreArgs),
    /// Check training data row by row, and make immutable versions of it, without a server.
    Dataset(DatasetArgs),
    /// Train an adapter on a dataset version, without a server.
    Train(TrainArgs),
    /// Judge a candidate adapter against the current one and the base on held-out data, without a server.
    Eval(EvalArgs),
    /// Measure the engine and the platform: speed, load, hot swaps, and the machine's own limits.
    Bench(Box<BenchArgs>),
    /// Measure what the gateway adds to a request, with everything switched on.
    Load(LoadArgs),
    #[command(hide = true)]
    LoadBareRelay(BareRelayArgs),
}
