//! Who runs in the next step, and with how many tokens. First come, first served over all adapters, since any of them
//! share a step; a sequence whose adapter is on its way is passed by. It owns sequences and blocks and does no compute.

use std::collections::VecDeque;

use crate::blocks::{BlockPool, blocks_for};
use crate::model::{Adapter, BLOCK_TOKENS};
use crate::residents::{AdapterKey, Residents};
use crate::sequence::Sequence;
use crate::speculation::Speculation;
use crate::status::SchedulerTotals;

/// Both queues are ordered by age, the oldest first.
pub(crate) struct Scheduler<A = Adapter> {
    waiting: VecDeque<Sequence<A>>,
    running: Vec<Sequence<A>>,
    pool: BlockPool,
    running_max: usize,
    prefill_tokens_max: usize,
    speculation: Speculation,
    arrivals: u64,
    totals: SchedulerTotals,
}

/// The next `tokens` tokens of the running sequence `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub index: usize,
    pub tokens: usize,
}

impl<A> Scheduler<A> {
    pub fn new(pool: BlockPool, running_max: usize, prefill_tokens_max: usize, speculation: Speculation) -> Self {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        let totals = SchedulerTotals::default();
        Self { waiting, running, pool, running_max, prefill_tokens_max, speculation, arrivals: 0, totals }
    }

    pub fn enqueue(&mut self, mut sequence: Sequence<A>) {
        self.arrivals += 1;
        sequence.arrival = self.arrivals;
        self.waiting.push_back(sequence);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn running(&self) -> &[Sequence<A>] {
        &self.running
    }

    pub fn running_mut(&mut self, index: usize) -> &mut Sequence<A> {
        &mut self.running[index]
    }

    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    pub fn totals(&self) -> SchedulerTotals {
        self.totals
    }

    /// With nothing running: somebody waits for something other than a load or a grammar, so the next round gets further.
    pub fn can_go_on(&self, residents: &Residents<A>) -> bool {
        let stuck = |sequence: &Sequence<A>| {
            let loads = !sequence.has_weights() && sequence.adapter.is_some_and(|key| residents.loads(&key));
            loads || sequence.awaits_grammar()
        };
        !self.waiting.iter().all(stuck)
    }

    /// The oldest request that waits for this adapter.
    pub fn waits_for(&self, key: &AdapterKey) -> Option<&Sequence<A>> {
        self.waiting.iter().find(|sequence| sequence.adapter == Some(*key) && sequence.lease.is_none())
    }

    /// Gives waiting sequences their adapters, as far as those are ready; asks for the others.
    pub fn lease_adapters(&mut self, residents: &mut Residents<A>) {
        let held_up = residents.held_up().and_then(|key| self.waits_for(key)).map(|sequence| sequence.arrival);
        for sequence in &mut self.waiting {
            if held_up.is_some_and(|oldest| sequence.arrival > oldest) {
                return;
            }
            if let (Some(key), None) = (&sequence.adapter, &sequence.lease) {
                sequence.lease = residents.lease(key);
            }
        }
    }

    /// Admits what fits and picks the rows of the next step: first one for every answer that only needs its next token,
    /// then prompts, the oldest first. A step that stays small gets guesses besides ([`Sequence::draft`]). The slices are
    /// in the order of the running sequences.
    pub fn schedule(&mut self) -> Vec<Slice> {
        self.running.iter_mut().for_each(|sequence| sequence.draft.clear());
        self.admit();
        let mut slices = Vec::new();
        self.pick(&mut slices, |remaining, _| if remaining == 1 { 1 } else { 0 });
        self.pick(&mut slices, |remaining, budget| if remaining == 1 { 0 } else { remaining.min(budget) });
        slices.sort_unstable_by_key(|slice| slice.index);
        self.draft(&slices);
        slices
    }

    /// `tokens` more tokens of the running sequence `index` are computed: full blocks become known to the prefix cache.
    pub fn computed(&mut self, index: usize, tokens: usize) {
        let sequence = &mut self.running[index];
        sequence.computed += tokens;
        debug_assert!(sequence.computed <= sequence.tokens.len());
        while (sequence.published + 1) * BLOCK_TOKENS <= sequence.computed {
            let span = sequence.published * BLOCK_TOKENS..(sequence.published + 1) * BLOCK_TOKENS;
            let Sequence { scope, blocks, published, tokens, .. } = sequence;
            self.pool.publish(scope, blocks, *published, &tokens[span]);
            sequence.published += 1;
        }
    }

    /// `accepted` tokens of the sequence's draft have joined its tokens. What was computed for the rest is void: the next
    /// step writes over it, and blocks that only it needed go back.
    pub fn drafted(&mut self, index: usize, accepted: usize) {
        self.computed(index, accepted);
        let sequence = &mut self.running[index];
        sequence.draft.judge(accepted, self.speculation.pause_max);
        self.pool.release(&sequence.blocks.split_off(blocks_for(sequence.computed)));
    }

    /// Takes the running sequences at these indices out and frees what they hold.
    pub fn remove(&mut self, indices: &[usize]) -> Vec<Sequence<A>> {
        let mut index = 0;
        let mut gone = |_: &mut Sequence<A>| {
            index += 1;
            indices.contains(&(index - 1))
        };
        let removed: Vec<_> = self.running.extract_if(.., &mut gone).collect();
        removed.into_iter().map(|sequence| self.free(sequence)).collect()
    }

    /// Takes out what nobody waits for any more.
    pub fn remove_cancelled(&mut self) -> Vec<Sequence<A>> {
        self.remove_where(|sequence| sequence.answer.cancelled())
    }

    /// Takes out those that wait for an adapter that will not come.
    pub fn remove_waiting_for(&mut self, key: &AdapterKey) -> Vec<Sequence<A>> {
        self.remove_where(|sequence| sequence.adapter == Some(*key) && sequence.lease.is_none())
    }

    /// Takes out those whose grammar cannot be served.
    pub fn remove_refused(&mut self) -> Vec<Sequence<A>> {
        self.remove_where(|sequence| sequence.refusal().is_some())
    }

    pub fn remove_all(&mut self) -> Vec<Sequence<A>> {
        self.remove_where(|_| true)
    }

    fn remove_where(&mut self, gone: impl Fn(&Sequence<A>) -> bool) -> Vec<Sequence<A>> {
        let mut removed: Vec<_> = self.running.extract_if(.., |sequence| gone(sequence)).collect();
        let (out, kept) = self.waiting.drain(..).partition(gone);
        self.waiting = kept;
        removed.extend::<VecDeque<_>>(out);
        removed.into_iter().map(|sequence| self.free(sequence)).collect()
    }

    fn free(&mut self, mut sequence: Sequence<A>) -> Sequence<A> {
        self.pool.release(&std::mem::take(&mut sequence.blocks));
        sequence.lease = None;
        sequence
    }

    /// Moves waiting sequences over while there is room for all that they have and all that the running ones were let in
    /// for. The first that finds no room stops it, so that a large one is not overtaken for ever.
    fn admit(&mut self) {
        let mut promised: usize = self.running.iter().map(Sequence::missing_blocks).sum();
        let mut at = 0;
        while self.running.len() < self.running_max && at < self.waiting.len() {
            let sequence = &mut self.waiting[at];
            if !sequence.has_weights() || sequence.awaits_grammar() {
                at += 1;
                continue;
            }
            // Scores need every row of the prompt computed.
            if sequence.answer.prompt_logprobs.is_none() {
                sequence.blocks = self.pool.take_prefix(&sequence.scope, &sequence.tokens);
            }
            let missing = sequence.missing_blocks();
            if promised + missing > self.pool.available() {
                self.pool.release(&std::mem::take(&mut sequence.blocks));
                return;
            }
            promised += missing;
            if let Some(sequence) = self.waiting.remove(at) {
                self.start(sequence);
            }
        }
    }

    fn start(&mut self, mut sequence: Sequence<A>) {
        sequence.published = sequence.blocks.len();
        sequence.computed = sequence.blocks.len() * BLOCK_TOKENS;
        if sequence.cached_tokens.is_none() {
            sequence.cached_tokens = Some(sequence.computed);
            self.totals.prompt_tokens += sequence.prompt_tokens as u64;
            self.totals.cached_prompt_tokens += sequence.computed as u64;
        }
        sequence.answer.runs(sequence.computed);
        let at = self.running.partition_point(|other| other.arrival < sequence.arrival);
        self.running.insert(at, sequence);
    }

    /// Adds slices of the size that `wanted` (tokens to compute, prompt tokens left for this step) says.
    fn pick(&mut self, slices: &mut Vec<Slice>, wanted: impl Fn(usize, usize) -> usize) {
        let mut budget = self.prefill_tokens_max;
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            let tokens = wanted(sequence.remaining(), budget);
            if tokens > 0 && !sequence.is_held_up() {
                if !self.reserve(index, tokens, slices) {
                    return;
                }
                slices.push(Slice { index, tokens });
                budget = budget.saturating_sub(tokens);
            }
            index += 1;
        }
    }

    /// Adds guesses to answers that get their next token, the oldest first, while the step has few rows. A guess takes
    /// only blocks that no running sequence needs for its next token.
    fn draft(&mut self, slices: &[Slice]) {
        let mut rows: usize = slices.iter().map(|slice| slice.tokens).sum();
        if self.speculation.tokens_max == 0 || rows >= self.speculation.rows_max {
            return;
        }
        let promised: usize = self.running.iter().map(Sequence::missing_blocks).sum();
        for slice in slices {
            let room = self.speculation.rows_max - rows;
            let sequence = &mut self.running[slice.index];
            // Which tokens a grammar allows behind a guess is not known in time.
            if sequence.remaining() != 1 || sequence.guide.is_some() || !sequence.draft.is_due() {
                continue;
            }
            let mut guesses = self.speculation.look_up(&sequence.tokens, room.min(sequence.draft_max()));
            while sequence.blocks.len() < blocks_for(sequence.tokens.len() + guesses.len())
                && self.pool.available() > promised
                && let Some(block) = self.pool.allocate()
            {
                sequence.blocks.push(block);
            }
            guesses.truncate(sequence.blocks.len() * BLOCK_TOKENS - sequence.tokens.len());
            rows += guesses.len();
            sequence.draft.set(guesses);
        }
    }

    /// Gets the blocks for the next `tokens` tokens, if need be by putting back the youngest sequence. False if that was
    /// this one. (The oldest can always go on: a request that does not fit an empty pool is refused at the door.)
    fn reserve(&mut self, index: usize, tokens: usize, slices: &mut Vec<Slice>) -> bool {
        let needed = blocks_for(self.running[index].computed + tokens);
        while self.running[index].blocks.len() < needed {
            if let Some(block) = self.pool.allocate() {
                self.running[index].blocks.push(block);
                continue;
            }
            let youngest = self.running.len() - 1;
            self.preempt(youngest);
            slices.retain(|slice| slice.index != youngest);
            if youngest == index {
                return false;
            }
        }
        true
    }

    /// Puts a sequence back into the queue at its age. Its tokens and its lease stay; its keys and values are computed
    /// again later, unless the prefix cache still has them.
    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.pool.release(&std::mem::take(&mut sequence.blocks));
        sequence.computed = 0;
        sequence.published = 0;
        sequence.draft.clear();
        sequence.answer.waits();
        self.totals.preemptions += 1;
        let at = self.waiting.partition_point(|other| other.arrival < sequence.arrival);
        self.waiting.insert(at, sequence);
    }
}

#[cfg(test)]
mod tests;
