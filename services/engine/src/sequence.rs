//! One prompt and the answer that grows behind it: what the scheduler needs to know of it.

use domain::Fault;

use crate::answer::Answer;
use crate::blocks::blocks_for;
use crate::grammar::Guide;
use crate::model::{Adapter, BlockId};
use crate::prefix_cache::Scope;
use crate::residents::{AdapterKey, Lease};
use crate::speculation::Draft;

/// A request in the engine. `A` is what a lease is on.
pub(crate) struct Sequence<A = Adapter> {
    /// Its age: lower came earlier.
    pub arrival: u64,
    pub adapter: Option<AdapterKey>,
    /// Held from when the adapter is first ready until the sequence ends, preempted or not.
    pub lease: Option<Lease<A>>,
    pub scope: Scope,
    /// The prompt and what was generated.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    /// Prompt and longest possible answer.
    pub tokens_max: usize,
    /// Tokens whose keys and values are in `blocks`.
    pub computed: usize,
    pub blocks: Vec<BlockId>,
    /// Blocks that the prefix cache knows.
    pub published: usize,
    /// Prompt tokens found in the prefix cache when it first ran.
    pub cached_tokens: Option<usize>,
    /// Tokens guessed for this step.
    pub draft: Draft,
    /// Says which tokens may come next, where the answer has a form to keep to.
    pub guide: Option<Guide>,
    pub answer: Answer,
}

impl<A> Sequence<A> {
    pub fn new(scope: Scope, adapter: Option<AdapterKey>, tokens: Vec<u32>, max_tokens: usize, answer: Answer) -> Self {
        Self {
            arrival: 0,
            adapter,
            lease: None,
            scope,
            prompt_tokens: tokens.len(),
            tokens_max: tokens.len() + max_tokens,
            tokens,
            computed: 0,
            blocks: Vec::new(),
            published: 0,
            cached_tokens: None,
            draft: Draft::default(),
            guide: None,
            answer,
        }
    }

    /// Tokens to compute before the next one can be chosen.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Most tokens that may be guessed: each step chooses one besides.
    pub fn draft_max(&self) -> usize {
        self.tokens_max.saturating_sub(self.tokens.len() + 1)
    }

    /// Blocks still to be had before it can get past its next token.
    pub fn missing_blocks(&self) -> usize {
        blocks_for((self.tokens.len() + 1).min(self.tokens_max)).saturating_sub(self.blocks.len())
    }

    /// May run as far as its adapter is concerned.
    pub fn has_weights(&self) -> bool {
        self.adapter.is_none() || self.lease.is_some()
    }

    /// Its grammar is not compiled yet, or never will be.
    pub fn awaits_grammar(&self) -> bool {
        self.guide.as_ref().is_some_and(|guide| !guide.is_ready())
    }

    /// A step with it would be for nothing, since nobody knows yet which tokens may come next.
    pub fn is_held_up(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::is_late)
    }

    /// Why it cannot go on.
    pub fn refusal(&self) -> Option<Fault> {
        self.guide.as_ref().and_then(Guide::fault)
    }
}
