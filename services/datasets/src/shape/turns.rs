//! What holds for every conversation: roles in their order, an answer at the end, no empty turn.

use crate::{
    code::Code,
    finding::{Problem, clip},
    row::{Role, Turn},
};

/// The role that a file calls by its own name: OpenAI's, sharegpt's and what their users write.
pub(super) fn role(name: &str) -> Result<Role, Problem> {
    match name {
        "system" | "developer" => Ok(Role::System),
        "user" | "human" => Ok(Role::User),
        "assistant" | "gpt" | "chatgpt" | "bing" | "bard" | "model" => Ok(Role::Assistant),
        "tool" | "function" | "function_call" | "observation" | "tool_call" => {
            Err(Problem::new(Code::Unsupported, format!("has a turn of the role {name}; tools cannot be trained here")))
        }
        other => Err(Problem::new(Code::Role, format!("the role {:?} is unknown", clip(other, 40)))),
    }
}

/// # Errors
/// When the turns are none that could be trained on.
pub(super) fn ordered(turns: Vec<Turn>) -> Result<Vec<Turn>, Problem> {
    if turns.is_empty() {
        return Err(Problem::new(Code::Empty, "has no turns"));
    }
    for (at, turn) in turns.iter().enumerate() {
        if turn.content.trim().is_empty() {
            return Err(Problem::new(Code::Empty, format!("turn {} ({}) is empty", at + 1, turn.role.as_str())));
        }
    }
    let begins = usize::from(turns[0].role == Role::System);
    let expected = |at: usize| if (at - begins).is_multiple_of(2) { Role::User } else { Role::Assistant };
    for (at, turn) in turns.iter().enumerate().skip(begins) {
        if turn.role != expected(at) {
            let (found, expected) = (turn.role.as_str(), expected(at).as_str());
            return Err(Problem::new(
                Code::RoleOrder,
                format!("turn {} is the {found}'s, not the {expected}'s", at + 1),
            ));
        }
    }
    match turns.last() {
        Some(turn) if turn.role == Role::Assistant => Ok(turns),
        _ => Err(Problem::new(Code::EndsElsewhere, "does not end with the assistant's turn")),
    }
}
