//! One step: rows in, chosen tokens and scores out. Changes nothing but the KV memory.

use std::sync::Arc;

use crate::grammar::Guide;
use crate::model::{Batch, KvCache, LogitsRows, Model, SequenceSlice};
use crate::sampler::{NonFinite, Place, Sampled, log_probability};
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
    /// The next tokens, if the slice reached the end of what was known: one, and one for each guess that was right.
    pub sampled: Vec<Sampled>,
    /// A logit was not finite: nothing comes behind what is here.
    pub broken: bool,
    /// No token was chosen, since it was not known which ones may come.
    pub late: bool,
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
            tokens.extend(sequence.draft.tokens());
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
                    outcome[0].take(&running[slices[first + i].index], next, logits);
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
        (false, true) => LogitsRows::LastN(1 + sequence.draft.tokens().len()),
        (false, false) => LogitsRows::None,
    }
}

impl Outcome {
    /// `logits` are those for the token at position `next`; rows come in order.
    fn take(&mut self, sequence: &Sequence, next: usize, logits: &[f32]) {
        if self.broken {
            return;
        }
        match self.score(sequence, next, logits).and_then(|()| self.choose(sequence, next, logits)) {
            Ok(()) => {}
            Err(NonFinite) => self.broken = true,
        }
    }

    fn score(&mut self, sequence: &Sequence, next: usize, logits: &[f32]) -> Result<(), NonFinite> {
        if let Some(known) = &sequence.answer.prompt_logprobs
            && next < sequence.prompt_tokens
            // After a preemption, rows are computed again that have been scored.
            && next == known.len() + self.scores.len() + 1
        {
            self.scores.push(log_probability(logits, sequence.tokens[next])?);
        }
        Ok(())
    }

    /// Row by row as without guesses: the row behind a guess counts only if the guess is what was chosen before it.
    fn choose(&mut self, sequence: &Sequence, next: usize, logits: &[f32]) -> Result<(), NonFinite> {
        let Some(guessed) = next.checked_sub(sequence.tokens.len()) else { return Ok(()) };
        let ahead = &sequence.draft.tokens()[..guessed];
        let holds = self.sampled.iter().map(|sampled| &sampled.id).eq(ahead);
        if !holds || sequence.answer.only_scores() {
            return Ok(());
        }
        let mask = sequence.guide.as_ref().map(Guide::mask);
        if let Some(None) = mask {
            self.late = true;
            return Ok(());
        }
        let mask = mask.flatten();
        let place = Place { position: next, ahead, allowed: mask.as_deref() };
        self.sampled.push(sequence.answer.sampler.choose_at(&place, logits)?);
        Ok(())
    }
}
