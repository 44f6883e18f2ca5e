//! A row as tokens with their loss mask. What is learned is exactly the tokens of the trained answers, each with the
//! token that ends its turn; what the template writes around them is not. Of a plain text everything is learned.
//!
//! Where an answer stands in the rendered text is found by rendering the conversation with and without it, so that no
//! template has to mark it. A template that changes what it wrote when a turn follows is refused, for then no part of
//! the text is surely the answer's.

use std::ops::Range;

use crate::{
    code::Code,
    finding::{Problem, clip},
    loss_mask::LossMask,
    row::{Content, Turn},
    text::{Text, Token},
};

/// Tokens, and which of them are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub trained: LossMask,
}

/// The text that the tokens stand for, and the parts of it that are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Bytes, ascending.
    pub trained: Vec<Range<usize>>,
}

/// # Errors
/// What template or tokenizer cannot take; nothing that could be learned.
pub fn encode(content: &Content, text: &impl Text) -> Result<(Encoded, Rendered), Problem> {
    let (tokens, mask, rendered) = match content {
        Content::Chat(turns) => chat(turns, text)?,
        Content::Text(plain) => {
            let tokens = text.encode_plain(plain).map_err(refused)?;
            let mut mask = LossMask::none(tokens.len());
            (0..tokens.len()).for_each(|at| mask.set(at));
            (tokens, mask, plain.clone())
        }
    };
    let mask = without_first(mask);
    if mask.trained() == 0 {
        return Err(Problem::new(Code::NothingTrained, "has no token that would be learned"));
    }
    let trained = ranges(&tokens, &mask);
    let ids = tokens.iter().map(|token| token.id).collect();
    Ok((Encoded { ids, trained: mask }, Rendered { text: rendered, trained }))
}

fn chat(turns: &[Turn], text: &impl Text) -> Result<(Vec<Token>, LossMask, String), Problem> {
    let whole = text.render(turns).map_err(refused)?;
    let answers = answers(turns, &whole, text)?;
    let tokens = in_pieces(&whole, &answers, text)?;
    let mut mask = LossMask::none(tokens.len());
    for answer in &answers {
        let first = tokens.partition_point(|token| token.start < answer.start);
        let after = tokens.partition_point(|token| token.start < answer.end);
        // The turn's last special token is its end; a line break that the template writes after it is not learned.
        let end = (first..after).rev().find(|at| text.is_special(tokens[*at].id)).map_or(after, |at| at + 1);
        (first..end).for_each(|at| mask.set(at));
    }
    Ok((tokens, mask, whole))
}

/// Where the trained answers stand in `whole`, from the end of their prompt to the end of their turn.
fn answers(turns: &[Turn], whole: &str, text: &impl Text) -> Result<Vec<Range<usize>>, Problem> {
    let mut answers = Vec::new();
    for (at, _) in turns.iter().enumerate().filter(|(_, turn)| turn.is_trained()) {
        let prompt = text.render_prompt(&turns[..at]).map_err(refused)?;
        let end = if at + 1 == turns.len() {
            whole.len()
        } else {
            let through = text.render(&turns[..=at]).map_err(refused)?;
            if !whole.starts_with(&through) {
                return Err(unstable(at, "when another follows"));
            }
            through.len()
        };
        if !whole[..end].starts_with(&prompt) {
            return Err(unstable(at, "than serving's prompt begins it"));
        }
        answers.push(prompt.len()..end);
    }
    Ok(answers)
}

/// A token that spans the beginning of an answer would be half the prompt's. Serving never sees it, for it encodes the
/// prompt alone: so the text is encoded in two parts there.
fn in_pieces(whole: &str, answers: &[Range<usize>], text: &impl Text) -> Result<Vec<Token>, Problem> {
    let tokens = text.encode_rendered(whole).map_err(refused)?;
    let spans = |border: usize| {
        let at = tokens.partition_point(|token| token.end <= border);
        tokens.get(at).is_some_and(|token| token.start < border)
    };
    let borders: Vec<_> = answers.iter().map(|answer| answer.start).filter(|border| spans(*border)).collect();
    if borders.is_empty() {
        return Ok(tokens);
    }
    let mut pieces = Vec::with_capacity(tokens.len() + borders.len());
    let starts = std::iter::once(0).chain(borders.iter().copied());
    for (start, end) in starts.zip(borders.iter().copied().chain([whole.len()])) {
        let piece = text.encode_rendered(&whole[start..end]).map_err(refused)?;
        pieces.extend(piece.into_iter().map(|Token { id, start: from, end: to }| Token {
            id,
            start: start + from,
            end: start + to,
        }));
    }
    Ok(pieces)
}

/// Nothing comes before the first token, so that it cannot be learned.
fn without_first(mask: LossMask) -> LossMask {
    let mut rest = LossMask::none(mask.len());
    (1..mask.len()).filter(|at| mask.get(*at)).for_each(|at| rest.set(at));
    rest
}

/// Neighbouring trained tokens as one range of the text.
fn ranges(tokens: &[Token], mask: &LossMask) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut joined = None;
    for (at, token) in tokens.iter().enumerate().filter(|(at, _)| mask.get(*at)) {
        match ranges.last_mut() {
            Some(last) if joined == Some(at) => last.end = token.end.max(last.end),
            _ => ranges.push(token.start..token.end),
        }
        joined = Some(at + 1);
    }
    ranges
}

fn refused(what: String) -> Problem {
    Problem::new(Code::Template, clip(&what, 200))
}

fn unstable(at: usize, how: &str) -> Problem {
    Problem::new(Code::TemplateUnstable, format!("the chat template writes turn {} otherwise {how}", at + 1))
}
