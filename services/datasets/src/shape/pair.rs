//! `prompt` and `completion`: a question and its answer, as serving sees them. A completion of raw text is a row of the
//! shape `text`.

use super::fields::Columns;
use crate::{
    finding::Problem,
    row::{Role, Turn},
};

pub(super) fn turns(columns: &Columns<'_>) -> Result<Vec<Turn>, Problem> {
    let prompt = Turn::new(Role::User, columns.text("prompt")?);
    Ok(vec![prompt, Turn::new(Role::Assistant, columns.text("completion")?)])
}
