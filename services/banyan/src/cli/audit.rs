//! Flags of `audit`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use domain::{ChainHead, Digest, Slug};

use super::ConnectionArgs;

const AUDIT_HELP: &str = "\
Every change of what the platform manages, and every refusal of one, is in a hash chain: one for each
tenant, one for the platform. `verify` goes along all of it and finds what was edited, removed or put
in another order. Keep the head that it prints somewhere else and give it next time with --known:
then even a chain that was rewritten as a whole, with its head, is found.

Examples:
  banyan audit list --tenant acme
  banyan audit export --tenant acme > acme.jsonl        one entry a line
  banyan audit verify --tenant acme
  banyan audit verify --file acme.jsonl                 without a server
  banyan audit verify --known 120:sha256:0f…            the platform's, with a head of earlier";

#[derive(Args, Debug)]
#[command(after_help = AUDIT_HELP)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub verb: AuditVerb,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// List the newest entries.
    List {
        /// Whose; the platform's own without it.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        /// So many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: usize,
    },
    /// Print all entries, oldest first, each as a line of JSON.
    Export {
        /// Whose; the platform's own without it.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        /// Only those after this position.
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: i64,
    },
    /// Go along the whole chain; ends with 1 if it is broken.
    Verify {
        /// Whose; the platform's own without it.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Slug>,
        /// What `export` has printed, instead of what the server has.
        #[arg(long, value_name = "FILE", conflicts_with = "tenant")]
        file: Option<PathBuf>,
        /// An entry and its hash as they were noted earlier.
        #[arg(long, value_name = "POSITION:HASH")]
        known: Option<KnownEntry>,
    },
}

/// `<position>:<digest>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEntry(pub ChainHead);

#[derive(Debug, thiserror::Error)]
#[error("write it as it was printed: `<position>:sha256:<64 hex digits>`")]
pub struct KnownEntryError;

impl FromStr for KnownEntry {
    type Err = KnownEntryError;

    fn from_str(text: &str) -> Result<Self, KnownEntryError> {
        let (position, hash) = text.split_once(':').ok_or(KnownEntryError)?;
        let position: u64 = position.parse().map_err(|_| KnownEntryError)?;
        let hash: Digest = hash.parse().map_err(|_| KnownEntryError)?;
        if position == 0 { Err(KnownEntryError) } else { Ok(Self(ChainHead { position, hash })) }
    }
}
