//! The forms in which rows come, and how each becomes a conversation or a text. Fields that a shape does not know are
//! ignored and counted, except those whose loss would change what the row means (tools, images): they are refused.

mod alpaca;
mod detect;
mod fields;
mod label;
mod messages;
mod pair;
mod sharegpt;
mod turns;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use detect::check_mapping;
pub use detect::{DetectError, detect};

use self::fields::Columns;
use crate::{
    code::Code,
    finding::Problem,
    mapping::Mapping,
    row::{Content, Turn},
    source::Fields,
};

/// Rows looked at to find the shape.
pub const DETECT_ROWS: usize = 32;

/// The form of a file's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShapeName {
    /// `messages`: role and content, as OpenAI has them; `weight` 0 keeps an answer from being trained.
    Messages,
    /// `conversations`: from and value; `system`.
    Sharegpt,
    /// `instruction`, `input`, `output`, `system`, `history`.
    Alpaca,
    /// `prompt` and `completion`.
    Prompt,
    /// `text` and `label`.
    Label,
    /// `text`, of which everything is learned.
    Text,
}

impl ShapeName {
    /// In the order in which they are tried.
    pub const ALL: [ShapeName; 6] = [
        ShapeName::Messages,
        ShapeName::Sharegpt,
        ShapeName::Alpaca,
        ShapeName::Prompt,
        ShapeName::Label,
        ShapeName::Text,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ShapeName::Messages => "messages",
            ShapeName::Sharegpt => "sharegpt",
            ShapeName::Alpaca => "alpaca",
            ShapeName::Prompt => "prompt",
            ShapeName::Label => "label",
            ShapeName::Text => "text",
        }
    }

    /// The fields without which a row has not this shape.
    pub(crate) fn needs(self) -> &'static [&'static str] {
        match self {
            ShapeName::Messages => &["messages"],
            ShapeName::Sharegpt => &["conversations"],
            ShapeName::Alpaca => &["instruction", "output"],
            ShapeName::Prompt => &["prompt", "completion"],
            ShapeName::Label => &["text", "label"],
            ShapeName::Text => &["text"],
        }
    }

    fn may_have(self) -> &'static [&'static str] {
        match self {
            ShapeName::Alpaca => &["input", "system", "history"],
            ShapeName::Sharegpt => &["system"],
            ShapeName::Messages | ShapeName::Prompt | ShapeName::Label | ShapeName::Text => &[],
        }
    }

    /// The columns of `fields` that this shape does not read.
    pub(crate) fn ignored<'a>(self, fields: &'a Fields, mapping: &Mapping) -> Vec<&'a str> {
        let read = |name: &str| self.needs().iter().chain(self.may_have()).any(|field| mapping.column(field) == name);
        fields.keys().map(String::as_str).filter(|name| !read(name)).collect()
    }
}

impl FromStr for ShapeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = ShapeName::ALL.map(ShapeName::as_str);
        let found = ShapeName::ALL.into_iter().find(|shape| shape.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no shape; shapes are {}", all.join(", ")))
    }
}

/// What a row says, and its label where the shape has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    pub content: Content,
    pub label: Option<String>,
}

/// Fields that would be lost without a trace if they were ignored.
const NEVER_IGNORED: [&str; 5] = ["tools", "functions", "images", "videos", "audios"];

/// Brings a row into its canonical form.
///
/// # Errors
/// The first fault of its fields, roles or turns.
pub fn shape(name: ShapeName, fields: &Fields, mapping: &Mapping) -> Result<Shaped, Problem> {
    let columns = Columns::new(fields, mapping);
    if let Some(lost) = NEVER_IGNORED.iter().find(|field| columns.holds(field)) {
        return Err(Problem::new(Code::Unsupported, format!("has {lost}, which cannot be trained here")));
    }
    let chat = |turns: Vec<Turn>| Ok(Shaped { content: Content::Chat(turns::ordered(turns)?), label: None });
    match name {
        ShapeName::Messages => chat(messages::turns(&columns)?),
        ShapeName::Sharegpt => chat(sharegpt::turns(&columns)?),
        ShapeName::Alpaca => chat(alpaca::turns(&columns)?),
        ShapeName::Prompt => chat(pair::turns(&columns)?),
        ShapeName::Label => {
            let (turns, label) = label::turns(&columns)?;
            Ok(Shaped { label: Some(label), ..chat(turns)? })
        }
        ShapeName::Text => {
            let text = columns.text("text")?;
            if text.trim().is_empty() {
                return Err(Problem::new(Code::Empty, "the text is empty"));
            }
            Ok(Shaped { content: Content::Text(text.to_owned()), label: None })
        }
    }
}
