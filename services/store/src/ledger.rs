//! The ledger: append-only entries of what was held and charged for each request. Every total is derived from it.
//!
//! A request has one `reserved` entry and one that ends it; the database keeps it from having more. Writing is idempotent:
//! an entry that is there already is left as it is.

mod post;
mod read;
mod totals;

use domain::{ApiKeyId, Digest, Price, RequestId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Outcome, UsageRecord};

pub use post::{OpenHold, Posted};
pub(crate) use post::{open_holds, post};
pub(crate) use read::list;
pub use read::{EntryKind, ListedEntry};
pub use totals::{Balances, GroupBy, UsageGroup};
pub(crate) use totals::{balances, spent, summary};

/// One entry, with all that is known of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerEntry {
    Reserved(Hold),
    Ended(Hold, End),
}

/// A request that was let through, and what it takes to bill it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub tenant: TenantId,
    pub request: RequestId,
    pub api_key: ApiKeyId,
    /// As the request named it.
    pub model: String,
    /// `None` for the base.
    pub adapter_digest: Option<Digest>,
    pub base_digest: Digest,
    /// When it was let through: the day and month that its cost belongs to. Kept in microseconds.
    pub at: OffsetDateTime,
    /// When it has surely ended.
    pub deadline: OffsetDateTime,
    /// That held at `at`.
    pub price: Price,
    pub prompt_tokens: u64,
    pub answer_tokens_max: u64,
    /// Micro-units that are held until it ends: what the limits have charged for its beginning.
    pub held: u64,
    /// The process that let it through, as its limits name it; nil where nobody shares them.
    pub process: Uuid,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Something ran, and is charged.
    Posted(Box<UsageRecord>),
    /// Nothing ran.
    Voided,
    /// Nobody knows what ran.
    Expired,
}

impl LedgerEntry {
    pub const fn hold(&self) -> &Hold {
        match self {
            Self::Reserved(hold) | Self::Ended(hold, _) => hold,
        }
    }
}

impl Hold {
    /// `base` or `<tenant>/<adapter>`.
    pub fn priced_model(&self) -> &str {
        self.model.split('@').next().unwrap_or(&self.model)
    }

    /// The record of an answer that has not begun.
    pub fn record(&self) -> UsageRecord {
        UsageRecord {
            request: self.request,
            api_key: self.api_key,
            model: self.model.clone(),
            adapter_digest: self.adapter_digest,
            base_digest: self.base_digest,
            worker: String::new(),
            prompt_tokens: self.prompt_tokens,
            cached_prompt_tokens: 0,
            completion_tokens: 0,
            outcome: Outcome::Cancelled,
            first_token: None,
            duration: std::time::Duration::ZERO,
        }
    }
}
