//! Flags of `plan`, `tenant` and `adapter`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use domain::{ModelName, Slug};

use super::{
    CanaryArgs, ChangeArgs, ConnectionArgs, EvaluateArgs, PinArgs, PromoteArgs, RetireArgs, RolloutArgs, ScheduleArgs,
    ShadowArgs, VersionArgs,
};

const PLAN_HELP: &str = "\
A plan holds what tenants share: limits for those that have none of their own, their part in each
worker, and what becomes of their requests while Redis does not answer. `default` is the plan of
tenants that were given none.

Examples:
  banyan plan create gold --weight 4 --output-tokens-per-minute 200000
  banyan plan update default --requests-per-minute 60
  banyan tenant update acme --plan gold";

#[derive(Args, Debug)]
#[command(after_help = PLAN_HELP)]
pub struct PlanArgs {
    #[command(subcommand)]
    pub verb: PlanVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum PlanVerb {
    /// Create a plan.
    Create {
        /// 2 to 63 lower-case letters, digits and hyphens.
        #[arg(value_name = "PLAN")]
        plan: Slug,
        #[command(flatten)]
        terms: PlanTermsArgs,
    },
    /// List all plans.
    List,
    /// Show one plan.
    Show {
        #[arg(value_name = "PLAN")]
        plan: Slug,
    },
    /// Change what is given, for all tenants of the plan; the rest stays.
    Update {
        #[arg(value_name = "PLAN")]
        plan: Slug,
        #[command(flatten)]
        terms: PlanTermsArgs,
    },
    /// Delete a plan that no tenant has.
    Delete {
        #[arg(value_name = "PLAN")]
        plan: Slug,
    },
}

#[derive(Args, Clone, Debug, Default)]
pub struct PlanTermsArgs {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// What becomes of requests while the shared limits do not answer.
    #[arg(long, value_enum)]
    pub outage: Option<OutageArg>,
    #[command(flatten)]
    pub share: ShareArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutageArg {
    /// They are refused.
    Closed,
    /// They go on for as long as what each gateway has borrowed ahead lasts.
    Leased,
    /// They go on; each gateway counts for itself.
    Open,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Part of each tenant in each worker (0 is the worker's default)")]
pub struct ShareArgs {
    /// Service in proportion to other tenants' weights.
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// Higher goes first.
    #[arg(long, value_name = "N")]
    pub priority: Option<u32>,
    /// KV blocks held at the same time.
    #[arg(long, value_name = "N")]
    pub kv_blocks_max: Option<u32>,
    /// Adapters resident at the same time.
    #[arg(long, value_name = "N")]
    pub resident_adapters_max: Option<u32>,
    /// Requests that wait.
    #[arg(long, value_name = "N")]
    pub waiting_requests_max: Option<u32>,
}

const TENANT_HELP: &str = "\
Examples:
  banyan tenant create acme --display-name 'Acme Ltd' --requests-per-minute 100
  banyan tenant update acme --concurrent-requests 8
  banyan tenant list --json";

#[derive(Args, Debug)]
#[command(after_help = TENANT_HELP)]
pub struct TenantArgs {
    #[command(subcommand)]
    pub verb: TenantVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum TenantVerb {
    /// Create a tenant.
    Create {
        /// 2 to 63 lower-case letters, digits and hyphens.
        #[arg(value_name = "TENANT")]
        tenant: Slug,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Its plan; `default` at first.
        #[arg(long, value_name = "PLAN")]
        plan: Option<Slug>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List all tenants.
    List,
    /// Show one tenant and its limits.
    Show {
        #[arg(value_name = "TENANT")]
        tenant: Slug,
    },
    /// Change what is given; the rest stays.
    Update {
        #[arg(value_name = "TENANT")]
        tenant: Slug,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Its plan; `default` at first.
        #[arg(long, value_name = "PLAN")]
        plan: Option<Slug>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Delete a tenant.
    Delete {
        #[arg(value_name = "TENANT")]
        tenant: Slug,
        /// Delete its adapters and keys with it.
        #[arg(long)]
        force: bool,
    },
}

/// 0 means what stands behind: of a tenant its plan, of a plan the platform's default.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits (0: a tenant has its plan's, a plan the platform's default)")]
pub struct LimitArgs {
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u32>,
    /// Of prompts.
    #[arg(long, value_name = "N")]
    pub input_tokens_per_minute: Option<u32>,
    /// Of answers.
    #[arg(long, value_name = "N")]
    pub output_tokens_per_minute: Option<u32>,
    #[arg(long, value_name = "N")]
    pub concurrent_requests: Option<u32>,
    /// Money for a day of UTC, in millionths of the currency.
    #[arg(long, value_name = "MICROS")]
    pub budget_day: Option<u64>,
    /// Money for a month of UTC, in millionths of the currency.
    #[arg(long, value_name = "MICROS")]
    pub budget_month: Option<u64>,
    #[arg(long, value_name = "N")]
    pub adapters_max: Option<u32>,
    /// Bytes of all stored versions.
    #[arg(long, value_name = "BYTES")]
    pub adapter_bytes_max: Option<u64>,
    #[arg(long, value_name = "RANK")]
    pub adapter_rank_max: Option<u32>,
}

/// Beside the tenant's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits of the key alone, beside its tenant's (0, and at first: none)")]
pub struct KeyLimitArgs {
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u32>,
    /// Of prompts.
    #[arg(long, value_name = "N")]
    pub input_tokens_per_minute: Option<u32>,
    /// Of answers.
    #[arg(long, value_name = "N")]
    pub output_tokens_per_minute: Option<u32>,
    #[arg(long, value_name = "N")]
    pub concurrent_requests: Option<u32>,
    /// Money for a day of UTC, in millionths of the currency.
    #[arg(long, value_name = "MICROS")]
    pub budget_day: Option<u64>,
    /// Money for a month of UTC, in millionths of the currency.
    #[arg(long, value_name = "MICROS")]
    pub budget_month: Option<u64>,
}

const ADAPTER_HELP: &str = "\
Examples:
  banyan adapter push ./claims-lora --tenant acme --name claims               upload a version
  banyan adapter push ./claims-lora --tenant acme --name claims --alias live  and serve it
  banyan adapter show acme/claims                                             its receipt
  banyan adapter canary acme/claims sha256:0f… --weight 5%                    try it on a part
  banyan adapter promote acme/claims --wait                                   make it stable, everywhere
  banyan adapter promote acme/claims sha256:0f…                               or move `live` at once
  banyan adapter rollback acme/claims                                         move it back

DIR holds adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained writes them.";

#[derive(Args, Debug)]
#[command(after_help = ADAPTER_HELP)]
pub struct AdapterArgs {
    #[command(subcommand)]
    pub verb: AdapterVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum AdapterVerb {
    /// Create an adapter without a version yet (`push` does it too).
    Create {
        /// `<tenant>/<adapter>`.
        #[arg(value_name = "NAME")]
        name: ModelName,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
    },
    /// Upload a version; creates the adapter if it is not there. The same content gives the same version.
    Push {
        /// Folder with adapter_config.json and adapter_model.safetensors.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[arg(long, value_name = "TENANT")]
        tenant: Slug,
        #[arg(long, value_name = "NAME")]
        name: Slug,
        /// Also point this alias at the new version (`live` is what `<tenant>/<adapter>` means).
        #[arg(long, value_name = "ALIAS")]
        alias: Option<Slug>,
    },
    /// List a tenant's adapters.
    List {
        #[arg(long, value_name = "TENANT")]
        tenant: Slug,
    },
    /// Show aliases, versions and the load receipt of the version that NAME means.
    Show {
        /// `<tenant>/<adapter>`, `…@<alias>` or `…@sha256:<digest>`.
        #[arg(value_name = "NAME")]
        name: ModelName,
    },
    /// Put a report to a version; one that no alias answers with is `evaluated` from then on.
    Evaluate(EvaluateArgs),
    /// Take a version out of use for good. Running answers finish.
    Retire(RetireArgs),
    /// Show every step of a version's life, the last one first.
    History(VersionArgs),
    /// Let a version answer a part of an alias's requests in place of the stable one.
    Canary(CanaryArgs),
    /// Let a version answer besides, unseen, and compare.
    Shadow(ShadowArgs),
    /// Point an alias at a version, or make its canary stable. Running answers finish on the old one.
    Promote(PromoteArgs),
    /// Point an alias back at the version before its last move; a canary ends.
    Rollback(ChangeArgs),
    /// Tie callers to a version until a time.
    Pin(PinArgs),
    /// Plan changes of an alias.
    Schedule(ScheduleArgs),
    /// Show an alias, and which gateways answer with it as it is now.
    Rollout(RolloutArgs),
    /// Delete an adapter with its versions; with `@sha256:…` one version; with `@<alias>` that alias.
    Delete {
        /// `<tenant>/<adapter>`, `…@<alias>` or `…@sha256:<digest>`.
        #[arg(value_name = "NAME")]
        name: String,
    },
}
