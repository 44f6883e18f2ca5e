//! `<tenant>/<adapter>[@…]` as it is typed: unlike a model name, it keeps apart whether an alias was written.

use domain::{AdapterName, Digest, Slug};

use crate::failure::Failure;

/// An adapter, and what of it is meant.
#[derive(Debug)]
pub struct Named {
    pub adapter: AdapterName,
    pub alias: Option<Slug>,
    pub digest: Option<Digest>,
}

/// # Errors
/// Anything that is not `<tenant>/<adapter>`, `…@<alias>` or `…@sha256:<digest>`.
pub fn named(text: &str) -> Result<Named, Failure> {
    parse(text).ok_or_else(|| {
        Failure::Usage(format!(
            "`{text}` names no adapter: write <tenant>/<adapter>, <tenant>/<adapter>@<alias> \
             or <tenant>/<adapter>@sha256:<64 hex digits>"
        ))
    })
}

/// Only `<tenant>/<adapter>`.
///
/// # Errors
/// Anything else.
pub fn whole(text: &str) -> Result<Named, Failure> {
    let named = named(text)?;
    if named.alias.is_some() || named.digest.is_some() {
        return Err(Failure::Usage(format!("`{text}`: write <tenant>/<adapter> alone; use --alias for an alias")));
    }
    Ok(named)
}

/// Only `<tenant>/<adapter>@sha256:<digest>`.
///
/// # Errors
/// Anything else.
pub fn one_version(text: &str) -> Result<Named, Failure> {
    let named = named(text)?;
    if named.digest.is_none() {
        return Err(Failure::Usage(format!("`{text}`: write <tenant>/<adapter>@sha256:<64 hex digits>")));
    }
    Ok(named)
}

fn parse(text: &str) -> Option<Named> {
    let (path, selector) = text.split_once('@').map_or((text, None), |(path, rest)| (path, Some(rest)));
    let (tenant, adapter) = path.split_once('/')?;
    let adapter = AdapterName { tenant: tenant.parse().ok()?, adapter: adapter.parse().ok()? };
    let (alias, digest) = match selector {
        None => (None, None),
        Some(selector) if selector.starts_with("sha256:") => (None, Some(selector.parse().ok()?)),
        Some(selector) => (Some(selector.parse().ok()?), None),
    };
    Some(Named { adapter, alias, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_that_was_written_is_kept_apart_from_none() {
        assert!(named("acme/claims").expect("name").alias.is_none());
        assert_eq!(named("acme/claims@live").expect("name").alias.map(String::from).as_deref(), Some("live"));
        assert!(named(&format!("acme/claims@sha256:{}", "0".repeat(64))).expect("name").digest.is_some());
        for wrong in ["base", "acme", "acme/claims@", "acme/claims@sha256:1", "a/b/c"] {
            assert_eq!(named(wrong).expect_err(wrong).code(), Failure::USAGE);
        }
        assert!(whole("acme/claims@live").is_err());
    }
}
