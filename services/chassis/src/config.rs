//! Layered configuration: compiled-in commented defaults → file → environment → flags. The only place where a process
//! reads its environment (the client verbs' flags read theirs through the command-line parser).

use std::{fmt, path::Path};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

/// Rules that a type cannot express. Every fault is a sentence that names its key.
pub trait Validate {
    fn faults(&self) -> Vec<String>;
}

/// Every fault at once.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

/// Reads `T`. `env_prefix` such as `BANYAN_GATEWAY_`; a double underscore separates levels
/// (`BANYAN_GATEWAY_LIMITS__TOKENS_PER_MINUTE`). `overrides` come from flags and win.
///
/// # Errors
/// Unknown keys, wrong types, an unreadable file, broken rules: all of them, each with where it came from.
pub fn load<T: DeserializeOwned + Validate>(
    defaults_toml: &str,
    file: Option<&Path>,
    env_prefix: &str,
    overrides: &toml::Table,
) -> Result<T, ConfigError> {
    let mut figment = Figment::from(Toml::string(defaults_toml));
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigError { faults: vec![format!("{}: no such file", path.display())] });
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    let config: T = figment
        .merge(Env::prefixed(env_prefix).split("__"))
        .merge(Serialized::defaults(overrides))
        .extract()
        .map_err(|error| ConfigError { faults: error.into_iter().map(|fault| fault.to_string()).collect() })?;
    let faults = config.faults();
    if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
}

/// The effective configuration as TOML, secrets redacted.
pub fn dump<T: Serialize>(config: &T) -> String {
    toml::to_string_pretty(config).unwrap_or_else(|error| format!("# cannot be written as TOML: {error}\n"))
}

/// A value that is never printed, logged or dumped.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; keep it out of messages.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.redacted())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.redacted())
    }
}

impl Secret {
    fn redacted(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "<redacted>" }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        queue_max: u32,
        token: Secret,
        name: String,
    }

    impl Validate for Sample {
        fn faults(&self) -> Vec<String> {
            let mut faults = Vec::new();
            if self.queue_max == 0 {
                faults.push("queue_max: must be at least 1".to_owned());
            }
            if self.token.is_empty() {
                faults.push("token: must be set".to_owned());
            }
            faults
        }
    }

    const DEFAULTS: &str = "queue_max = 8\ntoken = \"\"\nname = \"a\"\n";

    fn table(text: &str) -> toml::Table {
        text.parse().expect("toml")
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(b"queue_max = 9\nname = \"b\"\ntoken = \"t\"").expect("write");
        let config: Sample =
            load(DEFAULTS, Some(file.path()), "BANYAN_TEST_NONE_", &table("name = \"c\"")).expect("valid");
        assert_eq!((config.queue_max, config.name.as_str(), config.token.reveal()), (9, "c", "t"));
    }

    #[test]
    fn every_broken_rule_is_reported_at_once_and_unknown_keys_are_refused() {
        let error = load::<Sample>(DEFAULTS, None, "BANYAN_TEST_NONE_", &table("queue_max = 0")).expect_err("wrong");
        assert_eq!(error.faults.len(), 2, "{error}");
        let error = load::<Sample>(DEFAULTS, None, "BANYAN_TEST_NONE_", &table("quue_max = 1")).expect_err("typo");
        assert!(error.to_string().contains("quue_max"), "{error}");
    }

    #[test]
    fn secrets_are_redacted_everywhere() {
        let config: Sample = load(DEFAULTS, None, "BANYAN_TEST_NONE_", &table("token = \"hush\"")).expect("valid");
        assert!(!dump(&config).contains("hush") && !format!("{config:?}").contains("hush"));
    }
}
