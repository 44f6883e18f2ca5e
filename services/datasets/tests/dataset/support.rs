//! A text model with ChatML and one token for each word, and checks of texts in memory.

use std::{io::Cursor, ops::Range};

use datasets::{
    CheckError, Code, Format, Input, Limits, Options, Outcome, Report, Sink, Source, Text, Token, Turn, check,
};

/// How the template writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    ChatMl,
    /// Leaves out the thoughts of an answer once another turn follows, as some do.
    Forgetful,
    /// Takes no system message.
    Strict,
}

#[derive(Clone, Debug)]
pub struct Words {
    pub template: Template,
    special: Vec<String>,
}

pub const WORDS: fn() -> Words = || Words::new(Template::ChatMl);

pub const START: &str = "<|im_start|>";
pub const END: &str = "<|im_end|>";

impl Words {
    pub fn new(template: Template) -> Self {
        Words { template, special: vec![START.to_owned(), END.to_owned()] }
    }

    /// Words, runs of white space and special tokens.
    fn pieces(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let special = self.special.iter().find(|special| rest.starts_with(special.as_str()));
            let len = match special {
                Some(special) => special.len(),
                None => {
                    let white = rest.starts_with(char::is_whitespace);
                    let next = self.special.iter().filter_map(|special| rest.find(special.as_str())).min();
                    let end = rest.find(|c: char| c.is_whitespace() != white).unwrap_or(rest.len());
                    end.min(next.unwrap_or(rest.len()))
                }
            };
            pieces.push(at..at + len);
            at += len;
        }
        pieces
    }
}

impl Text for Words {
    fn render(&self, turns: &[Turn]) -> Result<String, String> {
        if self.template == Template::Strict && turns.iter().any(|turn| turn.role.as_str() == "system") {
            return Err("System messages are not supported!".to_owned());
        }
        let mut text = String::new();
        for (at, turn) in turns.iter().enumerate() {
            let thoughts = self.template == Template::Forgetful && at + 1 == turns.len() && turn.is_trained();
            let thoughts = if thoughts { "<think></think>" } else { "" };
            text += &format!("{START}{}\n{thoughts}{}{END}\n", turn.role.as_str(), turn.content);
        }
        Ok(text)
    }

    fn render_prompt(&self, turns: &[Turn]) -> Result<String, String> {
        Ok(format!("{}{START}assistant\n", self.render(turns)?))
    }

    fn encode_rendered(&self, text: &str) -> Result<Vec<Token>, String> {
        let token = |Range { start, end }| {
            let piece = &text[start..end];
            let special = self.special.iter().position(|special| special == piece);
            let id = special.map_or_else(|| 10 + piece.bytes().map(u32::from).sum::<u32>(), |at| at as u32);
            Token { id, start, end }
        };
        Ok(self.pieces(text).into_iter().map(token).collect())
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<Token>, String> {
        self.encode_rendered(text)
    }

    fn is_special(&self, id: u32) -> bool {
        id < 2
    }

    fn special_texts(&self) -> &[String] {
        &self.special
    }

    fn fingerprint(&self) -> &str {
        "words"
    }
}

/// Everything goes to the training side, so that no test depends on a hash.
pub fn options() -> Options {
    let mut options = Options { tokens_max: 64, ..Options::default() };
    (options.split.held_out_percent, options.split.validation_percent) = (0, 0);
    options
}

/// Everything that a check told.
#[derive(Debug)]
pub struct Checked {
    pub report: Report,
    pub outcomes: Vec<Outcome>,
    pub rows: Vec<String>,
}

impl Checked {
    /// Codes of the rows' findings, in order, with their lines.
    pub fn codes(&self) -> Vec<(u64, Code)> {
        self.outcomes.iter().flat_map(|outcome| &outcome.findings).map(|found| (found.line, found.code)).collect()
    }

    /// Only the reason of the first finding.
    pub fn reason(&self) -> &str {
        self.report.findings.first().map_or("", |finding| finding.reason.as_str())
    }
}

#[derive(Default)]
struct All {
    outcomes: Vec<Outcome>,
    rows: Vec<String>,
}

impl Sink for All {
    fn outcome(&mut self, outcome: &Outcome) -> std::io::Result<()> {
        self.outcomes.push(outcome.clone());
        Ok(())
    }

    fn accepted(&mut self, row: &str) -> std::io::Result<()> {
        self.rows.push(row.to_owned());
        Ok(())
    }
}

pub fn source(text: impl Into<Vec<u8>>, format: Format) -> Source {
    Source::read(Cursor::new(text.into()), format, &Limits::default()).expect("a beginning")
}

pub fn run(input: Input, options: &Options, text: &Words, limits: &Limits) -> Result<Checked, CheckError> {
    let mut all = All::default();
    let report = check(input, text, options, limits, &mut all)?;
    Ok(Checked { report, outcomes: all.outcomes, rows: all.rows })
}

/// JSON Lines under `options`.
pub fn checked(lines: impl Into<Vec<u8>>, options: &Options) -> Checked {
    let input = Input { rows: source(lines, Format::Jsonl), held_out: None };
    run(input, options, &WORDS(), &Limits::default()).expect("a report")
}

/// A row of the shape `messages`.
pub fn chat(turns: &[(&str, &str)]) -> String {
    let turns: Vec<_> =
        turns.iter().map(|(role, content)| serde_json::json!({ "role": role, "content": content })).collect();
    serde_json::json!({ "messages": turns }).to_string()
}

pub fn question(question: &str, answer: &str) -> String {
    chat(&[("user", question), ("assistant", answer)])
}
