//! `text` and `label`: the label is the answer to the text.

use super::fields::Columns;
use crate::{
    finding::Problem,
    row::{Role, Turn},
};

pub(super) fn turns(columns: &Columns<'_>) -> Result<(Vec<Turn>, String), Problem> {
    let text = Turn::new(Role::User, columns.text("text")?);
    let label = columns.scalar("label")?.trim().to_owned();
    Ok((vec![text, Turn::new(Role::Assistant, label.clone())], label))
}
