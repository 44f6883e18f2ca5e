//! Fields by our names, wherever a mapping says that they are, with problems in plain words.

use std::borrow::Cow;

use serde_json::Value;

use crate::{code::Code, finding::Problem, mapping::Mapping, source::Fields};

/// A row's columns, or those of a turn within it.
pub(super) struct Columns<'a> {
    fields: &'a Fields,
    mapping: &'a Mapping,
}

impl<'a> Columns<'a> {
    pub(super) fn new(fields: &'a Fields, mapping: &'a Mapping) -> Self {
        Columns { fields, mapping }
    }

    /// The same mapping over an object within the row.
    pub(super) fn over<'b>(&self, fields: &'b Fields) -> Columns<'b>
    where
        'a: 'b,
    {
        Columns { fields, mapping: self.mapping }
    }

    /// The value, if it is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(self.mapping.column(field)).filter(|value| !value.is_null())
    }

    /// Whether there is something in it.
    pub(super) fn holds(&self, field: &str) -> bool {
        match self.get(field) {
            None => false,
            Some(Value::Array(values)) => !values.is_empty(),
            Some(Value::Object(fields)) => !fields.is_empty(),
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(_) => true,
        }
    }

    pub(super) fn text(&self, field: &str) -> Result<&'a str, Problem> {
        let value = self.get(field).ok_or_else(|| self.missing(field))?;
        value.as_str().ok_or_else(|| wrong(&self.named(field), "a text"))
    }

    /// An optional text; empty is none.
    pub(super) fn optional_text(&self, field: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
            Some(_) => Err(wrong(&self.named(field), "a text")),
        }
    }

    /// A text, number or truth value, as text.
    pub(super) fn scalar(&self, field: &str) -> Result<String, Problem> {
        match self.get(field).ok_or_else(|| self.missing(field))? {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            _ => Err(wrong(&self.named(field), "a text or a number")),
        }
    }

    /// A list; CSV can hold it as the text of a JSON array.
    pub(super) fn list(&self, field: &str) -> Result<Cow<'a, [Value]>, Problem> {
        match self.get(field).ok_or_else(|| self.missing(field))? {
            Value::Array(values) => Ok(Cow::Borrowed(values)),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(Value::Array(values)) => Ok(Cow::Owned(values)),
                _ => Err(wrong(&self.named(field), "a list")),
            },
            _ => Err(wrong(&self.named(field), "a list")),
        }
    }

    pub(super) fn missing(&self, field: &str) -> Problem {
        Problem::new(Code::Field, format!("{} is missing", self.named(field)))
    }

    /// Such as `prompt (column question)`.
    pub(super) fn named(&self, field: &str) -> String {
        match self.mapping.column(field) {
            column if column == field => field.to_owned(),
            column => format!("{field} (column {column})"),
        }
    }
}

pub(super) fn wrong(what: &str, wanted: &str) -> Problem {
    Problem::new(Code::Field, format!("{what} is not {wanted}"))
}
