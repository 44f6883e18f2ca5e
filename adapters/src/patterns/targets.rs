//! Which modules the config means: `target_modules`, `exclude_modules`, `modules_to_save`, `layers_to_transform` and
//! `layers_pattern`.

use std::collections::BTreeSet;

use super::{Pattern, PatternError};
use crate::limits::Limits;

/// Names that match exactly or as a dotted suffix.
#[derive(Debug)]
pub struct Names(BTreeSet<String>);

/// A list of names, or a pattern that must match the whole name.
#[derive(Debug)]
pub enum Selector {
    Names(Names),
    Pattern(Pattern),
}

/// All rules of one config that say which modules get an adapter.
#[derive(Debug)]
pub struct Targets {
    pub target: Selector,
    pub exclude: Option<Selector>,
    /// `modules_to_save`, which never get an adapter.
    pub saved: Vec<Pattern>,
    /// `layers_to_transform`; `None` or empty is all.
    pub layers: Option<BTreeSet<i64>>,
    pub layers_pattern: LayersPattern,
}

/// What the rules say about a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Targeted,
    Excluded,
    Unmatched,
}

/// Where in a module's name the layer index stands. Always the first numbered segment that fits, so that the index of
/// an expert is not taken for that of a layer.
#[derive(Debug)]
pub struct LayersPattern(Vec<Pattern>);

impl Targets {
    /// `check_target_module_exists` of PEFT.
    pub fn judge(&self, module: &str) -> Result<Verdict, PatternError> {
        if let Some(exclude) = &self.exclude
            && exclude.selects(module)?
        {
            return Ok(Verdict::Excluded);
        }
        for saved in &self.saved {
            if saved.is_match(module)? {
                return Ok(Verdict::Excluded);
            }
        }
        let targeted = match &self.target {
            Selector::Pattern(pattern) => pattern.is_match(module)?,
            // a module named in full is a target whatever its layer
            Selector::Names(names) if names.0.contains(module) => true,
            Selector::Names(names) => names.has_suffix_of(module) && self.layer_is_meant(module)?,
        };
        Ok(if targeted { Verdict::Targeted } else { Verdict::Unmatched })
    }

    fn layer_is_meant(&self, module: &str) -> Result<bool, PatternError> {
        let Some(layers) = self.layers.as_ref().filter(|layers| !layers.is_empty()) else { return Ok(true) };
        let index = self.layers_pattern.index(module)?;
        Ok(index.is_some_and(|index| layers.contains(&index)))
    }
}

impl Selector {
    pub fn names(names: impl IntoIterator<Item = String>) -> Selector {
        Selector::Names(Names(names.into_iter().collect()))
    }

    fn selects(&self, module: &str) -> Result<bool, PatternError> {
        match self {
            Selector::Names(names) => Ok(names.0.contains(module) || names.has_suffix_of(module)),
            Selector::Pattern(pattern) => pattern.is_match(module),
        }
    }
}

impl Names {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn has_suffix_of(&self, module: &str) -> bool {
        module.match_indices('.').any(|(dot, _)| module.get(dot + 1..).is_some_and(|suffix| self.0.contains(suffix)))
    }
}

impl LayersPattern {
    /// Without patterns, any numbered segment counts.
    pub fn compile(patterns: &[String], limits: &Limits) -> Result<LayersPattern, PatternError> {
        let any = || Pattern::starting("", r".*?\.[^.]*\.(?P<idx>\d+)\.", limits);
        let spliced = |text: &String| Pattern::starting(text, &format!(r"(?:^|.*?\.){text}\.(?P<idx>\d+)\."), limits);
        let patterns: Result<Vec<_>, _> = match patterns {
            [] => any().map(|pattern| vec![pattern]),
            patterns => patterns.iter().map(spliced).collect(),
        };
        patterns.map(LayersPattern)
    }

    /// The layer index in `module`, by the first pattern that matches.
    pub fn index(&self, module: &str) -> Result<Option<i64>, PatternError> {
        for pattern in &self.0 {
            if let Some(index) = pattern.group(module, "idx")? {
                return Ok(index.and_then(|digits| digits.parse().ok()));
            }
        }
        Ok(None)
    }
}
