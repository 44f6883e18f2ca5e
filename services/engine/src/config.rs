//! Every limit of the engine, by name.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::residents::AdapterKey;

/// Limits and sizes of one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Memory for keys and values.
    pub kv_bytes_max: u64,
    /// Keep the KV blocks of finished sequences for the next one that begins with the same tokens.
    pub prefix_cache: bool,
    /// Sequences that are computed at a time.
    pub running_max: usize,
    /// Requests that wait for their turn or their adapter; one more is refused at once.
    pub waiting_max: usize,
    /// Prompt tokens computed in one step, over all sequences; every running answer gets its next token besides.
    pub prefill_tokens_max: usize,
    /// Tokens guessed for one sequence in one step (speculative decoding by prompt look-up, which changes no answer);
    /// 0: none.
    pub speculative_tokens_max: usize,
    /// Latest tokens that must appear earlier in prompt or answer for a guess, at least and at most.
    pub speculative_ngram_min: usize,
    pub speculative_ngram_max: usize,
    /// Rows of a step, guesses included, up to which guesses are added to it. While a step is bound by reading the
    /// weights, further rows cost little; beyond that they cost their share.
    pub speculative_rows_max: usize,
    /// Longest pause, in steps, of a sequence whose guesses keep being wrong.
    pub speculative_pause_max: usize,
    /// Whose turn it is, and what a tenant may hold.
    pub fairness: FairnessConfig,
    /// Structured output.
    pub grammar: GrammarConfig,
    /// Memory for ready adapters.
    pub adapter_bytes_max: u64,
    /// Adapters fetched from the registry at a time; as many more are read from disk meanwhile.
    pub adapter_loads_max: usize,
    /// Steps that a loaded adapter waits for room before requests that came later get no new adapters.
    pub adapter_patience_steps: u32,
    /// Loaded at the start and never evicted; together they must fit `adapter_bytes_max`.
    pub adapter_pins: Vec<AdapterKey>,
    /// Where packed adapters are kept on disk, a folder that no other process uses; empty keeps none.
    pub adapter_cache_dir: PathBuf,
    /// Disk space for them.
    pub adapter_cache_bytes_max: u64,
    /// Adapters that wait to be written to disk; one more is not kept this time.
    pub adapter_cache_writes_max: usize,
    /// What an adapter from the registry is held to.
    pub adapter: adapters::Limits,
    /// Stop strings of one request.
    pub stop_strings_max: usize,
    pub stop_string_bytes_max: usize,
    /// Alternatives reported for each token.
    pub logprobs_max: u32,
    /// When a refused request should come again.
    pub retry_after_ms: u64,
    /// Steps that may crash one after the other before the engine reports itself unhealthy and refuses work.
    pub step_failures_max: u32,
}

/// Fairness between tenants: virtual token counters, classes, and the defaults of a [`crate::Share`].
///
/// Costs are relative to one another. A tenant's counter rises by the cost of what it got, over its weight; the least
/// counter goes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FairnessConfig {
    /// Of a tenant whose requests do not say.
    pub weight: u32,
    /// Of a tenant whose requests do not say; higher goes first.
    pub priority: u32,
    /// Of one prompt token that is computed.
    pub prompt_token_cost: u32,
    /// Of one prompt token whose keys and values are in the prefix cache.
    pub cached_token_cost: u32,
    /// Of one token that is generated.
    pub generated_token_cost: u32,
    /// On top, of each of these tokens, for each rank of the adapter.
    pub rank_cost: u32,
    /// Of one MiB of an adapter that is loaded.
    pub adapter_mib_cost: u32,
    /// Prompt tokens computed in one step while more than one tenant has requests: a long prompt of one makes the step
    /// long for all. At most `prefill_tokens_max`.
    pub contended_prefill_tokens_max: usize,
    /// Steps for which a lower class, or in a step's prompt rows a tenant, is passed over before it has its turn.
    pub turn_after_steps: u32,
    /// Loads that begin before that of the one which has waited for longest, whoever's turn it is.
    pub turn_after_loads: u32,
    /// Steps that a sequence without a further grant keeps its place and its KV blocks, if others want them.
    pub grant_wait_steps: u32,
    /// Requests of one tenant that wait; one more is refused at once.
    pub tenant_waiting_max: usize,
    /// KV blocks that one tenant holds at a time; 0: all.
    pub tenant_kv_blocks_max: u32,
    /// Adapters in memory or on their way that one tenant has asked for; 0: as many as there is memory for.
    pub tenant_adapters_max: u32,
    /// Tenants without requests whose counters are kept because they are ahead of the others.
    pub idle_tenants_max: usize,
    /// Tenants listed in a status report, those that have had most first.
    pub listed_tenants_max: usize,
}

impl Default for FairnessConfig {
    fn default() -> Self {
        Self {
            weight: 100,
            priority: 100,
            prompt_token_cost: 100,
            cached_token_cost: 5,
            generated_token_cost: 200,
            rank_cost: 1,
            adapter_mib_cost: 1000,
            contended_prefill_tokens_max: 128,
            turn_after_steps: 128,
            turn_after_loads: 16,
            grant_wait_steps: 32,
            tenant_waiting_max: 128,
            tenant_kv_blocks_max: 0,
            tenant_adapters_max: 0,
            idle_tenants_max: 10_000,
            listed_tenants_max: 100,
        }
    }
}

impl FairnessConfig {
    /// Of a prompt's tokens under an adapter of this rank.
    pub(crate) fn prompt_cost(&self, computed: usize, cached: usize, rank: usize) -> u64 {
        self.tokens_cost(computed, self.prompt_token_cost, rank) + self.tokens_cost(cached, self.cached_token_cost, 0)
    }

    pub(crate) fn generated_cost(&self, tokens: usize, rank: usize) -> u64 {
        self.tokens_cost(tokens, self.generated_token_cost, rank)
    }

    pub(crate) fn load_cost(&self, bytes: u64) -> u64 {
        let cost = (u128::from(bytes) * u128::from(self.adapter_mib_cost)) >> 20;
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn tokens_cost(&self, tokens: usize, each: u32, rank: usize) -> u64 {
        tokens as u64 * (u64::from(each) + rank as u64 * u64::from(self.rank_cost))
    }
}

/// Stack that a byte of a hostile grammar may need (a test in `grammar/tests.rs` holds this).
const STACK_PER_SOURCE_BYTE: usize = 1024;

/// What structured output may cost. The measures are llguidance's; what goes beyond one of them is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrammarConfig {
    /// Threads that compile grammars and compute masks of allowed tokens. With two or more, one never compiles.
    pub threads: usize,
    /// Address space for each one's stack: parsers call themselves as deep as `source_bytes_max` lets a text be nested,
    /// and a stack that overflows ends the process. Only what is used takes memory.
    pub stack_bytes: usize,
    /// Of a schema, expression or grammar.
    pub source_bytes_max: usize,
    /// Symbols in the productions of a compiled grammar.
    pub symbols_max: usize,
    /// Work for the lexer when a grammar is compiled; about 50,000 take a millisecond.
    pub compile_fuel: u64,
    /// Work for the lexer for one mask; about 14,000 take a millisecond.
    pub step_fuel: u64,
    /// Earley items for one mask; about 20,000 take a millisecond.
    pub step_items_max: usize,
    /// Earley items at one place of the text: how ambiguous a grammar may be.
    pub row_items_max: usize,
    /// States of one answer's lexer; each takes 1 to 2 kB.
    pub lexer_states_max: usize,
}

impl Default for GrammarConfig {
    fn default() -> Self {
        Self {
            threads: 2,
            stack_bytes: 256 << 20,
            source_bytes_max: 64 << 10,
            symbols_max: 100_000,
            compile_fuel: 1_000_000,
            step_fuel: 200_000,
            step_items_max: 50_000,
            row_items_max: 2_000,
            lexer_states_max: 16_384,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kv_bytes_max: 1 << 30,
            prefix_cache: true,
            running_max: 64,
            waiting_max: 256,
            prefill_tokens_max: 512,
            speculative_tokens_max: 4,
            speculative_ngram_min: 2,
            speculative_ngram_max: 4,
            speculative_rows_max: 8,
            speculative_pause_max: 64,
            fairness: FairnessConfig::default(),
            grammar: GrammarConfig::default(),
            adapter_bytes_max: 1 << 30,
            adapter_loads_max: 2,
            adapter_patience_steps: 64,
            adapter_pins: Vec::new(),
            adapter_cache_dir: PathBuf::new(),
            adapter_cache_bytes_max: 16 << 30,
            adapter_cache_writes_max: 4,
            adapter: adapters::Limits::default(),
            stop_strings_max: 16,
            stop_string_bytes_max: 256,
            logprobs_max: 20,
            retry_after_ms: 1000,
            step_failures_max: 3,
        }
    }
}

impl EngineConfig {
    /// Names every field that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let fields = [
            ("running_max", self.running_max as u64),
            ("waiting_max", self.waiting_max as u64),
            ("prefill_tokens_max", self.prefill_tokens_max as u64),
            ("speculative_ngram_min", self.speculative_ngram_min as u64),
            ("fairness.weight", u64::from(self.fairness.weight)),
            ("fairness.contended_prefill_tokens_max", self.fairness.contended_prefill_tokens_max as u64),
            ("fairness.tenant_waiting_max", self.fairness.tenant_waiting_max as u64),
            ("grammar.threads", self.grammar.threads as u64),
            ("adapter_loads_max", self.adapter_loads_max as u64),
            ("adapter_cache_writes_max", self.adapter_cache_writes_max as u64),
            ("step_failures_max", u64::from(self.step_failures_max)),
        ];
        let wrong: Vec<_> = fields.iter().filter(|(_, value)| *value == 0).map(|(name, _)| *name).collect();
        if !wrong.is_empty() {
            return Err(format!("must be at least 1: {}", wrong.join(", ")));
        }
        if self.speculative_ngram_min > self.speculative_ngram_max {
            return Err("speculative_ngram_min must be at most speculative_ngram_max".to_owned());
        }
        if self.grammar.stack_bytes / STACK_PER_SOURCE_BYTE < self.grammar.source_bytes_max {
            return Err(format!(
                "grammar.stack_bytes must be {STACK_PER_SOURCE_BYTE} times grammar.source_bytes_max or more"
            ));
        }
        Ok(())
    }

    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_millis(self.retry_after_ms)
    }
}
