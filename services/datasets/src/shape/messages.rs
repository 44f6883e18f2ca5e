//! `messages`, as OpenAI has them. `name` is ignored; calls of tools and parts that are no text are refused.

use serde_json::Value;

use super::{
    fields::{Columns, wrong},
    turns::role,
};
use crate::{
    code::Code,
    finding::Problem,
    row::{Role, Turn},
};

pub(super) fn turns(columns: &Columns<'_>) -> Result<Vec<Turn>, Problem> {
    let list = columns.list("messages")?;
    list.iter().enumerate().map(|(at, value)| turn(columns, at, value)).collect()
}

fn turn(columns: &Columns<'_>, at: usize, value: &Value) -> Result<Turn, Problem> {
    let what = format!("messages[{at}]");
    // The turn lives as long as the list, which may be shorter than the row.
    let fields = value.as_object().ok_or_else(|| wrong(&what, "an object"))?;
    let turn = columns.over(fields);
    for lost in ["tool_calls", "function_call", "audio"] {
        if turn.holds(lost) {
            return Err(Problem::new(Code::Unsupported, format!("{what} has {lost}, which cannot be trained here")));
        }
    }
    let role = role(turn.text("role").map_err(|problem| within(&what, problem))?)?;
    let content = match turn.get("content") {
        Some(Value::Array(parts)) => parts.iter().map(|part| part_text(&what, part)).collect::<Result<String, _>>()?,
        // OpenAI allows null beside tool calls, which were refused above.
        None => String::new(),
        Some(_) => turn.text("content").map_err(|problem| within(&what, problem))?.to_owned(),
    };
    let weight = weight(&turn, role, &what)?;
    Ok(Turn { role, content, weight })
}

fn part_text<'a>(what: &str, part: &'a Value) -> Result<&'a str, Problem> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) => Ok(text),
        _ => Err(Problem::new(Code::Unsupported, format!("{what} has a part that is no text"))),
    }
}

/// 1 is what an answer has anyway, so that only 0 is kept.
fn weight(turn: &Columns<'_>, role: Role, what: &str) -> Result<Option<u8>, Problem> {
    let Some(value) = turn.get("weight") else { return Ok(None) };
    match value.as_f64() {
        Some(1.0) => Ok(None),
        Some(0.0) if role == Role::Assistant => Ok(Some(0)),
        Some(0.0) => Ok(None),
        _ => Err(wrong(&format!("the weight of {what}"), "0 or 1")),
    }
}

fn within(what: &str, problem: Problem) -> Problem {
    Problem { reason: format!("{what}: {}", problem.reason), ..problem }
}
