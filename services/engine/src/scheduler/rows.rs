//! The rows of the next step: one for every answer that only needs its next token, the rest for prompts, and guesses
//! where there is room. Who gets blocks when there are none left.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{Limits, Scheduler, Slice};
use crate::blocks::blocks_for;
use crate::model::BLOCK_TOKENS;
use crate::sequence::Sequence;

impl<A> Scheduler<A> {
    pub(super) fn plan(&mut self) -> Vec<Slice> {
        self.running.iter_mut().for_each(|sequence| sequence.planned = 0);
        let computes = |sequence: &&Sequence<A>| !sequence.is_held_up() && !sequence.is_parked();
        let next = self.running.iter().filter(computes).filter(|sequence| sequence.remaining() == 1);
        for arrival in next.map(|sequence| sequence.arrival).collect::<Vec<_>>() {
            self.take_rows(arrival, 1);
        }
        self.share_prompt_rows();
        let planned = self.running.iter().enumerate().filter(|(_, sequence)| sequence.planned > 0);
        let slices: Vec<_> = planned.map(|(index, sequence)| Slice { index, tokens: sequence.planned }).collect();
        self.draft(&slices);
        slices
    }

    /// Prompts get the rows that there are in the order of their classes, then of what their tenants have had, then of
    /// their age; the oldest of a tenant that got none for long enough goes before all.
    fn share_prompt_rows(&mut self) {
        let bound = self.limits.fairness.turn_after_steps;
        let computes =
            |sequence: &&Sequence<A>| sequence.remaining() > 1 && !sequence.is_held_up() && !sequence.is_parked();
        let turn = |sequence: &Sequence<A>| {
            let overdue = sequence.passed_over >= bound || sequence.has_turn;
            let service = self.accounts.service(sequence.share.tenant);
            (Reverse(overdue), Reverse(sequence.share.priority), service, sequence.arrival)
        };
        let mut prompts: Vec<_> = self.running.iter().filter(computes).map(turn).collect();
        prompts.sort_unstable();
        let Limits { prefill_tokens_max, fairness, .. } = &self.limits;
        let contended = fairness.contended_prefill_tokens_max.min(*prefill_tokens_max);
        let mut left = if self.accounts.contend() { contended } else { *prefill_tokens_max };
        let mut tenants = HashSet::new();
        for (.., arrival) in prompts {
            let Some(index) = self.find(arrival) else { continue };
            let sequence = &mut self.running[index];
            let is_first = tenants.insert(sequence.share.tenant);
            let tokens = sequence.remaining().min(left);
            if tokens == 0 {
                sequence.passed_over = sequence.passed_over.saturating_add(u32::from(is_first));
            } else if self.take_rows(arrival, tokens) {
                left -= tokens;
            }
        }
    }

    /// Plans the next `tokens` tokens of a sequence, with blocks for them; false if it had to go back instead.
    fn take_rows(&mut self, arrival: u64, tokens: usize) -> bool {
        if !self.reserve(arrival, tokens) {
            return false;
        }
        let Some(index) = self.find(arrival) else { return false };
        self.running[index].planned = tokens;
        self.running[index].passed_over = 0;
        true
    }

    /// Gets the blocks for the next `tokens` tokens, if need be by putting back whoever goes first. False if that was
    /// this one.
    fn reserve(&mut self, arrival: u64, tokens: usize) -> bool {
        while let Some(index) = self.find(arrival) {
            let sequence = &self.running[index];
            if sequence.blocks.len() >= blocks_for(sequence.computed + tokens) {
                return true;
            }
            let capped = self.own_room(sequence) == 0;
            if !capped && let Some(block) = self.pool.allocate() {
                self.running[index].blocks.push(block);
                continue;
            }
            let tenant = self.running[index].share.tenant;
            let oldest = self.oldest();
            let may_go =
                |other: &&Sequence<A>| oldest != Some(other.arrival) && (!capped || other.share.tenant == tenant);
            let others = self.running.iter().filter(may_go);
            let victim = others.min_by_key(|other| self.goes_first(other)).map(|other| other.arrival);
            let Some(victim) = victim.and_then(|victim| self.find(victim)) else {
                // The oldest, alone: it fits, or it would have been refused at the door.
                debug_assert!(false, "no block for the oldest sequence");
                return false;
            };
            self.totals.preemptions += 1;
            self.put_back(victim);
        }
        false
    }

    /// Blocks that its tenant may have besides those that it holds.
    fn own_room(&self, sequence: &Sequence<A>) -> usize {
        let (tenant, most) = (sequence.share.tenant, sequence.share.kv_blocks_max as usize);
        if most >= self.pool.total() {
            return usize::MAX;
        }
        let own = self.running.iter().filter(|other| other.share.tenant == tenant);
        most.saturating_sub(own.map(|other| other.blocks.len()).sum())
    }

    /// Adds guesses to answers that get their next token, the oldest first, while the step has few rows. A guess takes
    /// only blocks that no running sequence needs for its next token.
    fn draft(&mut self, slices: &[Slice]) {
        let speculation = self.limits.speculation;
        let mut rows: usize = slices.iter().map(|slice| slice.tokens).sum();
        if speculation.tokens_max == 0 || rows >= speculation.rows_max {
            return;
        }
        let promised: usize = self.running.iter().map(Sequence::missing_blocks).sum();
        for slice in slices {
            let room = speculation.rows_max - rows;
            let mut own_room = self.own_room(&self.running[slice.index]);
            let sequence = &mut self.running[slice.index];
            // Which tokens a grammar allows behind a guess is not known in time.
            if sequence.remaining() != 1 || sequence.guide.is_some() || !sequence.draft.is_due() {
                continue;
            }
            let mut guesses = speculation.look_up(&sequence.tokens, room.min(sequence.draft_max()));
            while own_room > 0
                && sequence.blocks.len() < blocks_for(sequence.tokens.len() + guesses.len())
                && self.pool.available() > promised
                && let Some(block) = self.pool.allocate()
            {
                sequence.blocks.push(block);
                own_room -= 1;
            }
            guesses.truncate(sequence.blocks.len() * BLOCK_TOKENS - sequence.tokens.len());
            rows += guesses.len();
            sequence.draft.set(guesses);
        }
    }
}
