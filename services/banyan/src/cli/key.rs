//! Flags of `key`.

use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use domain::Slug;

use super::{ConnectionArgs, KeyLimitArgs};

const KEY_HELP: &str = "\
Examples:
  banyan key create --tenant acme                       prints the key, once
  banyan key create --tenant acme --role tenant-admin --display-name 'Ann'
  banyan key create --tenant acme --model acme/claims --requests-per-minute 60
  banyan key rotate abcdef234567 --tenant acme --overlap 24h
  banyan key revoke abcdef234567 --tenant acme";

#[derive(Args, Debug)]
#[command(after_help = KEY_HELP)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub verb: KeyVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// May call the inference service.
    Inference,
    /// That, and manage its tenant's adapters.
    TenantDeveloper,
    /// All of that, and manage its tenant's keys.
    TenantAdmin,
    /// May look at everything of its tenant, the audit trail too, and change nothing.
    TenantAuditor,
}

/// Which key.
#[derive(Args, Clone, Debug)]
pub struct KeyNameArgs {
    /// The public id: the 12 characters after `bn_`.
    #[arg(value_name = "PUBLIC_ID")]
    pub id: String,
    #[arg(long, value_name = "TENANT")]
    pub tenant: Slug,
}

/// What may be changed of a key.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyFieldArgs {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// From when on it is refused: such as `90d`; `0s` is never.
    #[arg(long, value_name = "PERIOD")]
    pub expires_in: Option<Period>,
    /// A model that it may use: `base` or `<tenant>/<adapter>`; may be given several times. All by default.
    #[arg(long, value_name = "MODEL")]
    pub model: Vec<String>,
    /// An RPC that it may call, such as `Generate`; may be given several times. All of its role by default.
    #[arg(long, value_name = "RPC")]
    pub method: Vec<String>,
    #[command(flatten)]
    pub limits: KeyLimitArgs,
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Create a key; its secret is shown now and never again.
    Create {
        #[arg(long, value_name = "TENANT")]
        tenant: Slug,
        #[arg(long, value_enum, default_value = "inference")]
        role: RoleArg,
        #[command(flatten)]
        fields: KeyFieldArgs,
    },
    /// List a tenant's keys (never their secrets).
    List {
        #[arg(long, value_name = "TENANT")]
        tenant: Slug,
    },
    /// Show one key.
    Show(KeyNameArgs),
    /// Change what is given; the rest stays.
    Update {
        #[command(flatten)]
        key: KeyNameArgs,
        #[command(flatten)]
        fields: KeyFieldArgs,
        /// Let it use all models.
        #[arg(long, conflicts_with = "model")]
        all_models: bool,
        /// Let it call every RPC of its role.
        #[arg(long, conflicts_with = "method")]
        all_methods: bool,
        /// Only if the key still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
    },
    /// Give a key another secret, which is shown now and never again.
    Rotate {
        #[command(flatten)]
        key: KeyNameArgs,
        /// How much longer the present secret is good, such as `24h`; at most 30 days.
        #[arg(long, value_name = "PERIOD", default_value = "0s")]
        overlap: Period,
        /// Only if the key still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
    },
    /// Refuse a key from now on.
    Revoke(KeyNameArgs),
}

/// A number with `s`, `m`, `h` or `d` behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

#[derive(Debug, thiserror::Error)]
#[error("write a period as a number and `s`, `m`, `h` or `d`, such as `24h`")]
pub struct PeriodError;

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let (number, seconds) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
            .iter()
            .find_map(|(unit, seconds)| text.strip_suffix(unit).map(|number| (number, *seconds)))
            .ok_or(PeriodError)?;
        let number: u32 = number.parse().map_err(|_| PeriodError)?;
        Ok(Self(Duration::from_secs(u64::from(number) * seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_and_a_unit() {
        let seconds = |text: &str| text.parse::<Period>().map(|period| period.0.as_secs()).ok();
        assert_eq!(
            [seconds("90s"), seconds("15m"), seconds("24h"), seconds("30d")].map(Option::unwrap_or_default),
            [90, 900, 86_400, 2_592_000]
        );
        assert_eq!([seconds("24"), seconds("h"), seconds("-1h"), seconds("1w"), seconds("")], [None; 5]);
    }
}
