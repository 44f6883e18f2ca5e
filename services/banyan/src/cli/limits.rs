//! Flags of `limits`.

use clap::{Args, Subcommand};
use domain::{ModelName, Slug};

use super::{ConnectionArgs, LimitArgs};

const HELP: &str = "\
Both change nothing.

Examples:
  banyan limits explain --input-tokens 800 --max-tokens 256        of the key that asks
  banyan limits explain --tenant acme --model acme/claims          of a tenant, for its administrator
  banyan limits explain --tenant acme --key-id abcdef234567        of one of its keys
  banyan limits try --tenant acme --output-tokens-per-minute 5000  what the last hour would have looked like
  banyan limits try --plan gold --requests-per-minute 60";

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct LimitsArgs {
    #[command(subcommand)]
    pub verb: LimitsVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum LimitsVerb {
    /// Say which limit would decide a request now, with what is used, reserved and left of each.
    Explain {
        /// Whose limits; without it, those of the key that asks.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        /// The public id of one of the tenant's keys: the 12 characters after `bn_`.
        #[arg(long, value_name = "PUBLIC_ID", requires = "tenant")]
        key_id: Option<String>,
        /// What the request would name: it says the price.
        #[arg(long, short, value_name = "MODEL")]
        model: Option<ModelName>,
        /// Of the prompt.
        #[arg(long, value_name = "N", default_value_t = 0)]
        input_tokens: u32,
        /// Of the answer at most; the gateway's default without it.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        max_tokens: u32,
    },
    /// Say what other limits would have refused of the last hour's requests.
    Try {
        /// Whose limits.
        #[arg(long, value_name = "TENANT", required_unless_present = "plan", conflicts_with = "plan")]
        tenant: Option<Slug>,
        /// All tenants of a plan.
        #[arg(long, value_name = "PLAN")]
        plan: Option<Slug>,
        /// The public id of one of the tenant's keys: its own limits are changed.
        #[arg(long, value_name = "PUBLIC_ID", requires = "tenant")]
        key_id: Option<String>,
        #[command(flatten)]
        limits: LimitArgs,
    },
}
