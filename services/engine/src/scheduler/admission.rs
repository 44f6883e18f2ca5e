//! Who is let in next: of the class whose turn it is, the tenant that has had least, and of its requests the oldest.
//! Where there is no room, a tenant that has nothing running gets some from one that has several.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use domain::TenantId;

use super::Scheduler;
use super::accounts::Service;
use super::waiting::Turn;
use crate::model::BLOCK_TOKENS;
use crate::sequence::Sequence;

/// What became of a request that was to be let in.
enum Admitted {
    Runs,
    /// Its tenant holds as much as it may; others may go before it.
    Capped,
    NoRoom,
}

impl<A> Scheduler<A> {
    /// Lets waiting sequences in while there is room for all that they have and all that the running ones were let in
    /// for. The first that finds no room stops it, so that a large one is not overtaken for ever.
    pub(super) fn admit(&mut self) {
        let classes = self.waiting.classes();
        let (mut aside, mut served) = (Vec::new(), Vec::new());
        while let Some((turn, overdue)) = self.next_turn() {
            match self.let_in(&turn, overdue) {
                Admitted::Runs => {
                    self.passed_over.remove(&turn.share.priority);
                    served.push(turn.share.priority);
                }
                Admitted::Capped => {
                    self.waiting.set_aside(turn.share.tenant);
                    aside.push(turn.share.tenant);
                }
                Admitted::NoRoom => break,
            }
        }
        aside.into_iter().for_each(|tenant| self.waiting.stand(tenant, &self.accounts));
        let runs = self.running.iter().map(|sequence| sequence.share.priority).max();
        let highest = runs.max(classes.first().copied()).unwrap_or_default();
        let still: BTreeMap<u32, u32> = classes
            .into_iter()
            // The highest of all is never passed over; it only waits for room.
            .filter(|class| *class < highest && !served.contains(class))
            .map(|class| (class, self.passed_over.get(&class).map_or(1, |steps| steps.saturating_add(1))))
            .collect();
        self.passed_over = still;
    }

    /// Whose turn it is, and whether that is because its class was passed over for too long.
    fn next_turn(&self) -> Option<(Turn, bool)> {
        let bound = self.limits.fairness.turn_after_steps;
        let overdue = self.passed_over.iter().filter(|(_, steps)| **steps >= bound);
        // The one that has waited for longest; of equals the lowest, which the others would go before.
        let overdue = overdue.max_by_key(|(class, steps)| (**steps, Reverse(**class))).map(|(class, _)| *class);
        match overdue.and_then(|class| self.waiting.next(Some(class))) {
            Some(turn) => Some((turn, true)),
            None => self.waiting.next(None).map(|turn| (turn, false)),
        }
    }

    fn let_in(&mut self, turn: &Turn, overdue: bool) -> Admitted {
        let Some(mut sequence) = self.waiting.remove(turn.arrival, &self.accounts) else { return Admitted::NoRoom };
        // Scores need every row of the prompt computed.
        if sequence.answer.prompt_logprobs.is_none() {
            sequence.blocks = self.pool.take_prefix(&sequence.scope, &sequence.tokens);
        }
        let outcome = if !self.is_within_cap(&sequence) {
            Admitted::Capped
        } else if !self.has_room(&sequence) && !self.make_room(&sequence, overdue) {
            Admitted::NoRoom
        } else {
            sequence.has_turn = overdue;
            self.start(sequence);
            return Admitted::Runs;
        };
        self.pool.release(&std::mem::take(&mut sequence.blocks));
        self.waiting.insert(sequence, &self.accounts);
        outcome
    }

    fn start(&mut self, mut sequence: Sequence<A>) {
        sequence.published = sequence.blocks.len();
        sequence.computed = sequence.blocks.len() * BLOCK_TOKENS;
        sequence.answer.runs(sequence.computed);
        let (tenant, rank, computed) = (sequence.share.tenant, sequence.rank(), sequence.computed);
        let promised = sequence.promised_tokens();
        let first_time = sequence.cached_tokens.is_none().then_some(sequence.prompt_tokens);
        sequence.cached_tokens.get_or_insert(computed.min(sequence.prompt_tokens));
        sequence.reached = sequence.reached.max(computed);
        let still_promised = sequence.promised_tokens();
        let at = self.running.partition_point(|other| other.arrival < sequence.arrival);
        self.running.insert(at, sequence);
        if let Some(prompt) = first_time {
            let cached = computed.min(prompt);
            self.totals.prompt_tokens += prompt as u64;
            self.totals.cached_prompt_tokens += cached as u64;
            let fairness = &self.limits.fairness;
            self.accounts.promise(tenant, fairness.prompt_cost(prompt - cached, 0, rank));
            self.charge(tenant, fairness.prompt_cost(0, cached, rank));
        } else {
            // Others have computed some of its prompt meanwhile.
            let spared = self.limits.fairness.prompt_cost(promised - still_promised, 0, rank);
            self.accounts.withdraw(tenant, spared);
        }
    }

    /// The blocks that its tenant holds and was promised, with those of `sequence`, are no more than it may have.
    fn is_within_cap(&mut self, sequence: &Sequence<A>) -> bool {
        let (tenant, most) = (sequence.share.tenant, sequence.share.kv_blocks_max as usize);
        if most >= self.pool.total() {
            return true;
        }
        let needed = sequence.blocks.len() + sequence.missing_blocks();
        loop {
            let own = self.running.iter().filter(|other| other.share.tenant == tenant);
            let held: usize = own.map(|other| other.blocks.len() + other.missing_blocks()).sum();
            if held + needed <= most {
                return true;
            }
            let parked = self.running.iter().position(|other| other.share.tenant == tenant && self.may_reclaim(other));
            let Some(parked) = parked else { return false };
            self.displace(parked);
        }
    }

    fn has_room(&self, sequence: &Sequence<A>) -> bool {
        let promised: usize = self.running.iter().map(Sequence::missing_blocks).sum();
        self.running.len() < self.limits.running_max && promised + sequence.missing_blocks() <= self.pool.available()
    }

    /// Puts back as many of those that `sequence` may displace as it needs; nobody if all of them are not enough.
    fn make_room(&mut self, sequence: &Sequence<A>, overdue: bool) -> bool {
        let places = (self.running.len() + 1).saturating_sub(self.limits.running_max);
        let promised: usize = self.running.iter().map(Sequence::missing_blocks).sum();
        let blocks = (promised + sequence.missing_blocks()).saturating_sub(self.pool.available());
        let (mut freed, mut victims) = (0, Vec::new());
        for arrival in self.displaceable(sequence, overdue) {
            if victims.len() >= places && freed >= blocks {
                break;
            }
            if let Some(index) = self.find(arrival) {
                let victim = &self.running[index];
                freed += victim.blocks.len() + victim.missing_blocks();
                victims.push(arrival);
            }
        }
        if victims.len() < places || freed < blocks {
            return false;
        }
        for arrival in victims {
            if let Some(index) = self.find(arrival) {
                self.displace(index);
            }
        }
        // Blocks that are shared with others have not become free.
        self.has_room(sequence)
    }

    /// Those whose place `sequence` may take, in the order in which they would go.
    fn displaceable(&self, sequence: &Sequence<A>, overdue: bool) -> Vec<u64> {
        let oldest = self.oldest();
        let mut runs: HashMap<TenantId, usize> = HashMap::new();
        for other in self.running.iter().filter(|other| !other.is_parked()) {
            *runs.entry(other.share.tenant).or_default() += 1;
        }
        let service = self.accounts.service(sequence.share.tenant);
        let is_first = overdue || !runs.contains_key(&sequence.share.tenant);
        let mut others: Vec<_> = self.running.iter().collect();
        others.sort_unstable_by_key(|other| self.goes_first(other));
        let mut may_go = |other: &&Sequence<A>| {
            if self.may_reclaim(other) {
                return true;
            }
            if !is_first || other.has_turn || oldest == Some(other.arrival) || other.is_parked() {
                return false;
            }
            let (own, theirs) = (sequence.share.priority, other.share.priority);
            if own > theirs || overdue && own < theirs {
                return true;
            }
            let runs = runs.entry(other.share.tenant).or_default();
            let has_more = own == theirs && *runs > 1 && self.accounts.service(other.share.tenant) > service;
            *runs -= usize::from(has_more);
            has_more
        };
        others.retain(|other| may_go(other));
        others.into_iter().map(|other| other.arrival).collect()
    }

    /// Who has to go when blocks are wanted: the least is first. Those that wait for a grant, then the lowest class, then
    /// whoever has had most; the youngest of a tenant.
    pub(super) fn goes_first(&self, sequence: &Sequence<A>) -> (bool, u32, Reverse<Service>, Reverse<u64>) {
        let class = if sequence.has_turn { u32::MAX } else { sequence.share.priority };
        let service = self.accounts.service(sequence.share.tenant);
        (!sequence.is_parked(), class, Reverse(service), Reverse(sequence.arrival))
    }

    /// The one that is never put back.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.running.iter().find(|sequence| !sequence.is_parked()).map(|sequence| sequence.arrival)
    }

    /// It has waited for its grant for so long that others may have what it holds; or nobody else could go on.
    fn may_reclaim(&self, sequence: &Sequence<A>) -> bool {
        let alone = || self.running.iter().all(Sequence::is_parked);
        sequence.is_parked() && (sequence.grant.parked_steps > self.limits.fairness.grant_wait_steps || alone())
    }

    fn displace(&mut self, index: usize) {
        self.totals.displacements += 1;
        self.put_back(index);
    }
}
