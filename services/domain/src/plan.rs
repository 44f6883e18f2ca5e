//! What a plan says besides limits: a tenant's part in the workers, and what holds while the shared limits are silent.

use std::{fmt, str::FromStr};

/// A tenant's part in each worker. 0 stands for the worker's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Service in proportion to other tenants' weights.
    pub weight: u32,
    /// Higher goes first.
    pub priority: u32,
    /// KV blocks held at the same time.
    pub kv_blocks_max: u32,
    /// Adapters resident at the same time.
    pub resident_adapters_max: u32,
    /// Requests that wait.
    pub waiting_requests_max: u32,
}

/// What happens to requests while the shared limits do not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outage {
    /// They are refused.
    #[default]
    Closed,
    /// They go on for as long as what a gateway has borrowed ahead lasts.
    Leased,
    /// They go on; each gateway counts for itself.
    Open,
}

impl Outage {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Leased => "leased",
            Self::Open => "open",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a policy for outages: use `closed`, `leased` or `open`")]
pub struct OutageError(String);

impl FromStr for Outage {
    type Err = OutageError;

    fn from_str(text: &str) -> Result<Self, OutageError> {
        match text {
            "closed" => Ok(Self::Closed),
            "leased" => Ok(Self::Leased),
            "open" => Ok(Self::Open),
            other => Err(OutageError(other.to_owned())),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
