//! The rows of a pass: sequences of all parts one after the other, each attending to itself alone, without padding.

use std::ops::Range;

use kernels::{BLOCK_TOKENS, BlockId, Cpu, RotaryTable};

use super::TrainError;
use crate::model::ModelConfig;

/// One sequence of token ids to learn from.
///
/// Token `i` is predicted from those before it, and its loss counts `weights[i]` times; 0 masks it. Nothing is before
/// the first token, so its weight is of no account. Plain text has weights of one throughout.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    pub tokens: Vec<u32>,
    /// One for each token: finite and not negative.
    pub weights: Vec<f32>,
}

impl Sequence {
    /// Every token is learnt.
    pub fn text(tokens: Vec<u32>) -> Sequence {
        Sequence { weights: vec![1.0; tokens.len()], tokens }
    }

    /// Tokens that are learnt, and the sum of their weights.
    pub fn trained(&self) -> (usize, f64) {
        let weights = || self.weights.iter().skip(1).filter(|weight| **weight > 0.0);
        (weights().count(), weights().map(|weight| f64::from(*weight)).sum())
    }

    fn check(&self, config: &ModelConfig) -> Result<(), String> {
        let length = self.tokens.len();
        if length == 0 {
            return Err("it has no tokens".into());
        }
        if length > config.context_length {
            return Err(format!("{length} tokens; the model is made for {}", config.context_length));
        }
        if self.weights.len() != length {
            return Err(format!("{} weights for {length} tokens", self.weights.len()));
        }
        if let Some(token) = self.tokens.iter().find(|token| **token as usize >= config.vocab_size) {
            return Err(format!("token {token} is out of a vocabulary of {}", config.vocab_size));
        }
        match self.weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            Some(weight) => Err(format!("a weight is {weight}; it is a number from 0 on")),
            None => Ok(()),
        }
    }
}

/// All rows of a pass.
pub(super) struct Batch {
    pub tokens: Vec<u32>,
    /// Rows of each sequence.
    pub sequences: Vec<Range<usize>>,
    pub parts: Vec<PartRows>,
    /// Rows whose next token is learnt, that token and its weight; ascending, so part by part.
    pub trained_rows: Vec<usize>,
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
    /// One for each rope of the model.
    pub rotary: Vec<RotaryTable>,
    /// Blocks of each sequence, and where each row's key and value go.
    pub blocks: Vec<Vec<BlockId>>,
    pub places: Vec<(BlockId, usize)>,
}

/// The rows of one part.
pub(super) struct PartRows {
    pub rows: Range<usize>,
    /// The same, one by one.
    pub list: Vec<usize>,
    /// Of [`Batch::trained_rows`].
    pub trained: Range<usize>,
    pub weight: f64,
}

impl Batch {
    /// The rows of `parts`.
    ///
    /// # Errors
    /// A faulty sequence, a part without anything to learn, or more than `tokens_max` rows.
    pub fn new(config: &ModelConfig, cpu: &Cpu, parts: &[&[Sequence]], tokens_max: usize) -> Result<Batch, TrainError> {
        let found = parts.iter().copied().flatten().map(|sequence| sequence.tokens.len()).sum();
        if found > tokens_max {
            return Err(TrainError::TooManyTokens { found, limit: tokens_max });
        }
        let mut batch = Batch {
            tokens: Vec::with_capacity(found),
            sequences: Vec::new(),
            parts: Vec::with_capacity(parts.len()),
            trained_rows: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
            rotary: Vec::new(),
            blocks: Vec::new(),
            places: Vec::with_capacity(found),
        };
        for (part, sequences) in parts.iter().enumerate() {
            let (first, first_trained) = (batch.tokens.len(), batch.trained_rows.len());
            for (sequence, content) in sequences.iter().enumerate() {
                content.check(config).map_err(|message| TrainError::Sequence { part, sequence, message })?;
                batch.push(content);
            }
            let (rows, trained) = (first..batch.tokens.len(), first_trained..batch.trained_rows.len());
            if trained.is_empty() {
                return Err(TrainError::NothingTrained { part });
            }
            let weight = batch.weights[trained.clone()].iter().map(|weight| f64::from(*weight)).sum();
            batch.parts.push(PartRows { list: rows.clone().collect(), rows, trained, weight });
        }
        let positions: Vec<_> = batch.sequences.iter().map(|rows| (0..rows.len(), rows.len())).collect();
        batch.rotary = config.rotary(cpu, &positions);
        Ok(batch)
    }

    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// KV blocks of all sequences.
    pub fn block_count(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    fn push(&mut self, sequence: &Sequence) {
        let first = self.tokens.len();
        let next = sequence.tokens.iter().zip(&sequence.weights).enumerate().skip(1);
        for (i, (token, weight)) in next.filter(|(_, (_, weight))| **weight > 0.0) {
            self.trained_rows.push(first + i - 1);
            self.targets.push(*token);
            self.weights.push(*weight);
        }
        let taken = self.block_count();
        let blocks: Vec<BlockId> =
            (taken..taken + sequence.tokens.len().div_ceil(BLOCK_TOKENS)).map(|block| BlockId(block as u32)).collect();
        let place = |position: usize| (blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        self.places.extend((0..sequence.tokens.len()).map(place));
        self.tokens.extend_from_slice(&sequence.tokens);
        self.sequences.push(first..self.tokens.len());
        self.blocks.push(blocks);
    }
}
