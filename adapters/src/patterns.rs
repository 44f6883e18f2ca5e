//! How PEFT matches module names: targets, exclusions, layers, and the keys of the rank and alpha maps. Python's `re`
//! is matched by `fancy-regex` with a bounded number of steps; what the two read differently is refused, and a pattern
//! that cannot be decided is an error, never "no match".
//!
//! Source of the rules: `check_target_module_exists`, `get_pattern_key` and `_set_trainable` of PEFT.

mod python;
mod targets;

pub use python::{Pattern, PatternError};
pub use targets::{LayersPattern, Names, Selector, Targets, Verdict};

use crate::limits::Limits;

/// The keys of `rank_pattern` or `alpha_pattern`, in the order of the file, with their values.
#[derive(Debug)]
pub struct PatternMap<T> {
    entries: Vec<(Key, T)>,
}

impl<T> PatternMap<T> {
    /// Compiles `(.*\.)?(key)$` for each key. Fails at the first key that is not a pattern.
    pub fn compile(
        entries: impl IntoIterator<Item = (String, T)>,
        limits: &Limits,
    ) -> Result<PatternMap<T>, PatternError> {
        let compile = |(key, value)| Ok((Key::compile(key, limits)?, value));
        Ok(PatternMap { entries: entries.into_iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The map without entries.
    pub fn none() -> PatternMap<T> {
        PatternMap { entries: Vec::new() }
    }

    /// All entries that fit `module`, in order; PEFT takes the first.
    pub fn matches(&self, module: &str) -> Result<Vec<(&str, &T)>, PatternError> {
        let mut found = Vec::new();
        for (key, value) in &self.entries {
            if key.is_match(module)? {
                found.push((key.text.as_str(), value));
            }
        }
        Ok(found)
    }

    /// Texts of the keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.text.as_str())
    }
}

#[derive(Debug)]
struct Key {
    text: String,
    /// `None` for a key of word characters and dots, which needs no engine: the dot stands for any one character.
    pattern: Option<Pattern>,
}

impl Key {
    fn compile(text: String, limits: &Limits) -> Result<Key, PatternError> {
        if refers_to_second_group(&text) {
            // the second group of the whole pattern is the one around the key, still open inside it
            let fault = r"refers to the group `\2`, which is the key itself".to_owned();
            return Err(PatternError { pattern: crate::refusal::clip(&text, 128), fault });
        }
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let pattern = match plain {
            true => None,
            false => Some(Pattern::starting(&text, &format!(r"(.*\.)?({text})$"), limits)?),
        };
        Ok(Key { text, pattern })
    }

    fn is_match(&self, module: &str) -> Result<bool, PatternError> {
        if let Some(pattern) = &self.pattern {
            return pattern.is_match(module);
        }
        // names of modules and plain keys are ASCII, so bytes are characters
        let Some(start) = module.len().checked_sub(self.text.len()) else { return Ok(false) };
        let (before, tail) = module.as_bytes().split_at(start);
        let fits = tail.iter().zip(self.text.bytes()).all(|(found, wanted)| wanted == b'.' || *found == wanted);
        Ok(fits && (before.is_empty() || before.ends_with(b".")))
    }
}

fn refers_to_second_group(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next() == Some('2') && !chars.clone().next().is_some_and(|next| next.is_ascii_digit()) {
            return true;
        }
    }
    false
}
