//! The thread that owns everything, and the loop that it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use domain::{Fault, Reason};

use crate::adapter_cache::{AdapterCache, CacheKey};
use crate::blocks::BlockPool;
use crate::config::EngineConfig;
use crate::events::{FinishReason, Usage};
use crate::grammar::Grammars;
use crate::handle::EngineHandle;
use crate::inbox::Inbox;
use crate::loader::{AdapterFault, AdapterSource, Loaded, Loader, LoaderParts};
use crate::model::{Adapter, Model};
use crate::prefix_cache::PrefixCache;
use crate::request::Bounds;
use crate::residents::{AdapterKey, Lane, Residents};
use crate::runner::{Outcome, Runner};
use crate::scheduler::{Limits, Scheduler, Slice};
use crate::sequence::Sequence;
use crate::status::{RosterSender, Status, StatusBoard, Totals};
use crate::text::TextModel;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("engine configuration: {0}")]
    Config(String),
    #[error("kv_bytes_max is {given}; one KV block of this model takes {block} bytes")]
    KvMemory { given: u64, block: usize },
    #[error("the adapter cache {}: {source}", dir.display())]
    AdapterCache { dir: PathBuf, source: std::io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// All state of a running engine; lives on its thread.
pub struct Engine {
    scheduler: Scheduler,
    residents: Residents<Adapter>,
    runner: Runner,
    loader: Loader,
    /// Its threads end with the engine.
    _grammars: Grammars,
    inbox: Arc<Inbox>,
    board: Arc<StatusBoard>,
    roster: RosterSender,
    totals: Totals,
    failures_in_a_row: u32,
    config: EngineConfig,
}

impl Engine {
    /// Starts the engine's threads. Adapters are asked of `source`.
    ///
    /// # Errors
    /// A limit that makes no sense, KV memory for less than one block, or no thread to be had.
    pub fn start(
        model: Arc<Model>,
        text: TextModel,
        config: EngineConfig,
        source: Box<dyn AdapterSource>,
    ) -> Result<EngineHandle, EngineError> {
        config.check().map_err(EngineError::Config)?;
        let block = model.block_bytes();
        let blocks = usize::try_from(config.kv_bytes_max).unwrap_or(usize::MAX) / block;
        if blocks == 0 {
            return Err(EngineError::KvMemory { given: config.kv_bytes_max, block });
        }
        let inbox = Arc::new(Inbox::new(config.waiting_max));
        let EngineConfig { adapter_bytes_max, adapter_loads_max, adapter_patience_steps, .. } = config;
        let cache = open_cache(&config)?;
        let residents = Residents::new(adapter_bytes_max, adapter_loads_max, adapter_patience_steps);
        let mut residents = residents.with_passes(config.fairness.turn_after_loads);
        if let Some((cache, _)) = &cache {
            let (cache, storage) = (Arc::clone(cache), Adapter::storage_number(&model));
            let is_here = move |key: &AdapterKey| cache.is_listed(&CacheKey { adapter: *key, storage });
            residents = residents.with_lanes(move |key| if is_here(key) { Lane::Disk } else { Lane::Registry });
        }
        let (board, roster) = StatusBoard::new(residents.ready());
        let board = Arc::new(board);
        let done = {
            let inbox = Arc::clone(&inbox);
            move |loaded| inbox.loaded(loaded)
        };
        let parts = LoaderParts {
            model: Arc::clone(&model),
            source,
            limits: config.adapter.clone(),
            cache,
            bytes_max: config.adapter_bytes_max,
        };
        let loader = Loader::start(config.adapter_loads_max, parts, done)?;
        let eos = model.config().eos_token_ids.clone();
        let ends = !eos.is_empty();
        let grammars = {
            let inbox = Arc::clone(&inbox);
            let vocab_size = model.config().vocab_size;
            Grammars::start(&config.grammar, text.clone(), vocab_size, eos, move || inbox.wake())?
        };
        let desk = Arc::clone(grammars.desk());
        let pool = BlockPool::new(blocks, config.prefix_cache.then(PrefixCache::new));
        let mut engine = Self {
            scheduler: Scheduler::new(pool, Limits::of(&config)),
            residents,
            runner: Runner::new(Arc::clone(&model), blocks),
            loader,
            _grammars: grammars,
            inbox: Arc::clone(&inbox),
            board: Arc::clone(&board),
            roster,
            totals: Totals::default(),
            failures_in_a_row: 0,
            config: config.clone(),
        };
        engine.residents.pin(&engine.config.adapter_pins);
        engine.provide_adapters();
        engine.report();
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || engine.run())?;
        let bounds = Bounds {
            vocab_size: model.config().vocab_size,
            context_length: model.config().context_length,
            kv_blocks: blocks,
            ends,
            config,
        };
        Ok(EngineHandle::new(model, text, bounds, inbox, desk, board, thread))
    }

    /// Until it is told to stop and nothing is left to do.
    fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| while self.turn() {}));
        if ended.is_err() {
            tracing::error!("the engine crashed outside of a step");
            self.failures_in_a_row = self.config.step_failures_max;
        }
        self.end_all(&Fault::internal());
        self.inbox.take(false).submitted.into_iter().for_each(|mut sequence| sequence.answer.fail(Fault::internal()));
    }

    /// One round: what arrived, who is gone, who is next, compute, send. False when it is over.
    fn turn(&mut self) -> bool {
        let arrivals = self.inbox.take(self.is_idle());
        for sequence in arrivals.submitted {
            self.totals.taken_over_tokens += u64::from(sequence.answer.begun_tokens());
            self.scheduler.enqueue(sequence);
        }
        arrivals.loaded.into_iter().for_each(|loaded| self.finish_load(loaded));
        self.scheduler.cancel(&arrivals.cancelled);
        if arrivals.ending {
            self.end_all(&stopping());
        }
        for (arrival, extension) in arrivals.extended {
            if let Some(mut sequence) = self.scheduler.extend(arrival, extension) {
                end_at_grant(&mut sequence);
            }
        }
        for mut sequence in self.scheduler.remove_refused() {
            let fault = sequence.refusal().unwrap_or_else(Fault::internal);
            sequence.answer.fail(fault);
        }
        self.provide_adapters();
        let slices = self.scheduler.schedule();
        self.inbox.set_waiting(self.scheduler.waiting(), self.scheduler.take_changed_lines());
        if !slices.is_empty() {
            self.step(&slices);
        }
        self.report();
        if self.board.roster.take_wanted() {
            self.board.write_tenants(self.scheduler.tenants(self.config.fairness.listed_tenants_max));
            self.roster.send_replace(self.residents.list().into());
        }
        !(arrivals.stopping && self.scheduler.running().is_empty() && self.scheduler.waiting() == 0)
    }

    /// Nothing can be done before somebody says something.
    fn is_idle(&self) -> bool {
        let running = self.scheduler.running();
        let computes = |sequence: &Sequence| !sequence.is_held_up() && !sequence.is_parked();
        if running.iter().any(computes) {
            return false;
        }
        running.iter().any(Sequence::is_held_up) || !self.scheduler.can_go_on(&self.residents)
    }

    /// Leases for those that wait; loads for what is not there.
    fn provide_adapters(&mut self) {
        let Self { scheduler, residents, loader, .. } = self;
        let given_up = residents.settle(|key| scheduler.waits_for(key).is_some());
        scheduler.lease_adapters(residents);
        for lane in Lane::ALL {
            while let Some(key) = residents.next_load(lane, |key| scheduler.load_turn(key)) {
                scheduler.load_begins(&key);
                // A pin is loaded for nobody in particular.
                let span = scheduler.waits_for(&key).map_or_else(tracing::Span::none, |it| it.answer.span().clone());
                loader.load(key, lane, &span);
            }
        }
        given_up.into_iter().for_each(|(key, fault)| self.fail_waiting(&key, &fault));
    }

    fn finish_load(&mut self, loaded: Loaded) {
        let key = loaded.key;
        let bytes = loaded.adapter.as_ref().map_or(0, |load| load.bytes);
        self.scheduler.load_ended(&key, bytes);
        if let Err(fault) = self.residents.finish_load(key, loaded.adapter) {
            self.fail_waiting(&key, &fault);
        }
    }

    /// Ends the requests that wait for an adapter that does not come.
    fn fail_waiting(&mut self, key: &AdapterKey, fault: &AdapterFault) {
        let fault = fault.to_fault(key, self.config.retry_after());
        for mut sequence in self.scheduler.remove_waiting_for(key) {
            sequence.answer.fail(fault.clone());
        }
    }

    /// Computes the slices and hands out what came of it. A crash ends the sequences of this step and no others.
    fn step(&mut self, slices: &[Slice]) {
        let known: usize = slices.iter().map(|slice| slice.tokens).sum();
        let drafted: usize = self.scheduler.running().iter().map(|sequence| sequence.draft.tokens().len()).sum();
        let span = tracing::debug_span!("engine.step", sequences = slices.len(), rows = known + drafted);
        let computed = span.in_scope(|| {
            let (runner, running) = (&mut self.runner, self.scheduler.running());
            catch_unwind(AssertUnwindSafe(|| runner.step(running, slices)))
        });
        self.totals.steps += 1;
        self.totals.drafted_tokens += drafted as u64;
        match computed {
            Ok(outcomes) => {
                self.failures_in_a_row = 0;
                let ended: Vec<usize> = slices
                    .iter()
                    .zip(outcomes)
                    .filter_map(|(slice, outcome)| self.apply(*slice, outcome).then_some(slice.index))
                    .collect();
                slices.iter().for_each(|slice| self.scheduler.running_mut(slice.index).answer.deliver());
                self.scheduler.remove(&ended);
            }
            Err(_) => self.step_failed(slices),
        }
    }

    /// True if the sequence has ended.
    fn apply(&mut self, slice: Slice, outcome: Outcome) -> bool {
        let Outcome { scores, sampled, broken, late } = outcome;
        if broken && sampled.is_empty() {
            fail_broken(self.scheduler.running_mut(slice.index));
            return true;
        }
        // What comes behind the last token is still to be chosen: it stays to be computed.
        self.scheduler.computed(slice.index, slice.tokens - usize::from(late));
        let sequence = self.scheduler.running_mut(slice.index);
        if let Some(known) = &mut sequence.answer.prompt_logprobs {
            known.extend(scores);
        }
        if late && let Some(guide) = &mut sequence.guide {
            self.totals.late_masks += 1;
            guide.was_late();
        }
        if sequence.remaining() > 0 {
            return false;
        }
        sequence.answer.take_prompt_logprobs();
        let mut accepted = 0;
        let mut reason = sequence.answer.only_scores().then_some(FinishReason::Length);
        for (n, sampled) in sampled.into_iter().enumerate() {
            accepted = n;
            self.totals.completion_tokens += 1;
            sequence.tokens.push(sampled.id);
            let id = sampled.id;
            reason = sequence.answer.push(sampled);
            if reason.is_some() {
                break;
            }
            if let Some(guide) = &mut sequence.guide {
                guide.advance(id);
            }
        }
        let spent = reason.is_none() && !broken && sequence.has_spent_its_grant();
        if let Some(reason) = reason {
            let usage = usage(sequence);
            sequence.answer.finish(reason, usage);
        } else if broken {
            fail_broken(sequence);
        } else if spent {
            let usage = usage(sequence);
            sequence.answer.cut(usage);
        } else if sequence.is_parked() {
            sequence.answer.parks();
        }
        self.totals.accepted_tokens += accepted as u64;
        self.scheduler.drafted(slice.index, accepted);
        reason.is_some() || broken || spent
    }

    fn step_failed(&mut self, slices: &[Slice]) {
        tracing::error!(sequences = slices.len(), "a step crashed");
        self.totals.failed_steps += 1;
        self.failures_in_a_row += 1;
        let indices: Vec<_> = slices.iter().map(|slice| slice.index).collect();
        for mut sequence in self.scheduler.remove(&indices) {
            sequence.answer.fail(Fault::internal());
        }
        if self.failures_in_a_row >= self.config.step_failures_max {
            self.end_all(&Fault::internal());
        }
    }

    /// Takes no work from now on and ends what there is.
    fn end_all(&mut self, fault: &Fault) {
        self.inbox.refuse();
        for mut sequence in self.scheduler.remove_all() {
            sequence.answer.fail(fault.clone());
        }
        self.inbox.set_waiting(0, self.scheduler.take_changed_lines());
        self.report();
    }

    fn report(&mut self) {
        self.residents.take_back();
        let adapters = self.residents.counts();
        let pool = self.scheduler.pool();
        self.board.write(Status {
            healthy: self.failures_in_a_row < self.config.step_failures_max,
            running: self.scheduler.running().len(),
            waiting: self.scheduler.waiting(),
            waiting_max: self.config.waiting_max,
            kv_blocks_total: pool.total(),
            kv_blocks_free: pool.free(),
            kv_blocks_cached: pool.idle(),
            adapters_ready: adapters.ready,
            adapters_leased: adapters.leased,
            adapters_coming: self.residents.coming(),
            adapter_bytes: adapters.bytes,
            adapter_bytes_max: self.config.adapter_bytes_max,
            totals: Totals {
                adapter_loads: adapters.loads,
                adapter_evictions: adapters.evictions,
                scheduler: self.scheduler.totals(),
                ..self.totals
            },
        });
    }
}

/// The cache on disk, if there is to be one, and how many writes may wait.
fn open_cache(config: &EngineConfig) -> Result<Option<(Arc<AdapterCache>, usize)>, EngineError> {
    let dir = &config.adapter_cache_dir;
    if dir.as_os_str().is_empty() {
        return Ok(None);
    }
    let cache = AdapterCache::open(dir, config.adapter_cache_bytes_max)
        .map_err(|source| EngineError::AdapterCache { dir: dir.clone(), source })?;
    Ok(Some((Arc::new(cache), config.adapter_cache_writes_max)))
}

/// What runs can go on elsewhere.
fn stopping() -> Fault {
    Fault::new(Reason::ShuttingDown, "this worker is stopping")
}

/// Nothing more is granted.
fn end_at_grant(sequence: &mut Sequence) {
    let usage = usage(sequence);
    sequence.answer.cut(usage);
    sequence.answer.deliver();
}

fn fail_broken(sequence: &mut Sequence) {
    sequence.answer.span().in_scope(|| tracing::warn!("non-finite logits"));
    let message = "the model gave a result that is not a finite number for this input";
    let reason = if sequence.adapter.is_some() { Reason::AdapterLoad } else { Reason::Internal };
    sequence.answer.fail(Fault::new(reason, message));
}

fn usage(sequence: &Sequence) -> Usage {
    Usage {
        prompt_tokens: sequence.prompt_tokens as u32,
        cached_prompt_tokens: sequence.cached_tokens.unwrap_or_default() as u32,
        completion_tokens: sequence.answer.completion_tokens(),
    }
}

#[cfg(test)]
mod tests;
