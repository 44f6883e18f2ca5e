//! `conversations` of `from` and `value`, with an optional `system`.

use super::{
    fields::{Columns, wrong},
    turns::role,
};
use crate::{
    finding::Problem,
    row::{Role, Turn},
};

pub(super) fn turns(columns: &Columns<'_>) -> Result<Vec<Turn>, Problem> {
    let mut turns: Vec<_> =
        columns.optional_text("system")?.map(|text| Turn::new(Role::System, text)).into_iter().collect();
    for (at, value) in columns.list("conversations")?.iter().enumerate() {
        let fields = value.as_object().ok_or_else(|| wrong(&format!("conversations[{at}]"), "an object"))?;
        let turn = columns.over(fields);
        turns.push(Turn::new(role(turn.text("from")?)?, turn.text("value")?));
    }
    Ok(turns)
}
