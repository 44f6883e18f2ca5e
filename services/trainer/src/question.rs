//! Held-out conversations: what is asked, and the answer that is expected.

use std::io;

use datasets::{Content, Side, Version};
use engine::text::ChatMessage;
use serde::Deserialize;

use crate::line_faults::LineFaults;

/// One item of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `line <number>`, from 1.
    pub id: String,
    /// All turns before the answer.
    pub asked: Vec<ChatMessage>,
    pub expected: String,
}

#[derive(Deserialize)]
struct Line {
    messages: Vec<ChatMessage>,
}

/// Reads lines of JSON with `messages` that end with the assistant's; other fields are ignored, as are empty lines.
///
/// # Errors
/// Every line that is none.
pub fn read_questions(text: &str) -> Result<Vec<Question>, LineFaults> {
    let (mut questions, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match question(line) {
            Ok((asked, expected)) => questions.push(Question { id: format!("line {}", index + 1), asked, expected }),
            Err(fault) => faults.push((index + 1, fault)),
        }
    }
    if questions.is_empty() && faults.is_empty() {
        faults.push((1, "the file has no lines".to_owned()));
    }
    if faults.is_empty() { Ok(questions) } else { Err(LineFaults(faults)) }
}

/// The held-out side of a version; texts without an answer are left out.
///
/// # Errors
/// What cannot be read.
pub fn held_out_questions(version: &Version) -> io::Result<Vec<Question>> {
    let mut questions = Vec::new();
    for (number, row) in version.rows()?.enumerate() {
        let row = row?;
        let Content::Chat(mut turns) = row.content else { continue };
        let Some(answer) = turns.pop().filter(|_| row.side == Side::HeldOut) else { continue };
        let message = |turn: datasets::Turn| ChatMessage { role: turn.role.as_str().to_owned(), content: turn.content };
        let asked = turns.into_iter().map(message).collect();
        questions.push(Question { id: format!("row {}", number + 1), asked, expected: answer.content });
    }
    Ok(questions)
}

fn question(line: &str) -> Result<(Vec<ChatMessage>, String), String> {
    let Line { mut messages } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match messages.pop() {
        Some(last) if last.role != "assistant" => {
            Err(format!("the last message is the {}'s; it must be the assistant's, the expected answer", last.role))
        }
        Some(last) if last.content.trim().is_empty() => Err("the expected answer is empty".to_owned()),
        Some(_) if messages.is_empty() => Err("nothing is asked before the answer".to_owned()),
        Some(last) => Ok((messages, last.content)),
        None => Err("`messages` is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_ends_with_its_answer_and_every_other_line_is_named() {
        let good = "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],\"k\":1}\n\n";
        let read = read_questions(good).expect("good");
        assert_eq!((read[0].id.as_str(), read[0].asked.len(), read[0].expected.as_str()), ("line 1", 1, "a"));
        let bad = "{\"messages\":[]}\n{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\nno\n\
                   {\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}\n\
                   {\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\" \"}]}";
        let numbers: Vec<_> = read_questions(bad).expect_err("bad").0.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert!(read_questions("\n").is_err());
    }
}
