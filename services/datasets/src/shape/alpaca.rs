//! `instruction`, `input`, `output`, and what came before: `system` and `history` (pairs of question and answer).
//! Instruction and input are one question, on two lines.

use serde_json::Value;

use super::fields::{Columns, wrong};
use crate::{
    finding::Problem,
    row::{Role, Turn},
};

pub(super) fn turns(columns: &Columns<'_>) -> Result<Vec<Turn>, Problem> {
    let mut turns: Vec<_> =
        columns.optional_text("system")?.map(|text| Turn::new(Role::System, text)).into_iter().collect();
    if columns.holds("history") {
        for pair in columns.list("history")?.iter() {
            let texts: Vec<_> = pair.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let [question, answer] = texts[..] else {
                return Err(wrong("history", "a list of pairs of question and answer"));
            };
            turns.extend([Turn::new(Role::User, question), Turn::new(Role::Assistant, answer)]);
        }
    }
    let instruction = columns.text("instruction")?;
    let question = match columns.optional_text("input")? {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction.to_owned(),
    };
    turns.extend([Turn::new(Role::User, question), Turn::new(Role::Assistant, columns.text("output")?)]);
    Ok(turns)
}
