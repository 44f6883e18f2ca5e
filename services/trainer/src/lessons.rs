//! What is learned from: the rows of a dataset version as sequences of tokens with their loss masks.

use datasets::{Content, Encoded, Problem, Row, Side, Text, Turn, Version, encode};
use engine::train::Sequence;
use serde::Deserialize;

/// Rows of a version, side by side.
#[derive(Clone, Debug, Default)]
pub struct Lessons {
    pub train: Vec<Sequence>,
    /// What decides when to stop; never learned.
    pub validation: Vec<Sequence>,
    /// Of what the base can do and must not forget: some of them are learned in every epoch.
    pub replay: Vec<Sequence>,
}

#[derive(Debug, thiserror::Error)]
pub enum LessonError {
    #[error("the dataset cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error(
        "the dataset's tokens were counted with template and tokenizer {dataset}, this base has {base}: check it again"
    )]
    OtherText { dataset: String, base: String },
    #[error("row {row} of the version: {problem}")]
    Row { row: usize, problem: String },
    #[error("line {line} of the replay: {problem}")]
    Replay { line: usize, problem: String },
    #[error("the dataset has no row to learn from")]
    NothingToLearn,
}

impl Lessons {
    /// Texts that are longer than `tokens_max` are cut into pieces of that length.
    ///
    /// # Errors
    /// A version that was made for another tokenizer or template; a row that cannot be encoded; nothing to learn.
    pub fn read(version: &Version, text: &impl Text, tokens_max: usize) -> Result<Self, LessonError> {
        let dataset = &version.manifest().text_fingerprint;
        if dataset != text.fingerprint() {
            return Err(LessonError::OtherText { dataset: dataset.clone(), base: text.fingerprint().to_owned() });
        }
        let mut lessons = Self::default();
        for (number, row) in version.rows()?.enumerate() {
            let row = row?;
            let into = match row.side {
                Side::Train => &mut lessons.train,
                Side::Validation => &mut lessons.validation,
                Side::HeldOut => continue,
            };
            let encoded = sequences(&row, text, tokens_max);
            into.extend(encoded.map_err(|problem| LessonError::Row { row: number + 1, problem: problem.reason })?);
        }
        if lessons.train.is_empty() {
            return Err(LessonError::NothingToLearn);
        }
        Ok(lessons)
    }
}

impl Lessons {
    /// Adds conversations of the base's skills: lines of JSON with `messages`, of which every answer is learned. Longer ones
    /// than `tokens_max` are left out.
    ///
    /// # Errors
    /// A line that is none, or that cannot be encoded.
    pub fn with_replay(mut self, lines: &str, text: &impl Text, tokens_max: usize) -> Result<Self, LessonError> {
        for (index, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fault = |problem: String| LessonError::Replay { line: index + 1, problem };
            let Conversation { messages } = serde_json::from_str(line).map_err(|error| fault(error.to_string()))?;
            let (encoded, _) = encode(&Content::Chat(messages), text).map_err(|problem| fault(problem.reason))?;
            if encoded.ids.len() <= tokens_max {
                self.replay.push(sequence(encoded));
            }
        }
        Ok(self)
    }

    /// One of the training side, or after those one of the replay.
    pub(crate) fn row(&self, number: usize) -> &Sequence {
        self.train.get(number).unwrap_or_else(|| &self.replay[number - self.train.len()])
    }
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Turn>,
}

fn sequence(encoded: Encoded) -> Sequence {
    let weights = encoded.trained.iter().map(|trained| f32::from(u8::from(trained))).collect();
    Sequence { tokens: encoded.ids, weights }
}

fn sequences(row: &Row, text: &impl Text, tokens_max: usize) -> Result<Vec<Sequence>, Problem> {
    let (encoded, _) = encode(&row.content, text)?;
    let whole = sequence(encoded);
    match row.content {
        Content::Chat(_) => Ok(vec![whole]),
        Content::Text(_) => Ok(pieces(whole, tokens_max)),
    }
}

/// A piece of one token has nothing to learn, so that the last one may be left out.
fn pieces(whole: Sequence, tokens_max: usize) -> Vec<Sequence> {
    let chunks = whole.tokens.chunks(tokens_max.max(2)).zip(whole.weights.chunks(tokens_max.max(2)));
    let pieces = chunks.map(|(tokens, weights)| Sequence { tokens: tokens.to_vec(), weights: weights.to_vec() });
    pieces.filter(|piece| piece.trained().0 > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_no_piece_is_without_anything_to_learn() {
        let lengths = |tokens: u32| {
            let pieces = pieces(Sequence::text((0..tokens).collect()), 4);
            pieces.iter().map(|piece| piece.tokens.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(8), [4, 4]);
        assert_eq!(lengths(9), [4, 4], "one token alone predicts nothing");
        assert_eq!(lengths(10), [4, 4, 2]);
    }
}
