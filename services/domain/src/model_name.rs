//! How a request names a model.

use std::{fmt, str::FromStr};

use crate::{Digest, Slug};

/// `base`, `<tenant>/<adapter>` (its `live` alias), `…@<alias>` or `…@sha256:<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelName {
    Base,
    Adapter { tenant: Slug, adapter: Slug, version: VersionSelector },
}

/// Which version of an adapter is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    Alias(Slug),
    Digest(Digest),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a model name: write `base`, `<tenant>/<adapter>`, `<tenant>/<adapter>@<alias>` \
     or `<tenant>/<adapter>@sha256:<64 hex digits>`"
)]
pub struct ModelNameError(String);

impl VersionSelector {
    pub const LIVE: &'static str = "live";

    /// The alias that a bare `<tenant>/<adapter>` means.
    pub fn live() -> Self {
        Self::Alias(Self::LIVE.parse().expect("`live` is a slug"))
    }
}

impl ModelName {
    /// `base`, or `<tenant>/<adapter>` whatever the version.
    pub fn without_version(&self) -> String {
        match self {
            Self::Base => self.to_string(),
            Self::Adapter { tenant, adapter, .. } => format!("{tenant}/{adapter}"),
        }
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, ModelNameError> {
        if text == "base" {
            return Ok(Self::Base);
        }
        parse_adapter(text).ok_or_else(|| ModelNameError(text.chars().take(200).collect()))
    }
}

fn parse_adapter(text: &str) -> Option<ModelName> {
    let (tenant, rest) = text.split_once('/')?;
    let (adapter, version) = match rest.split_once('@') {
        None => (rest, VersionSelector::live()),
        Some((adapter, selector)) if selector.starts_with("sha256:") => {
            (adapter, VersionSelector::Digest(selector.parse().ok()?))
        }
        Some((adapter, alias)) => (adapter, VersionSelector::Alias(alias.parse().ok()?)),
    };
    Some(ModelName::Adapter { tenant: tenant.parse().ok()?, adapter: adapter.parse().ok()?, version })
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Adapter { tenant, adapter, version } => match version {
                VersionSelector::Alias(alias) if alias.as_str() == VersionSelector::LIVE => {
                    write!(f, "{tenant}/{adapter}")
                }
                VersionSelector::Alias(alias) => write!(f, "{tenant}/{adapter}@{alias}"),
                VersionSelector::Digest(digest) => write!(f, "{tenant}/{adapter}@{digest}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_model_name_reads_back() {
        let digest = format!("acme/claims@sha256:{}", "0f".repeat(32));
        for text in ["base", "acme/claims", "acme/claims@canary", &digest] {
            assert_eq!(text.parse::<ModelName>().map(|name| name.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("acme/claims@live".parse::<ModelName>(), "acme/claims".parse());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "Base", "acme", "acme/", "/claims", "acme/claims@", "acme/claims@sha256:12", "a/b/c", "../etc"]
        {
            assert!(text.parse::<ModelName>().is_err(), "{text}");
        }
    }
}
