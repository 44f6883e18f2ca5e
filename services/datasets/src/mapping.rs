//! Which column holds which field, so that a file needs no rewriting: `prompt=question,completion=answer`.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Serialize};

/// The fields that a column may be named for: of rows, and of the turns within them.
const FIELDS: &[&str] = &[
    "messages",
    "role",
    "content",
    "weight",
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "conversations",
    "from",
    "value",
    "prompt",
    "completion",
    "text",
    "label",
];

/// Fields of ours and the columns that hold them; a field that is not mapped is its own column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mapping(BTreeMap<String, String>);

impl Mapping {
    /// The column that holds `field`.
    pub fn column<'a>(&'a self, field: &'a str) -> &'a str {
        self.0.get(field).map_or(field, String::as_str)
    }

    /// Field and column of everything that was mapped.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, column)| (field.as_str(), column.as_str()))
    }
}

/// What is wrong with a mapping, in plain words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("{0:?} is not FIELD=COLUMN")]
    Form(String),
    #[error("{0:?} is no field; fields are {fields}", fields = FIELDS.join(", "))]
    Field(String),
    #[error("the field {0:?} is mapped twice")]
    Twice(String),
}

impl FromStr for Mapping {
    type Err = MappingError;

    /// Reads `FIELD=COLUMN`, several of them with commas between.
    fn from_str(text: &str) -> Result<Self, MappingError> {
        let mut pairs = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (field, column) = part.split_once('=').ok_or_else(|| MappingError::Form(part.to_owned()))?;
            let (field, column) = (field.trim(), column.trim());
            if column.is_empty() {
                return Err(MappingError::Form(part.to_owned()));
            }
            if !FIELDS.contains(&field) {
                return Err(MappingError::Field(field.to_owned()));
            }
            if pairs.insert(field.to_owned(), column.to_owned()).is_some() {
                return Err(MappingError::Twice(field.to_owned()));
            }
        }
        Ok(Mapping(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mapped_is_its_own_column() {
        let mapping: Mapping = "prompt=question, completion = answer".parse().expect("a mapping");
        assert_eq!((mapping.column("prompt"), mapping.column("completion")), ("question", "answer"));
        assert_eq!(mapping.column("text"), "text");
    }

    #[test]
    fn a_mapping_that_cannot_be_meant_is_refused() {
        assert_eq!("prompt".parse::<Mapping>(), Err(MappingError::Form("prompt".into())));
        assert_eq!("prompt=".parse::<Mapping>(), Err(MappingError::Form("prompt=".into())));
        assert_eq!("question=prompt".parse::<Mapping>(), Err(MappingError::Field("question".into())));
        assert_eq!("text=a,text=b".parse::<Mapping>(), Err(MappingError::Twice("text".into())));
    }
}
