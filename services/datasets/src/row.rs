//! A row as every shape ends up: a conversation or a plain text, in one canonical spelling.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation, in OpenAI's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    pub role: Role,
    pub content: String,
    /// 0 keeps an answer from being trained. Only answers are trained, so the others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
}

impl Turn {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Turn { role, content: content.into(), weight: None }
    }

    /// Whether its tokens are learned.
    pub fn is_trained(&self) -> bool {
        self.role == Role::Assistant && self.weight != Some(0)
    }
}

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Turns, of which the trained answers are learned.
    #[serde(rename = "messages")]
    Chat(Vec<Turn>),
    /// A text of which everything is learned (continued pre-training).
    Text(String),
}

/// Which part of the version a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Train,
    /// Tells training when to stop.
    Validation,
    /// Never seen in training; decides whether the result is better.
    HeldOut,
}

impl Side {
    pub const ALL: [Side; 3] = [Side::Train, Side::Validation, Side::HeldOut];

    pub fn as_str(self) -> &'static str {
        match self {
            Side::Train => "train",
            Side::Validation => "validation",
            Side::HeldOut => "held_out",
        }
    }
}

impl Content {
    /// What the answer is to: everything before the last turn, or the text itself.
    pub fn question(&self) -> String {
        match self {
            Content::Chat(turns) => {
                let before = turns.len().saturating_sub(1);
                turns[..before].iter().map(|turn| format!("{}\n{}\n", turn.role.as_str(), turn.content)).collect()
            }
            Content::Text(text) => text.clone(),
        }
    }

    /// The last turn; a plain text has none.
    pub fn answer(&self) -> Option<&str> {
        match self {
            Content::Chat(turns) => turns.last().map(|turn| turn.content.as_str()),
            Content::Text(_) => None,
        }
    }

    /// Everything that somebody wrote in it, for changing in place.
    pub(crate) fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Content::Chat(turns) => turns.iter_mut().map(|turn| &mut turn.content).collect(),
            Content::Text(text) => vec![text],
        }
    }

    /// Everything that somebody wrote in it.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match self {
            Content::Chat(turns) => turns.iter().map(|turn| turn.content.as_str()).collect(),
            Content::Text(text) => vec![text],
        }
    }
}

/// A row of a version. Its JSON, fields in this order, is the canonical spelling that the digest is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub side: Side,
    /// The value of the group column, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Of a label row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(flatten)]
    pub content: Content,
}

/// Letters of ASCII made small and white space made one blank: how texts are compared. It depends on no table that
/// changes with a compiler.
pub(crate) fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().map(|c| c.to_ascii_lowercase()));
    }
    out
}
