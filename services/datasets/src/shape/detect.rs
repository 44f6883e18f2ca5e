//! Which shape a file has, from its first rows.

use super::{Columns, ShapeName};
use crate::{finding::clip, mapping::Mapping, source::Fields};

/// Why no shape fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    #[error(
        "no shape fits the first rows, whose columns are {0}; name the shape, or the columns of its fields by a mapping \
         such as prompt=question,completion=answer"
    )]
    NoShape(String),
    #[error("none of the first rows can be read; the first one {0}")]
    NoRows(String),
    #[error("the file has no rows")]
    Empty,
    #[error(
        "the mapping names the column {column:?} for {field}, and none of the first rows has it; they have {found}"
    )]
    NoColumn { field: String, column: String, found: String },
}

/// The shape that most of the rows have; of two, the one that [`ShapeName::ALL`] names first.
///
/// # Errors
/// When no row has any.
pub fn detect<'a>(rows: impl Iterator<Item = &'a Fields> + Clone, mapping: &Mapping) -> Result<ShapeName, DetectError> {
    let has = |fields: &Fields, shape: ShapeName| {
        let columns = Columns::new(fields, mapping);
        shape.needs().iter().all(|field| columns.get(field).is_some())
    };
    let of = |fields: &Fields| ShapeName::ALL.into_iter().find(|shape| has(fields, *shape));
    let votes = ShapeName::ALL.map(|shape| rows.clone().filter(|fields| of(fields) == Some(shape)).count());
    let most = votes.iter().copied().max().unwrap_or(0);
    let found = ShapeName::ALL.into_iter().zip(votes).find(|(_, count)| *count == most && most > 0);
    found.map(|(shape, _)| shape).ok_or_else(|| DetectError::NoShape(columns_of(rows)))
}

/// # Errors
/// When a column of the mapping for a row's own fields is in none of the rows.
pub(crate) fn check_mapping<'a>(
    shape: ShapeName,
    rows: impl Iterator<Item = &'a Fields> + Clone,
    mapping: &Mapping,
) -> Result<(), DetectError> {
    let of_row = |field: &str| shape.needs().iter().chain(shape.may_have()).any(|name| *name == field);
    for (field, column) in mapping.pairs().filter(|(field, _)| of_row(field)) {
        if !rows.clone().any(|fields| fields.contains_key(column)) {
            let (field, column) = (field.to_owned(), column.to_owned());
            return Err(DetectError::NoColumn { field, column, found: columns_of(rows) });
        }
    }
    Ok(())
}

fn columns_of<'a>(rows: impl Iterator<Item = &'a Fields>) -> String {
    let mut names: Vec<String> = Vec::new();
    for name in rows.flat_map(|fields| fields.keys()) {
        let name = clip(name, 40);
        if !names.contains(&name) && names.len() < 20 {
            names.push(name);
        }
    }
    names.join(", ")
}
