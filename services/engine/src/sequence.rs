//! One prompt and the answer that grows behind it: what the scheduler needs to know of it.

use domain::Fault;

use crate::answer::Answer;
use crate::blocks::blocks_for;
use crate::grammar::Guide;
use crate::grant::{Extension, Grant};
use crate::model::{Adapter, BlockId};
use crate::prefix_cache::Scope;
use crate::residents::{AdapterKey, Lease};
use crate::share::Share;
use crate::speculation::Draft;

/// A request in the engine. `A` is what a lease is on.
pub(crate) struct Sequence<A = Adapter> {
    /// Its age: lower came earlier.
    pub arrival: u64,
    pub adapter: Option<AdapterKey>,
    /// Held from when the adapter is first ready until the sequence ends, preempted or not.
    pub lease: Option<Lease<A>>,
    pub scope: Scope,
    /// On whose account it runs.
    pub share: Share,
    /// How much of the answer may be generated for now.
    pub grant: Grant,
    /// The prompt and what was generated.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    /// Prompt and longest possible answer.
    pub tokens_max: usize,
    /// Tokens whose keys and values are in `blocks`.
    pub computed: usize,
    pub blocks: Vec<BlockId>,
    /// Most tokens that were ever computed: after a preemption, more than `computed`.
    pub reached: usize,
    /// Tokens at the beginning of `tokens` that its tenant has been charged for.
    pub charged: usize,
    /// Tokens to compute in this step.
    pub planned: usize,
    /// Steps for which others' prompts went before this one.
    pub passed_over: u32,
    /// It was let in because its class was passed over for too long, and keeps its place for that.
    pub has_turn: bool,
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
            share: Share::of(scope.group),
            scope,
            grant: Grant::new(max_tokens),
            prompt_tokens: tokens.len(),
            tokens_max: tokens.len() + max_tokens,
            charged: tokens.len(),
            tokens,
            computed: 0,
            reached: 0,
            planned: 0,
            passed_over: 0,
            has_turn: false,
            blocks: Vec::new(),
            published: 0,
            cached_tokens: None,
            draft: Draft::default(),
            guide: None,
            answer,
        }
    }

    /// What another engine has generated stands behind the prompt. It is computed again as after a preemption, at nobody's
    /// cost.
    pub fn begin_with(&mut self, generated: &[u32]) {
        self.tokens.extend(generated);
        self.charged = self.tokens.len();
    }

    /// Text of the beginning that its reader does not have, and that all that was granted is generated, go out before it
    /// runs.
    pub fn deliver_beginning(&mut self) {
        if self.is_parked() {
            self.answer.parks();
        }
        self.answer.deliver();
    }

    /// Tokens to compute before the next one can be chosen.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Most tokens that may be guessed: each step chooses one besides.
    pub fn draft_max(&self) -> usize {
        self.tokens_max.min(self.granted_end()).saturating_sub(self.tokens.len() + 1)
    }

    /// Has all that it was granted, and could go on with more.
    pub fn is_parked(&self) -> bool {
        self.tokens.len() >= self.granted_end() && self.tokens.len() < self.tokens_max
    }

    /// True if that is its end.
    pub fn extend(&mut self, extension: Extension) -> bool {
        match extension {
            Extension::More(tokens) => self.grant.extend(tokens),
            Extension::Last(tokens) => {
                self.grant.extend(tokens);
                self.grant.close();
            }
            Extension::EndIfParked if self.is_parked() => self.grant.close(),
            Extension::EndIfParked => {}
        }
        self.has_spent_its_grant()
    }

    /// Parked, and nothing more will come.
    pub fn has_spent_its_grant(&self) -> bool {
        self.is_parked() && self.grant.is_last()
    }

    /// Of the prompt, once it was let in: what is still to be computed for the first time.
    pub fn promised_tokens(&self) -> usize {
        let computed = self.cached_tokens.map(|_| self.reached.min(self.prompt_tokens));
        computed.map_or(0, |computed| self.prompt_tokens - computed)
    }

    /// Of its adapter; 0 without one.
    pub fn rank(&self) -> usize {
        self.lease.as_ref().map_or(0, Lease::rank)
    }

    /// Blocks still to be had before it can get past its next token.
    pub fn missing_blocks(&self) -> usize {
        blocks_for((self.tokens.len() + 1).min(self.tokens_max)).saturating_sub(self.blocks.len())
    }

    /// May run as far as its adapter is concerned.
    pub fn has_weights(&self) -> bool {
        self.adapter.is_none() || self.lease.is_some()
    }

    fn granted_end(&self) -> usize {
        self.prompt_tokens.saturating_add(self.grant.tokens())
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
