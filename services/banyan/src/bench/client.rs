//! One request to an engine as its client sees it: when it was sent, when tokens came, how it ended.

use std::time::{Duration, Instant};

use domain::{Digest, Fault};
use engine::{AdapterKey, EngineHandle, Event, EventStream, GenerateRequest};
use trainer::nobody;

use super::percentile::Sorted;

/// A finished answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sent: Instant,
    pub arrivals: Vec<Arrival>,
    pub tokens: Vec<u32>,
    /// What the engine says has made it.
    pub adapter_digest: Option<Digest>,
}

/// Tokens that came together.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub tokens: usize,
}

impl Answer {
    pub fn to_first(&self) -> Option<Duration> {
        Some(self.arrivals.first()?.at.saturating_duration_since(self.sent))
    }

    pub fn first(&self) -> Option<Instant> {
        self.arrivals.first().map(|arrival| arrival.at)
    }

    pub fn last(&self) -> Option<Instant> {
        self.arrivals.last().map(|arrival| arrival.at)
    }

    /// Seconds between arrivals, one after the other.
    pub fn gaps(&self) -> impl Iterator<Item = f64> {
        self.arrivals.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at).as_secs_f64())
    }

    /// Tokens that came in this time: after its begin, up to and including its end.
    pub fn tokens_between(&self, begin: Instant, end: Instant) -> usize {
        let inside = |arrival: &&Arrival| arrival.at > begin && arrival.at <= end;
        self.arrivals.iter().filter(inside).map(|arrival| arrival.tokens).sum()
    }
}

/// A greedy request that ends at its length.
pub fn request(adapter: Option<AdapterKey>, prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    let tenant = adapter.map_or_else(nobody, |key| key.tenant);
    GenerateRequest { adapter, ignore_eos: true, ..GenerateRequest::greedy(tenant, prompt, max_tokens) }
}

/// Sends a request, now.
///
/// # Errors
/// The engine's refusal, at once or in the middle of the answer.
pub async fn ask(engine: &EngineHandle, request: GenerateRequest) -> Result<Answer, Fault> {
    let sent = Instant::now();
    read(engine.submit(request)?, sent).await
}

/// The answer to a request that was due at `sent`.
///
/// # Errors
/// The engine's refusal in the middle of the answer.
pub async fn read(mut events: EventStream, sent: Instant) -> Result<Answer, Fault> {
    let mut answer = Answer { sent, arrivals: Vec::new(), tokens: Vec::new(), adapter_digest: None };
    while let Some(event) = events.next().await {
        match event {
            Event::Step { tokens, .. } if !tokens.is_empty() => {
                answer.arrivals.push(Arrival { at: Instant::now(), tokens: tokens.len() });
                answer.tokens.extend(tokens.iter().map(|token| token.id));
            }
            Event::Done { adapter_digest, .. } => answer.adapter_digest = adapter_digest,
            Event::Failed(fault) => return Err(fault),
            Event::Step { .. } | Event::Parked | Event::PromptLogprobs(_) => {}
        }
    }
    Ok(answer)
}

/// Seconds until each answer's first token.
pub fn first_times<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Sorted {
    Sorted::new(answers.into_iter().filter_map(Answer::to_first).map(|time| time.as_secs_f64()))
}

/// Seconds between the tokens of each answer.
pub fn gaps<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Sorted {
    Sorted::new(answers.into_iter().flat_map(Answer::gaps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_the_moment_a_request_was_due() {
        let sent = Instant::now();
        let arrival = |ms, tokens| Arrival { at: sent + Duration::from_millis(ms), tokens };
        let arrivals = vec![arrival(100, 1), arrival(130, 1), arrival(170, 2)];
        let answer = Answer { sent, arrivals, tokens: vec![1, 2, 3, 4], adapter_digest: None };
        assert_eq!(answer.to_first(), Some(Duration::from_millis(100)));
        let gaps: Vec<_> = answer.gaps().map(|gap| (gap * 1000.0).round() as u32).collect();
        assert_eq!(gaps, [30, 40]);
        let at = |ms| sent + Duration::from_millis(ms);
        assert_eq!(answer.tokens_between(at(100), at(170)), 3);
        assert_eq!(answer.tokens_between(at(0), at(169)), 2);
    }
}
