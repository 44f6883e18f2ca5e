//! Flags of the verbs of `adapter` that lead versions through their life and aliases from one version to the next.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use domain::{BasisPoints, Digest, ModelName, Slug};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// One version.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// `<tenant>/<adapter>@sha256:<digest>`.
    #[arg(value_name = "NAME")]
    pub name: ModelName,
}

/// One alias.
#[derive(Args, Debug)]
pub struct AliasArgs {
    /// `<tenant>/<adapter>`.
    #[arg(value_name = "NAME")]
    pub name: ModelName,
    #[arg(long, value_name = "ALIAS", default_value = "live")]
    pub alias: Slug,
}

/// One alias, to be changed.
#[derive(Args, Debug)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub alias: AliasArgs,
    /// Only if the alias still has it; by default the one that it has when this begins.
    #[arg(long, value_name = "ETAG")]
    pub etag: Option<String>,
    /// Wait until every gateway answers with the change, and say which one lags.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Debug)]
pub struct EvaluateArgs {
    #[command(flatten)]
    pub version: VersionArgs,
    /// A file with a JSON object; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub report: PathBuf,
    /// For the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

#[derive(Args, Debug)]
pub struct RetireArgs {
    #[command(flatten)]
    pub version: VersionArgs,
    /// For the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

#[derive(Args, Debug)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// `sha256:<64 hex digits>`; without it the canary.
    #[arg(value_name = "DIGEST")]
    pub digest: Option<Digest>,
}

const CANARY_HELP: &str = "\
Requests with the same routing key get the same version; a higher weight takes keys over to the
canary and gives none back. Without a routing key, each request is drawn.

Examples:
  banyan adapter canary acme/claims sha256:0f… --weight 5%       begin
  banyan adapter canary acme/claims --weight 50%                 more of it
  banyan adapter promote acme/claims                             make it stable
  banyan adapter canary acme/claims --end                        or end it";

#[derive(Args, Debug)]
#[command(after_help = CANARY_HELP, group(ArgGroup::new("what").required(true).args(["weight", "end"])))]
pub struct CanaryArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// `sha256:<64 hex digits>`; without it the canary that there is.
    #[arg(value_name = "DIGEST", conflicts_with = "end")]
    pub digest: Option<Digest>,
    /// Its part of the requests, such as `5%` or `0.25%`.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub weight: Option<BasisPoints>,
    /// The stable version answers everything again.
    #[arg(long)]
    pub end: bool,
}

#[derive(Args, Debug)]
pub struct ShadowArgs {
    #[command(subcommand)]
    pub verb: ShadowVerb,
}

#[derive(Debug, Subcommand)]
pub enum ShadowVerb {
    /// Let a version answer a part of the requests besides, unseen and at no cost.
    Set {
        #[command(flatten)]
        change: ChangeArgs,
        /// `sha256:<64 hex digits>`.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// Its part of the requests, such as `10%`.
        #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10%")]
        rate: BasisPoints,
    },
    /// Show what the comparisons have found.
    Show {
        #[command(flatten)]
        alias: AliasArgs,
    },
    /// End it; its comparisons stay.
    End {
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Args, Debug)]
pub struct PinArgs {
    #[command(subcommand)]
    pub verb: PinVerb,
}

#[derive(Debug, Subcommand)]
pub enum PinVerb {
    /// Tie callers to a version until a time, wherever the alias points.
    #[command(group(ArgGroup::new("who").required(true).args(["tenant", "key", "routing_key"])))]
    Set {
        #[command(flatten)]
        change: ChangeArgs,
        /// `sha256:<64 hex digits>`.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// All requests of the tenant.
        #[arg(long = "all")]
        tenant: bool,
        /// Requests with this API key: its public id, the 12 characters after `bn_`.
        #[arg(long = "api-key", value_name = "PUBLIC_ID", id = "key")]
        api_key: Option<String>,
        /// Requests with this routing key.
        #[arg(long, value_name = "KEY")]
        routing_key: Option<String>,
        /// How long, such as `30m`, `12h` or `7d`.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        lasting: Duration,
        /// For people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// List the pins of an alias.
    List {
        #[command(flatten)]
        alias: AliasArgs,
    },
    /// End a pin now.
    Delete {
        #[command(flatten)]
        change: ChangeArgs,
        /// Its id, as `list` shows it.
        #[arg(value_name = "ID")]
        id: Uuid,
    },
}

const SCHEDULE_HELP: &str = "\
A planned change fails, and changes nothing, if somebody has changed the alias by then. Changes that
were planned together follow one another.

Examples:
  banyan adapter schedule add acme/claims --in 1h --weight 50%
  banyan adapter schedule add acme/claims --at 2027-01-31T06:00:00Z --promote
  banyan adapter schedule list acme/claims";

#[derive(Args, Debug)]
#[command(after_help = SCHEDULE_HELP)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    pub verb: ScheduleVerb,
}

#[derive(Debug, Subcommand)]
pub enum ScheduleVerb {
    /// Plan a change of an alias.
    Add(Box<ScheduleAddArgs>),
    /// List what is planned, and what became of what was.
    List {
        #[command(flatten)]
        alias: AliasArgs,
    },
    /// Take back a change that is still to come.
    Cancel {
        #[command(flatten)]
        alias: AliasArgs,
        /// Its id, as `list` shows it.
        #[arg(value_name = "ID")]
        id: Uuid,
    },
}

#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("when").required(true).args(["at", "after"])),
    group(ArgGroup::new("planned").required(true).multiple(true)
        .args(["move_to", "canary", "weight", "end_canary", "promote", "rollback"])),
)]
pub struct ScheduleAddArgs {
    #[command(flatten)]
    pub alias: AliasArgs,
    /// Only if the alias still has it; by default the one that it has when this begins.
    #[arg(long, value_name = "ETAG")]
    pub etag: Option<String>,
    /// When, in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<OffsetDateTime>,
    /// In how long, such as `30m`, `12h` or `7d`.
    #[arg(long = "in", value_name = "TIME", value_parser = span)]
    pub after: Option<Duration>,
    /// Point the alias at this version.
    #[arg(long, value_name = "DIGEST", conflicts_with_all = ["canary", "weight", "end_canary", "promote", "rollback"])]
    pub move_to: Option<Digest>,
    /// Begin a canary with this version; takes a --weight.
    #[arg(long, value_name = "DIGEST", requires = "weight", conflicts_with_all = ["end_canary", "promote", "rollback"])]
    pub canary: Option<Digest>,
    /// The canary's part of the requests, such as `50%`.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["end_canary", "promote", "rollback"])]
    pub weight: Option<BasisPoints>,
    /// End the canary.
    #[arg(long, conflicts_with_all = ["promote", "rollback"])]
    pub end_canary: bool,
    /// Make the canary stable.
    #[arg(long, conflicts_with = "rollback")]
    pub promote: bool,
    /// Go back to the version before.
    #[arg(long)]
    pub rollback: bool,
}

#[derive(Args, Debug)]
pub struct RolloutArgs {
    #[command(flatten)]
    pub alias: AliasArgs,
    /// Wait until every gateway answers with the alias as it is now.
    #[arg(long)]
    pub wait: bool,
}

/// `5`, `5%` or `0.25%`, in hundredths of a percent.
fn percent(text: &str) -> Result<BasisPoints, String> {
    let fault = || format!("`{text}` is not a percentage from 0 to 100 with at most two decimals");
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return Err(fault());
    }
    let value = format!("{whole}{decimals:0<2}").parse().map_err(|_| fault())?;
    BasisPoints::new(value).map_err(|_| fault())
}

/// A number and `s`, `m`, `h` or `d`.
fn span(text: &str) -> Result<Duration, String> {
    let fault = || format!("`{text}` is not a time such as 30m, 12h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(fault)?;
    let number = i64::from(number.parse::<u32>().map_err(|_| fault())?);
    match unit {
        "s" => Ok(Duration::seconds(number)),
        "m" => Ok(Duration::minutes(number)),
        "h" => Ok(Duration::hours(number)),
        "d" => Ok(Duration::days(number)),
        _ => Err(fault()),
    }
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("`{text}` is not a time such as 2027-01-31T06:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_times_are_read_exactly() {
        let points = |text| percent(text).map(BasisPoints::get);
        assert_eq!(
            (points("5%"), points("0.25%"), points("12.5"), points("100")),
            (Ok(500), Ok(25), Ok(1_250), Ok(10_000))
        );
        for wrong in ["", "%", "101", "1.234", "-1", "5 %", ".5"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        assert_eq!((span("30m"), span("7d")), (Ok(Duration::minutes(30)), Ok(Duration::days(7))));
        for wrong in ["", "m", "7", "-1h", "1w", "1é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert!(moment("2027-01-31T06:00:00Z").is_ok() && moment("tomorrow").is_err());
    }
}
