//! Lines as token ids. Every fault is collected, with its line.

use engine::{model::ModelConfig, text::TextModel};
use trainer::LineFaults;

use super::lines::{Input, Line};

/// A line, ready for the engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    pub number: usize,
    pub ids: Vec<u32>,
    /// With prompt and completion: index among the log-probabilities of the completion's first token.
    pub completion_start: Option<usize>,
}

/// # Errors
/// Every line that the model cannot take.
pub fn encode(
    lines: &[Line],
    text: &TextModel,
    has_tokenizer: bool,
    model: &ModelConfig,
) -> Result<Vec<Encoded>, LineFaults> {
    let (mut encoded, mut faults) = (Vec::with_capacity(lines.len()), Vec::new());
    for line in lines {
        match one(line, text, has_tokenizer).and_then(|line| check(line, model)) {
            Ok(line) => encoded.push(line),
            Err(fault) => faults.push((line.number, fault)),
        }
    }
    if faults.is_empty() { Ok(encoded) } else { Err(LineFaults(faults)) }
}

fn one(line: &Line, text: &TextModel, has_tokenizer: bool) -> Result<Encoded, String> {
    let encode = |string: &str| {
        if has_tokenizer {
            text.encode(string).map_err(|error| error.to_string())
        } else {
            Err("the checkpoint has no tokenizer.json; give `tokens`".to_owned())
        }
    };
    let (ids, completion_start) = match &line.input {
        Input::Tokens(ids) => (ids.clone(), None),
        Input::Text(string) => (encode(string)?, None),
        Input::Pair { prompt, completion } => {
            let alone = encode(prompt)?;
            let whole = encode(&format!("{prompt}{completion}"))?;
            // A token that spans the border belongs to the completion, and so does all after it.
            let shared = alone.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            (whole, Some(shared.saturating_sub(1)))
        }
    };
    Ok(Encoded { number: line.number, ids, completion_start })
}

fn check(line: Encoded, model: &ModelConfig) -> Result<Encoded, String> {
    let ModelConfig { vocab_size, context_length, .. } = model;
    if let Some(id) = line.ids.iter().find(|id| **id as usize >= *vocab_size) {
        return Err(format!("token {id} is not in the vocabulary of {vocab_size} tokens"));
    }
    if line.ids.len() > *context_length {
        return Err(format!("{} tokens do not fit the context of {context_length}", line.ids.len()));
    }
    Ok(line)
}
