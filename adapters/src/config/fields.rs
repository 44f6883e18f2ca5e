//! Typed access to the fields of a config. Each field is taken once; a wrong type or value is refused on the spot and
//! reading goes on with the default, so that all faults come out together.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Bias, TargetModules};
use crate::limits::Limits;
use crate::plan::{Note, NoteCode};
use crate::refusal::{Code, Refusal, clip};

pub(super) struct Fields<'a> {
    object: Map<String, Value>,
    limits: &'a Limits,
    patterns: usize,
    refusals: Vec<Refusal>,
    notes: Vec<Note>,
}

impl<'a> Fields<'a> {
    pub fn new(object: Map<String, Value>, limits: &'a Limits) -> Self {
        Fields { object, limits, patterns: 0, refusals: Vec::new(), notes: Vec::new() }
    }

    /// Takes a field; an absent one is `null`.
    pub fn take(&mut self, name: &str) -> Value {
        self.object.shift_remove(name).unwrap_or(Value::Null)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    pub fn refuse(&mut self, code: Code, field: &str, message: impl Into<String>) {
        self.refusals.push(Refusal::new(code, field, message));
    }

    pub fn note(&mut self, code: NoteCode, field: &str, message: impl Into<String>) {
        self.notes.push(Note { code, subject: clip(field, 256), message: message.into() });
    }

    fn wrong(&mut self, field: &str, wanted: &str, found: &Value) {
        let found = clip(&found.to_string(), 64);
        self.refuse(
            Code::Config,
            field,
            format!("`{field}` must be {wanted}, not {found}. Correct it, or write the config again with PEFT."),
        );
    }

    pub fn flag(&mut self, field: &str) -> bool {
        match self.take(field) {
            Value::Bool(flag) => flag,
            Value::Null => false,
            other => {
                self.wrong(field, "true or false", &other);
                false
            }
        }
    }

    pub fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field) {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => {
                self.wrong(field, "a text or null", &other);
                None
            }
        }
    }

    pub fn rank(&mut self, field: &str, default: usize) -> usize {
        if !self.contains(field) {
            return default;
        }
        let value = self.take(field);
        self.checked_rank(field, &value).unwrap_or(default)
    }

    fn checked_rank(&mut self, field: &str, value: &Value) -> Option<usize> {
        let Some(rank) = value.as_u64().filter(|rank| *rank > 0) else {
            self.wrong(field, "a whole number above zero", value);
            return None;
        };
        match usize::try_from(rank).ok().filter(|rank| *rank <= self.limits.rank_max) {
            Some(rank) => Some(rank),
            None => {
                let limit = self.limits.rank_max;
                self.refuse(
                    Code::Quota,
                    field,
                    format!("Rank {rank} exceeds the limit of {limit}: train with a lower rank or ask the operator."),
                );
                None
            }
        }
    }

    pub fn number(&mut self, field: &str, default: f64) -> f64 {
        if !self.contains(field) {
            return default;
        }
        let value = self.take(field);
        match value.as_f64() {
            Some(number) => number,
            None => {
                self.wrong(field, "a number", &value);
                default
            }
        }
    }

    pub fn bias(&mut self) -> Bias {
        match self.take("bias") {
            Value::Null => Bias::None,
            Value::String(text) if text == "none" => Bias::None,
            Value::String(text) if text == "all" => Bias::All,
            Value::String(text) if text == "lora_only" => Bias::LoraOnly,
            other => {
                self.wrong("bias", "\"none\", \"all\" or \"lora_only\"", &other);
                Bias::None
            }
        }
    }

    pub fn target_modules(&mut self) -> TargetModules {
        match self.take("target_modules") {
            Value::Null => TargetModules::Default,
            Value::String(text) if text.to_lowercase() == "all-linear" => TargetModules::AllLinear,
            other => self.selector("target_modules", other),
        }
    }

    pub fn exclude_modules(&mut self) -> Option<TargetModules> {
        match self.take("exclude_modules") {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::Array(names) if names.is_empty() => None,
            other => Some(self.selector("exclude_modules", other)),
        }
    }

    fn selector(&mut self, field: &str, value: Value) -> TargetModules {
        match value {
            Value::String(text) => {
                self.count(field, 1);
                TargetModules::Pattern(text)
            }
            other => TargetModules::Names(self.list(field, other).into_iter().collect()),
        }
    }

    pub fn names(&mut self, field: &str) -> Vec<String> {
        let value = self.take(field);
        self.list(field, value)
    }

    pub fn names_or_one(&mut self, field: &str) -> Vec<String> {
        match self.take(field) {
            Value::String(text) if text.is_empty() => Vec::new(),
            Value::String(text) => vec![text],
            other => self.list(field, other),
        }
    }

    fn list(&mut self, field: &str, value: Value) -> Vec<String> {
        let values = match value {
            Value::Null => return Vec::new(),
            Value::Array(values) => values,
            other => {
                self.wrong(field, "a list of names", &other);
                return Vec::new();
            }
        };
        if !self.count(field, values.len()) {
            return Vec::new();
        }
        let mut names = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Value::String(name) => names.push(name),
                other => {
                    self.wrong(field, "a list of names", &other);
                    return Vec::new();
                }
            }
        }
        names
    }

    /// Adds to the number of names and patterns; `false` if there are too many.
    fn count(&mut self, field: &str, entries: usize) -> bool {
        self.patterns = self.patterns.saturating_add(entries);
        let limit = self.limits.patterns_max;
        let fits = self.patterns <= limit;
        if !fits {
            self.refuse(
                Code::Quota,
                field,
                format!(
                    "The config lists more than {limit} names and patterns: use patterns that cover more modules each."
                ),
            );
        }
        fits
    }

    pub fn layers(&mut self) -> Option<BTreeSet<i64>> {
        match self.take("layers_to_transform") {
            Value::Null => None,
            Value::Number(number) if number.is_i64() => number.as_i64().map(|layer| BTreeSet::from([layer])),
            Value::Array(values) if values.iter().all(Value::is_i64) => {
                self.count("layers_to_transform", values.len());
                Some(values.iter().filter_map(Value::as_i64).collect())
            }
            other => {
                self.wrong("layers_to_transform", "a layer index or a list of them", &other);
                None
            }
        }
    }

    pub fn rank_pattern(&mut self) -> Vec<(String, usize)> {
        let entries = self.map("rank_pattern");
        entries.into_iter().filter_map(|(key, value)| Some((key, self.checked_rank("rank_pattern", &value)?))).collect()
    }

    pub fn alpha_pattern(&mut self) -> Vec<(String, f64)> {
        let entries = self.map("alpha_pattern");
        let number = |(key, value): (String, Value)| match value.as_f64() {
            Some(alpha) => Some((key, alpha)),
            None => {
                self.wrong("alpha_pattern", "a map of patterns to numbers", &value);
                None
            }
        };
        entries.into_iter().filter_map(number).collect()
    }

    fn map(&mut self, field: &str) -> Map<String, Value> {
        match self.take(field) {
            Value::Null => Map::new(),
            Value::Object(entries) => match self.count(field, entries.len()) {
                true => entries,
                false => Map::new(),
            },
            other => {
                self.wrong(field, "a map of patterns to numbers", &other);
                Map::new()
            }
        }
    }

    /// Judges what nobody has taken, and gives back everything found.
    pub fn finish(mut self) -> (Vec<Refusal>, Vec<Note>) {
        for (field, value) in std::mem::take(&mut self.object) {
            if is_neutral(&value) {
                self.note(
                    NoteCode::UnknownField,
                    &field,
                    "This field is not known here; its value is neutral, so it is ignored.",
                );
            } else {
                let found = clip(&value.to_string(), 64);
                self.refuse(
                    Code::UnknownSemantics,
                    &field,
                    format!("This field is not known here and its value {found} may change what the adapter computes. Remove it if it does not; otherwise this adapter cannot be served yet."),
                );
            }
        }
        (self.refusals, self.notes)
    }
}

/// Whether a value says "not used", whatever the field.
pub(super) fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
