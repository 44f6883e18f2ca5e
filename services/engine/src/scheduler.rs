//! Who runs in the next step, and with how many tokens. The tenant that has had least goes first, over all adapters, since
//! any of them share a step; a sequence whose adapter is on its way is passed by. It owns sequences and blocks and does
//! no compute.
//!
//! Three things keep everybody going. The oldest sequence that runs is never put back, so there is always one that gets
//! further. Whoever is passed over for long enough has a turn, whatever its class or what its tenant has had. And a
//! request that does not fit an empty pool is refused at the door.

mod accounts;
mod admission;
mod rows;
mod waiting;

use std::collections::{BTreeMap, HashMap};

use domain::TenantId;

use crate::blocks::{BlockPool, blocks_for};
use crate::config::{EngineConfig, FairnessConfig};
use crate::grant::Extension;
use crate::model::{Adapter, BLOCK_TOKENS};
use crate::residents::{AdapterKey, Asked, Residents};
use crate::sequence::Sequence;
use crate::speculation::Speculation;
use crate::status::{SchedulerTotals, TenantStatus};
use accounts::{Accounts, Service};
use waiting::Waiting;

pub use waiting::LineLength;

pub(crate) struct Scheduler<A = Adapter> {
    waiting: Waiting<A>,
    /// Ordered by age, the oldest first.
    running: Vec<Sequence<A>>,
    accounts: Accounts,
    /// Steps for which somebody of a class could have run and nobody of it was let in, while there was a higher one.
    passed_over: BTreeMap<u32, u32>,
    /// Who has caused the loads that are under way.
    causes: HashMap<AdapterKey, TenantId>,
    pool: BlockPool,
    limits: Limits,
    totals: SchedulerTotals,
}

/// What a scheduler keeps to.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub running_max: usize,
    pub prefill_tokens_max: usize,
    pub speculation: Speculation,
    pub fairness: FairnessConfig,
}

impl Limits {
    pub fn of(config: &EngineConfig) -> Self {
        Self {
            running_max: config.running_max,
            prefill_tokens_max: config.prefill_tokens_max,
            speculation: Speculation::of(config),
            fairness: config.fairness.clone(),
        }
    }
}

/// The next `tokens` tokens of the running sequence `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub index: usize,
    pub tokens: usize,
}

impl<A> Scheduler<A> {
    pub fn new(pool: BlockPool, limits: Limits) -> Self {
        Self {
            waiting: Waiting::new(),
            running: Vec::new(),
            accounts: Accounts::new(limits.fairness.idle_tenants_max),
            passed_over: BTreeMap::new(),
            causes: HashMap::new(),
            pool,
            limits,
            totals: SchedulerTotals::default(),
        }
    }

    /// Its arrival must be later than any before.
    pub fn enqueue(&mut self, sequence: Sequence<A>) {
        let share = sequence.share;
        self.accounts.enter(share.tenant, share.weight);
        self.waiting.insert(sequence, &self.accounts);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Tenants with more or fewer requests that wait than when this was asked last.
    pub fn take_changed_lines(&mut self) -> Vec<(TenantId, LineLength)> {
        self.waiting.take_changed()
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

    /// The tenants that have requests here, those that have had most first; at most `most`.
    pub fn tenants(&self, most: usize) -> Vec<TenantStatus> {
        let status = |(tenant, service): (TenantId, Service)| {
            let own = || self.running.iter().filter(move |sequence| sequence.share.tenant == tenant);
            TenantStatus {
                tenant,
                waiting: self.waiting.length(tenant).requests,
                running: own().count(),
                kv_blocks: own().map(|sequence| sequence.blocks.len()).sum(),
                service: accounts::cost_at_weight_one(service),
            }
        };
        self.accounts.active().take(most).map(status).collect()
    }

    /// With nothing that computes: somebody waits for something other than a load, a grammar or a grant, so the next
    /// round gets further.
    pub fn can_go_on(&self, residents: &Residents<A>) -> bool {
        let moves = |sequence: &Sequence<A>| {
            sequence.adapter.is_some_and(|key| !sequence.has_weights() && !residents.loads(&key))
                && !self.waiting.is_unasked(sequence)
        };
        self.waiting.next(None).is_some() || self.waiting.iter().any(moves)
    }

    /// The oldest request that waits for this adapter.
    pub fn waits_for(&self, key: &AdapterKey) -> Option<&Sequence<A>> {
        self.waiting.waits_for(key)
    }

    /// When it is this adapter's turn to be loaded, the least first: that of the oldest request that waits for it. None
    /// if nobody does.
    pub fn load_turn(&self, key: &AdapterKey) -> Option<impl Ord + use<A>> {
        let sequence = self.waiting.waits_for(key)?;
        let service = self.accounts.service(sequence.share.tenant);
        Some((std::cmp::Reverse(sequence.share.priority), service, sequence.arrival))
    }

    /// A load begins, for the oldest request that waits for it.
    pub fn load_begins(&mut self, key: &AdapterKey) {
        if let Some(tenant) = self.waiting.waits_for(key).map(|sequence| sequence.share.tenant) {
            self.causes.insert(*key, tenant);
        }
    }

    /// A load has ended; whoever caused it is charged for what came.
    pub fn load_ended(&mut self, key: &AdapterKey, bytes: u64) {
        if let Some(tenant) = self.causes.remove(key) {
            self.charge(tenant, self.limits.fairness.load_cost(bytes));
        }
    }

    /// Gives waiting sequences their adapters, as far as those are ready; asks for the others. Call it after each
    /// [`Residents::settle`].
    pub fn lease_adapters(&mut self, residents: &mut Residents<A>) {
        let held_up = residents.held_up().and_then(|key| self.waiting.waits_for(key));
        let last = held_up.map_or(u64::MAX, |sequence| sequence.arrival);
        for key in residents.fresh().to_vec() {
            for arrival in self.waiting.wanting(&key) {
                match residents.lease(&key).filter(|_| arrival <= last) {
                    Some(lease) => self.waiting.leased(arrival, lease, &self.accounts),
                    None => self.waiting.ask_again(arrival),
                }
            }
        }
        for tenant in self.waiting.unasked_tenants() {
            let mut after = 0;
            while let Some(sequence) = self.waiting.unasked(tenant, after).filter(|it| it.arrival <= last) {
                let (arrival, most) = (sequence.arrival, sequence.share.adapters_max);
                let Some(key) = sequence.adapter else { break };
                after = arrival;
                match residents.ask_for(&key, tenant, most) {
                    Asked::Ready(lease) => self.waiting.leased(arrival, lease, &self.accounts),
                    Asked::Coming => self.waiting.asked(arrival),
                    Asked::TooMany => break,
                }
            }
        }
    }

    /// Admits what fits and picks the rows of the next step: first one for every answer that only needs its next token,
    /// then prompts, in the order of turns. A step that stays small gets guesses besides ([`Sequence::draft`]). The
    /// slices are in the order of the running sequences.
    pub fn schedule(&mut self) -> Vec<Slice> {
        for sequence in &mut self.running {
            sequence.draft.clear();
            if sequence.is_parked() {
                sequence.grant.parked_steps = sequence.grant.parked_steps.saturating_add(1);
            }
        }
        for arrival in self.waiting.compiling() {
            self.waiting.look_at(arrival, &self.accounts);
        }
        self.admit();
        self.plan()
    }

    /// `tokens` more tokens of the running sequence `index` are computed: full blocks become known to the prefix cache.
    pub fn computed(&mut self, index: usize, tokens: usize) {
        self.totals.computed_tokens += tokens as u64;
        let sequence = &mut self.running[index];
        let promised = sequence.promised_tokens();
        sequence.computed += tokens;
        sequence.reached = sequence.reached.max(sequence.computed);
        let delivered = promised - sequence.promised_tokens();
        let (tenant, rank) = (sequence.share.tenant, sequence.rank());
        self.accounts.deliver(tenant, self.limits.fairness.prompt_cost(delivered, 0, rank));
        let sequence = &mut self.running[index];
        debug_assert!(sequence.computed <= sequence.tokens.len());
        while (sequence.published + 1) * BLOCK_TOKENS <= sequence.computed {
            let span = sequence.published * BLOCK_TOKENS..(sequence.published + 1) * BLOCK_TOKENS;
            let Sequence { scope, blocks, published, tokens, .. } = sequence;
            self.pool.publish(scope, blocks, *published, &tokens[span]);
            sequence.published += 1;
        }
    }

    /// `accepted` tokens of the sequence's draft have joined its tokens. What was computed for the rest is void: the next
    /// step writes over it, and blocks that only it needed go back. New tokens are charged.
    pub fn drafted(&mut self, index: usize, accepted: usize) {
        self.computed(index, accepted);
        let sequence = &mut self.running[index];
        sequence.draft.judge(accepted, self.limits.speculation.pause_max);
        self.pool.release(&sequence.blocks.split_off(blocks_for(sequence.computed)));
        let new = sequence.tokens.len() - std::mem::replace(&mut sequence.charged, sequence.tokens.len());
        let (tenant, cost) = (sequence.share.tenant, self.limits.fairness.generated_cost(new, sequence.rank()));
        self.charge(tenant, cost);
    }

    /// Lets a sequence go on, or says that nothing more will come. Returns it, taken out, if that is its end. Nothing
    /// happens if it is not here any more.
    pub fn extend(&mut self, arrival: u64, extension: Extension) -> Option<Sequence<A>> {
        if let Some(index) = self.find(arrival) {
            return if self.running[index].extend(extension) { self.remove(&[index]).pop() } else { None };
        }
        let mut ends = false;
        self.waiting.change(arrival, |sequence| ends = sequence.extend(extension))?;
        self.waiting.look_at(arrival, &self.accounts);
        if ends { self.take_waiting(arrival) } else { None }
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

    /// Takes out those that arrived then, as far as they are here: nobody waits for them any more.
    pub fn cancel(&mut self, arrivals: &[u64]) -> Vec<Sequence<A>> {
        let indices: Vec<_> = arrivals.iter().filter_map(|arrival| self.find(*arrival)).collect();
        let mut removed = self.remove(&indices);
        removed.extend(arrivals.iter().filter_map(|arrival| self.take_waiting(*arrival)));
        removed
    }

    /// Takes out those that wait for an adapter that will not come.
    pub fn remove_waiting_for(&mut self, key: &AdapterKey) -> Vec<Sequence<A>> {
        self.causes.remove(key);
        self.cancel(&self.waiting.wanting(key))
    }

    /// Takes out those whose grammar cannot be served.
    pub fn remove_refused(&mut self) -> Vec<Sequence<A>> {
        let refused = |sequence: &&Sequence<A>| sequence.refusal().is_some();
        let mut arrivals: Vec<_> = self.running.iter().filter(refused).map(|sequence| sequence.arrival).collect();
        let compiling = self.waiting.compiling();
        arrivals.extend(compiling.into_iter().filter(|it| self.waiting.get(*it).is_some_and(|it| refused(&it))));
        self.cancel(&arrivals)
    }

    pub fn remove_all(&mut self) -> Vec<Sequence<A>> {
        let all = self.running.iter().chain(self.waiting.iter());
        let arrivals: Vec<_> = all.map(|sequence| sequence.arrival).collect();
        self.cancel(&arrivals)
    }

    /// Where the sequence that arrived then runs.
    fn find(&self, arrival: u64) -> Option<usize> {
        self.running.binary_search_by_key(&arrival, |sequence| sequence.arrival).ok()
    }

    fn take_waiting(&mut self, arrival: u64) -> Option<Sequence<A>> {
        let sequence = self.waiting.remove(arrival, &self.accounts)?;
        Some(self.free(sequence))
    }

    /// The end of a sequence here. What it was promised and has not had is withdrawn.
    fn free(&mut self, mut sequence: Sequence<A>) -> Sequence<A> {
        self.pool.release(&std::mem::take(&mut sequence.blocks));
        let tenant = sequence.share.tenant;
        let left = self.limits.fairness.prompt_cost(sequence.promised_tokens(), 0, sequence.rank());
        self.accounts.withdraw(tenant, left);
        sequence.lease = None;
        self.accounts.leave(tenant);
        self.waiting.stand(tenant, &self.accounts);
        sequence
    }

    fn charge(&mut self, tenant: TenantId, cost: u64) {
        self.accounts.charge(tenant, cost);
        self.waiting.stand(tenant, &self.accounts);
    }

    /// Puts a running sequence back into its line at its age. Its tokens and its lease stay; its keys and values are
    /// computed again later, unless the prefix cache still has them.
    fn put_back(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.pool.release(&std::mem::take(&mut sequence.blocks));
        sequence.computed = 0;
        sequence.published = 0;
        sequence.has_turn = false;
        sequence.passed_over = 0;
        sequence.draft.clear();
        sequence.answer.waits();
        self.waiting.insert(sequence, &self.accounts);
    }
}

#[cfg(test)]
mod tests;
