//! What the engine is asked to do, and what of it is refused at the door.

use domain::{Digest, Fault, Reason, ResponseFormat, Sampling, TenantId};

use crate::beginning::{self, Beginning};
use crate::blocks::blocks_for;
use crate::config::EngineConfig;
use crate::grammar;
use crate::model::BLOCK_TOKENS;
use crate::residents::AdapterKey;
use crate::share::Share;

/// One prompt to be continued or scored.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// For traces, and for [`crate::EngineHandle::extend`].
    pub id: String,
    /// The share group of KV and prefix cache.
    pub tenant: TenantId,
    /// On whose account, and when it is its turn.
    pub share: Share,
    /// `None`: the base alone.
    pub adapter: Option<AdapterKey>,
    pub prompt: Vec<u32>,
    /// The beginning of the answer, where another engine has made it.
    pub beginning: Beginning,
    pub sampling: Sampling,
    /// Most tokens of the answer; 0 only with `prompt_logprobs`.
    pub max_tokens: u32,
    /// Tokens of the answer that may be generated before [`crate::EngineHandle::extend`] says more; `None`: all.
    pub granted_tokens: Option<u32>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// What the whole answer must be. An answer that is cut (`max_tokens`, `stop`) is the beginning of such a text.
    pub response_format: Option<ResponseFormat>,
    /// Report the log-probability of each token, and of the n most likely ones.
    pub logprobs: Option<u32>,
    /// Do not end at the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Report the log-probability of every prompt token after the first.
    pub prompt_logprobs: bool,
}

impl GenerateRequest {
    /// A greedy request for the base without further wishes.
    pub fn greedy(tenant: TenantId, prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            id: String::new(),
            tenant,
            share: Share::of(tenant),
            adapter: None,
            prompt,
            beginning: Beginning::default(),
            sampling: Sampling::greedy(),
            max_tokens,
            granted_tokens: None,
            stop: Vec::new(),
            response_format: None,
            logprobs: None,
            ignore_eos: false,
            prompt_logprobs: false,
        }
    }

    pub(crate) fn adapter_digest(&self) -> Option<Digest> {
        self.adapter.map(|key| key.digest)
    }
}

/// What a request must keep to.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub vocab_size: usize,
    pub context_length: usize,
    pub kv_blocks: usize,
    /// The model has a token that ends an answer.
    pub ends: bool,
    pub config: EngineConfig,
}

impl Bounds {
    /// Longest prompt plus answer.
    pub fn tokens_max(&self) -> usize {
        self.context_length.min(self.kv_blocks.saturating_mul(BLOCK_TOKENS))
    }

    /// Every violation at once; a request that passes can be served, given time.
    pub fn check(&self, request: &GenerateRequest) -> Result<(), Fault> {
        let mut violations = Vec::new();
        let mut wrong = |field: &str, why: String| violations.push((field.to_owned(), why));
        if request.prompt.is_empty() {
            wrong("prompt", "must have at least one token".to_owned());
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            wrong("prompt", format!("token {id} is not in the vocabulary of {} tokens", self.vocab_size));
        }
        self.check_beginning(request, &mut wrong);
        if request.max_tokens == 0 && !request.prompt_logprobs {
            wrong("max_tokens", "must be at least 1".to_owned());
        }
        if request.granted_tokens == Some(0) {
            wrong("granted_tokens", "must be at least 1".to_owned());
        }
        let EngineConfig { stop_strings_max, stop_string_bytes_max, logprobs_max, .. } = self.config;
        if request.stop.len() > stop_strings_max {
            wrong("stop", format!("at most {stop_strings_max} strings"));
        }
        if request.stop.iter().any(|stop| stop.is_empty() || stop.len() > stop_string_bytes_max) {
            wrong("stop", format!("each string must have 1 to {stop_string_bytes_max} bytes"));
        }
        if request.logprobs.is_some_and(|n| n > logprobs_max) {
            wrong("logprobs", format!("at most {logprobs_max}"));
        }
        if let Some(format) = &request.response_format {
            let bytes_max = self.config.grammar.source_bytes_max;
            let given = *format != ResponseFormat::JsonObject;
            let rules = [
                (given && format.source().is_empty(), "must not be empty".to_owned()),
                (format.source().len() > bytes_max, format!("at most {bytes_max} bytes")),
                (
                    request.ignore_eos,
                    "cannot be combined with ignore_eos: the answer ends where its form does".to_owned(),
                ),
                (!self.ends, "this base model has no end-of-sequence token".to_owned()),
            ];
            let broken = rules.into_iter().filter(|(broken, _)| *broken);
            broken.for_each(|(_, why)| wrong(grammar::FIELD, why));
        }
        for fault in request.sampling.check().err().unwrap_or_default() {
            wrong(&format!("sampling.{}", fault.field), fault.description.to_owned());
        }
        if !violations.is_empty() {
            return Err(Fault::invalid_all(violations));
        }
        let own = request.share.filled(&self.config).kv_blocks_max as usize;
        self.check_length(request.prompt.len(), request.max_tokens as usize, own)
    }

    fn check_beginning(&self, request: &GenerateRequest, wrong: &mut impl FnMut(&str, String)) {
        let tokens = &request.beginning.tokens;
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.vocab_size) {
            let why = format!("token {id} is not in the vocabulary of {} tokens", self.vocab_size);
            wrong(beginning::TOKENS, why);
        }
        let most = request.granted_tokens.unwrap_or(request.max_tokens).min(request.max_tokens);
        if tokens.len() > most as usize {
            wrong(beginning::TOKENS, format!("has {} tokens, and the answer may have {most}", tokens.len()));
        }
        if request.prompt_logprobs && !request.beginning.is_empty() {
            wrong(beginning::TOKENS, "cannot be combined with prompt_logprobs".to_owned());
        }
    }

    fn check_length(&self, prompt: usize, answer: usize, tenant_blocks: usize) -> Result<(), Fault> {
        let too_long = |what: String| {
            let sum = format!("{prompt} prompt tokens and an answer of up to {answer} do not fit {what}");
            Err(Fault::new(Reason::ContextLength, format!("{sum}: shorten the prompt or lower max_tokens")))
        };
        if prompt.saturating_add(answer) > self.context_length {
            return too_long(format!("the context of {} tokens", self.context_length));
        }
        if blocks_for(prompt + answer) > self.kv_blocks {
            return too_long(format!("this worker's {} KV blocks", self.kv_blocks));
        }
        if blocks_for(prompt + answer) > tenant_blocks {
            return too_long(format!("the {tenant_blocks} KV blocks that this tenant may hold"));
        }
        Ok(())
    }
}
