//! Secrets and personal data in a text: where they stand, of what kind, and placeholders in their place. It finds what
//! has a form or a checksum; names and addresses have neither, and are not found.

mod checksum;
mod patterns;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{code::Code, finding::Problem, row::Content};

/// What a piece of text gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    PrivateKey,
    ApiKey,
    Iban,
    Card,
    Email,
    Phone,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::PrivateKey => "private key",
            Kind::ApiKey => "API key",
            Kind::Iban => "IBAN",
            Kind::Card => "card number",
            Kind::Email => "e-mail address",
            Kind::Phone => "phone number",
        }
    }

    /// What stands in its place when it is masked.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::PrivateKey => "[PRIVATE_KEY]",
            Kind::ApiKey => "[API_KEY]",
            Kind::Iban => "[IBAN]",
            Kind::Card => "[CARD]",
            Kind::Email => "[EMAIL]",
            Kind::Phone => "[PHONE]",
        }
    }

    /// What finding one says about the row.
    fn code(self) -> Code {
        match self {
            Kind::PrivateKey | Kind::ApiKey => Code::Secret,
            Kind::Iban | Kind::Card | Kind::Email | Kind::Phone => Code::Personal,
        }
    }
}

/// Where one stands, in bytes of the text as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub kind: Kind,
    /// `messages[1]` or `text`.
    pub part: String,
    pub start: usize,
    pub end: usize,
}

/// All of them in a text, in order, none over another.
pub fn scan(text: &str) -> Vec<(Kind, Range<usize>)> {
    patterns::find(text)
}

/// `text` with a placeholder for each of `found`, which [`scan`] gave.
pub fn masked(text: &str, found: &[(Kind, Range<usize>)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (kind, range) in found {
        out.push_str(&text[at..range.start]);
        out.push_str(kind.placeholder());
        at = range.end;
    }
    out + &text[at..]
}

/// Looks at every text of a row; with `mask` it also replaces what it finds.
pub(crate) fn inspect(content: &mut Content, mask: bool) -> Vec<Problem> {
    let is_chat = matches!(content, Content::Chat(_));
    let mut spans = Vec::new();
    for (at, text) in content.texts_mut().into_iter().enumerate() {
        let found = scan(text);
        let part = if is_chat { format!("messages[{at}]") } else { "text".to_owned() };
        let span = |(kind, range): &(Kind, Range<usize>)| Span {
            kind: *kind,
            part: part.clone(),
            start: range.start,
            end: range.end,
        };
        spans.extend(found.iter().map(span));
        if mask && !found.is_empty() {
            *text = masked(text, &found);
        }
    }
    if mask {
        return problem(Code::Masked, "masked", spans).into_iter().collect();
    }
    let (secret, personal) = spans.into_iter().partition(|span: &Span| span.kind.code() == Code::Secret);
    [problem(Code::Secret, "holds", secret), problem(Code::Personal, "holds", personal)].into_iter().flatten().collect()
}

fn problem(code: Code, verb: &str, spans: Vec<Span>) -> Option<Problem> {
    let mut kinds: Vec<_> = spans.iter().map(|span| span.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds: Vec<_> = kinds.into_iter().map(Kind::as_str).collect();
    (!spans.is_empty()).then(|| Problem { spans, ..Problem::new(code, format!("{verb}: {}", kinds.join(", "))) })
}

#[cfg(test)]
mod tests;
