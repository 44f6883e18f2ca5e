//! The way out of one sequence: from chosen tokens to text, events and the end.

use domain::{Digest, Fault};
use tokio_sync::sync::mpsc;
use tracing::Span;

use crate::beginning::{self, Beginning};
use crate::events::{Event, FinishReason, Token, TopLogprob, Usage};
use crate::progress::{Progress, ProgressWriter};
use crate::request::GenerateRequest;
use crate::sampler::{Sampled, Sampler};
use crate::text::{Decoder, StopMatcher, TextModel};

/// Messages besides those for each token: prompt log-probabilities, the rest of a text that was sent in part or cut, and
/// the end.
const OTHER_EVENTS: usize = 5;

/// Messages for each token: itself, and that nothing comes behind it for now.
const TOKEN_EVENTS: usize = 2;

/// Everything of a request that is not scheduling.
pub(crate) struct Answer {
    pub sampler: Sampler,
    /// Log-probabilities of the prompt so far, where they were asked for and are not yet sent.
    pub prompt_logprobs: Option<Vec<f32>>,
    max_tokens: u32,
    completion_tokens: u32,
    /// Of those, the ones that it began with.
    begun_tokens: u32,
    /// Bytes of the text to come that the reader has already.
    known_bytes: usize,
    progress: ProgressWriter,
    /// Tokens that end it; none if they are to be ignored.
    eos: Vec<u32>,
    decoder: Decoder,
    stop: StopMatcher,
    text: TextModel,
    events: mpsc::Sender<Event>,
    /// What the step that runs has to say: sent when it is over.
    unsent: Vec<Event>,
    base_digest: Digest,
    adapter_digest: Option<Digest>,
    /// The caller's span, and under it that of what happens now: queue, prefill or decode.
    parent: Span,
    phase: Span,
}

impl Answer {
    /// The channel has room for all that can ever be sent, so sending never waits for a slow client.
    pub fn new(
        request: &GenerateRequest,
        text: &TextModel,
        eos: &[u32],
        base_digest: Digest,
    ) -> (Self, mpsc::Receiver<Event>, Progress) {
        let (events, receiver) = mpsc::channel(request.max_tokens as usize * TOKEN_EVENTS + OTHER_EVENTS);
        let parent = tracing::info_span!(
            "engine.request", id = request.id, tenant = %request.tenant,
            adapter = request.adapter_digest().map(tracing::field::display), prompt_tokens = request.prompt.len(),
        );
        let (writer, progress) = Progress::of(u32::try_from(request.prompt.len()).unwrap_or(u32::MAX));
        let answer = Self {
            sampler: Sampler::new(request.sampling, request.logprobs, &request.prompt),
            prompt_logprobs: request.prompt_logprobs.then(Vec::new),
            max_tokens: request.max_tokens,
            completion_tokens: 0,
            begun_tokens: 0,
            known_bytes: 0,
            progress: writer,
            eos: if request.ignore_eos { Vec::new() } else { eos.to_vec() },
            decoder: text.decoder(&request.prompt),
            stop: StopMatcher::new(&request.stop),
            text: text.clone(),
            events,
            unsent: Vec::new(),
            base_digest,
            adapter_digest: request.adapter_digest(),
            phase: tracing::info_span!(parent: &parent, "engine.queue"),
            parent,
        };
        (answer, receiver, progress)
    }

    /// Takes the beginning that another engine has made. Returns why the answer ends with it, if it does.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for tokens behind an end, and for a text that these tokens do not make.
    pub fn begin_with(&mut self, beginning: &Beginning) -> Result<Option<FinishReason>, Fault> {
        let (mut whole, mut reason) = (String::new(), None);
        for (index, id) in beginning.tokens.iter().enumerate() {
            if reason.is_some() {
                return Err(beginning::goes_on_after_its_end(index - 1));
            }
            let (text, ends) = self.take(*id);
            whole += &text;
            reason = ends;
        }
        let decided = whole.len();
        if beginning.text_bytes > decided {
            // Text that was held back came out where the answer was cut.
            let mut held = self.stop.clone();
            whole += &held.push(&self.decoder.clone().finish());
            whole += &held.finish();
        }
        if !whole.is_char_boundary(beginning.text_bytes) {
            return Err(beginning::has_no_such_text(beginning.text_bytes));
        }
        self.begun_tokens = self.completion_tokens;
        self.known_bytes = beginning.text_bytes;
        whole.truncate(decided);
        let text = self.unread(whole);
        if !text.is_empty() {
            self.unsent.push(Event::Step { text, tokens: Vec::new() });
        }
        Ok(reason)
    }

    /// Tokens that it began with.
    pub fn begun_tokens(&self) -> u32 {
        self.begun_tokens
    }

    /// No token is wanted, only the prompt's log-probabilities.
    pub fn only_scores(&self) -> bool {
        self.max_tokens == 0
    }

    pub fn completion_tokens(&self) -> u32 {
        self.completion_tokens
    }

    /// Of the whole request; loads it waits for are its children.
    pub fn span(&self) -> &Span {
        &self.parent
    }

    pub fn waits(&mut self) {
        self.phase = tracing::info_span!(parent: &self.parent, "engine.queue");
    }

    pub fn runs(&mut self, cached_tokens: usize) {
        self.progress.cached(cached_tokens);
        self.phase = tracing::info_span!(parent: &self.parent, "engine.prefill", cached_tokens);
    }

    /// All prompt log-probabilities are there. As everything but a failure, they are sent by [`Answer::deliver`].
    pub fn take_prompt_logprobs(&mut self) {
        if let Some(logprobs) = self.prompt_logprobs.take() {
            self.unsent.push(Event::PromptLogprobs(logprobs));
        }
    }

    /// Sends what is there. Readers are woken here, so all answers of a step do it one after the other: whoever the first
    /// one wakes finds the others' events too, and is not woken for each.
    pub fn deliver(&mut self) {
        for event in std::mem::take(&mut self.unsent) {
            if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
                // Only if an answer sends more than it is long, which `push` and `max_tokens` rule out.
                self.parent.in_scope(|| tracing::error!("an event found no room and is lost"));
            }
        }
    }

    /// Takes the next token and what it adds. Returns why the answer ends with it, if it does.
    pub fn push(&mut self, sampled: Sampled) -> Option<FinishReason> {
        if self.completion_tokens == self.begun_tokens {
            self.phase = tracing::info_span!(parent: &self.parent, "engine.decode", tokens = tracing::field::Empty);
        }
        let (text, reason) = self.take(sampled.id);
        let text = self.unread(text);
        let token = self.token(sampled);
        self.unsent.push(Event::Step { text, tokens: vec![token] });
        reason
    }

    /// A token joins the answer: the text that is decided by it, and why the answer ends with it.
    fn take(&mut self, id: u32) -> (String, Option<FinishReason>) {
        self.completion_tokens += 1;
        self.progress.completed(self.completion_tokens);
        self.sampler.accept(id);
        let eos = self.eos.contains(&id);
        let mut text = String::new();
        if !eos {
            text = self.stop.push(&self.decoder.push(id));
        }
        let ends = eos || self.completion_tokens >= self.max_tokens;
        if ends && !self.stop.stopped() {
            text += &self.stop.push(&self.decoder.finish());
        }
        let reason = match (self.stop.stopped(), eos, ends) {
            (true, ..) => Some(FinishReason::Stop),
            (_, true, _) => Some(FinishReason::Eos),
            (_, _, true) => Some(FinishReason::Length),
            _ => None,
        };
        if reason.is_some() {
            text += &self.stop.finish();
        }
        (text, reason)
    }

    /// Of the next text, what the reader does not have yet.
    fn unread(&mut self, text: String) -> String {
        let known = self.known_bytes.min(text.len());
        self.known_bytes -= known;
        // Where the reader's text ends was checked when the answer began.
        text.get(known..).unwrap_or_default().to_owned()
    }

    pub fn finish(&mut self, reason: FinishReason, usage: Usage) {
        self.phase.record("tokens", usage.completion_tokens);
        let (base_digest, adapter_digest) = (self.base_digest, self.adapter_digest);
        self.unsent.push(Event::Done { reason, usage, base_digest, adapter_digest });
    }

    /// Nothing comes for now.
    pub fn parks(&mut self) {
        self.unsent.push(Event::Parked);
    }

    /// Ends behind the last token that was pushed; text that was held back comes out.
    pub fn cut(&mut self, usage: Usage) {
        let mut text = self.stop.push(&self.decoder.finish());
        text += &self.stop.finish();
        let text = self.unread(text);
        if !text.is_empty() {
            self.unsent.push(Event::Step { text, tokens: Vec::new() });
        }
        // A stop string that only the last bytes completed is what the client sees the end of.
        let reason = if self.stop.stopped() { FinishReason::Stop } else { FinishReason::Budget };
        self.finish(reason, usage);
    }

    pub fn fail(&mut self, fault: Fault) {
        self.unsent.push(Event::Failed(fault));
        self.deliver();
    }

    fn token(&self, sampled: Sampled) -> Token {
        let top = |(id, logprob)| TopLogprob { id, text: self.text.token_text(id), logprob };
        let text = sampled.logprob.map(|_| self.text.token_text(sampled.id)).unwrap_or_default();
        Token { id: sampled.id, text, logprob: sampled.logprob, top: sampled.top.into_iter().map(top).collect() }
    }
}
