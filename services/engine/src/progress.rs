//! What a request has used so far, for whoever keeps count while it runs and after its end. Written by the engine's
//! thread; reading it asks nobody.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::events::Usage;

/// Cheap to clone; outlives the request.
#[derive(Clone, Debug)]
pub struct Progress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    prompt_tokens: u32,
    cached_prompt_tokens: OnceLock<u32>,
    completion_tokens: AtomicU32,
    ended: AtomicBool,
}

/// The engine's end; when it is dropped, the request has ended.
pub(crate) struct ProgressWriter(Progress);

impl Progress {
    pub(crate) fn of(prompt_tokens: u32) -> (ProgressWriter, Self) {
        let progress = Self { counts: Arc::new(Counts { prompt_tokens, ..Counts::default() }) };
        (ProgressWriter(progress.clone()), progress)
    }

    /// Of now; final once it has ended.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.counts.prompt_tokens,
            cached_prompt_tokens: self.counts.cached_prompt_tokens.get().copied().unwrap_or_default(),
            completion_tokens: self.counts.completion_tokens.load(Ordering::Acquire),
        }
    }

    /// No token comes any more, whatever the reason.
    pub fn has_ended(&self) -> bool {
        self.counts.ended.load(Ordering::Acquire)
    }
}

impl ProgressWriter {
    /// Found in the prefix cache when it first ran; later ones do not count.
    pub fn cached(&self, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.0.counts.cached_prompt_tokens.get_or_init(|| tokens.min(self.0.counts.prompt_tokens));
    }

    /// In all, those of its beginning included.
    pub fn completed(&self, tokens: u32) {
        self.0.counts.completion_tokens.store(tokens, Ordering::Release);
    }
}

impl Drop for ProgressWriter {
    fn drop(&mut self) {
        self.0.counts.ended.store(true, Ordering::Release);
    }
}
