//! One step: rows in, chosen tokens and scores out. Changes nothing but the KV memory.

use std::sync::Arc;

use crate::model::{Batch, KvCache, LogitsRows, Model, SequenceSlice};
use crate::sampler::{NonFinite, Sampled, log_probability};
use crate::scheduler::Slice;
use crate::sequence::Sequence;

pub(crate) struct Runner {
    model: Arc<Model>,
    kv: KvCache,
}

/// What a step gave one sequence.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Log-probabilities of further prompt tokens.
    pub scores: Vec<f32>,
    /// The next token, if the slice reached the end of what was known.
    pub sampled: Option<Sampled>,
    /// A logit was not finite: the rest is void.
    pub broken: bool,
}

impl Runner {
    pub fn new(model: Arc<Model>, blocks: usize) -> Self {
        let kv = model.new_kv_cache(blocks);
        Self { model, kv }
    }

    /// Computes the slices; one outcome for each, in their order.
    pub fn step(&mut self, running: &[Sequence], slices: &[Slice]) -> Vec<Outcome> {
        let mut tokens = Vec::new();
        let mut parts = Vec::with_capacity(slices.len());
        for slice in slices {
            let sequence = &running[slice.index];
            let start = tokens.len();
            tokens.extend(&sequence.tokens[sequence.computed..sequence.computed + slice.tokens]);
            parts.push(SequenceSlice {
                rows: start..tokens.len(),
                past: sequence.computed,
                blocks: &sequence.blocks,
                adapter: sequence.lease.as_deref(),
                logits: wanted_rows(sequence, slice.tokens),
                rope_length: sequence.prompt_tokens,
            });
        }
        let mut outcomes: Vec<Outcome> = slices.iter().map(|_| Outcome::default()).collect();
        let (model, vocab_size) = (&self.model, self.model.config().vocab_size);
        let part_of = |row: usize| parts.partition_point(|part| part.rows.end <= row);
        let mut take = |rows: &[usize], logits: &[f32]| {
            // Sequences side by side, the rows of one in order.
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
            let (first, last) = (part_of(*first), part_of(*last));
            model.cpu().each_chunk(&mut outcomes[first..=last], 1, |i, outcome| {
                let part = &parts[first + i];
                let own = rows.partition_point(|row| *row < part.rows.start)..rows.len();
                for at in own.take_while(|at| rows[*at] < part.rows.end) {
                    let next = part.past + rows[at] - part.rows.start + 1;
                    let logits = &logits[at * vocab_size..][..vocab_size];
                    if outcome[0].take(&running[slices[first + i].index], next, logits).is_err() {
                        outcome[0].broken = true;
                    }
                }
            });
        };
        self.model.forward(&Batch { tokens: &tokens, sequences: &parts }, &mut self.kv, &mut take);
        outcomes
    }
}

fn wanted_rows(sequence: &Sequence, tokens: usize) -> LogitsRows {
    let scoring = sequence.answer.prompt_logprobs.is_some();
    let reaches_end = tokens == sequence.remaining();
    match (scoring, reaches_end) {
        (true, _) => LogitsRows::All,
        (false, true) => LogitsRows::Last,
        (false, false) => LogitsRows::None,
    }
}

impl Outcome {
    /// `logits` are those for the token at position `next`.
    fn take(&mut self, sequence: &Sequence, next: usize, logits: &[f32]) -> Result<(), NonFinite> {
        if let Some(known) = &sequence.answer.prompt_logprobs
            && next < sequence.prompt_tokens
            // After a preemption, rows are computed again that have been scored.
            && next == known.len() + self.scores.len() + 1
        {
            self.scores.push(log_probability(logits, sequence.tokens[next])?);
        }
        if next == sequence.tokens.len() && !sequence.answer.only_scores() {
            self.sampled = Some(sequence.answer.sampler.choose(logits, next)?);
        }
        Ok(())
    }
}
