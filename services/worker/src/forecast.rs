//! Whether an answer can begin in time, judged by how fast this worker was at its best of late. What cannot is refused
//! at once: waiting for it would help nobody and take a place.
//!
//! It errs on the side of taking a request. The speed is the best seen, and held to be a factor better still. Tokens from
//! the prefix cache count as computed, so a worker that finds much there passes for fast. Of all that waits, only the
//! same tenant's requests count as coming before, which nothing can change.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::{Fault, Reason, TenantId};
use engine::{EngineHandle, Status};
use tokio::time::Instant;

/// Shared by all calls of a worker.
pub struct Forecast {
    settings: Settings,
    best: Mutex<Best>,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much faster than its best the worker is held to be; 0 refuses nothing.
    pub factor: u32,
    /// For how long a speed counts, at least; at most twice as long.
    pub window: Duration,
}

/// Tokens per second.
#[derive(Default)]
struct Best {
    now: f64,
    before: f64,
    since: Option<Instant>,
}

/// A request on its way to its first token: the engine computes for as long as it runs.
pub struct Probe {
    began: Instant,
    tokens: u64,
}

impl Forecast {
    pub fn new(settings: Settings) -> Self {
        Self { settings, best: Mutex::default() }
    }

    /// # Errors
    /// `DeadlineExceeded` if not even the first token can come in time.
    pub fn check(
        &self,
        engine: &EngineHandle,
        tenant: TenantId,
        prompt_tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Fault> {
        let Some(deadline) = deadline else { return Ok(()) };
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let before = engine.line(tenant).prompt_tokens;
        let Some(needed) = self.at_best(before + prompt_tokens, now).filter(|needed| *needed > left) else {
            return Ok(());
        };
        let message = format!(
            "the deadline is in {} ms, and the first token takes {} ms at least: {prompt_tokens} prompt tokens, behind \
             {before} of the same tenant",
            left.as_millis(),
            needed.as_millis(),
        );
        Err(Fault::new(Reason::DeadlineExceeded, message))
    }

    pub fn begin(&self, status: &Status) -> Probe {
        Probe { began: Instant::now(), tokens: tokens(status) }
    }

    /// Its first token has come.
    pub fn end(&self, probe: &Probe, status: &Status) {
        let now = Instant::now();
        self.observe(tokens(status).saturating_sub(probe.tokens), now.duration_since(probe.began), now);
    }

    fn observe(&self, tokens: u64, took: Duration, now: Instant) {
        let speed = tokens as f64 / took.as_secs_f64().max(1e-6);
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        best.turn(now, self.settings.window);
        best.now = best.now.max(speed);
    }

    /// How long so many tokens take at least; none if nothing is known.
    fn at_best(&self, tokens: usize, now: Instant) -> Option<Duration> {
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        best.turn(now, self.settings.window);
        let speed = best.now.max(best.before) * f64::from(self.settings.factor);
        (speed > 0.0).then(|| Duration::try_from_secs_f64(tokens as f64 / speed).ok()).flatten()
    }
}

impl Best {
    fn turn(&mut self, now: Instant, window: Duration) {
        let age = now.duration_since(*self.since.get_or_insert(now));
        if age >= window {
            self.before = if age >= window * 2 { 0.0 } else { self.now };
            (self.now, self.since) = (0.0, Some(now));
        }
    }
}

fn tokens(status: &Status) -> u64 {
    let totals = status.totals.scheduler;
    totals.computed_tokens + totals.cached_prompt_tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn forecast(factor: u32) -> Forecast {
        Forecast::new(Settings { factor, window: 10 * SECOND })
    }

    #[test]
    fn the_best_speed_counts_and_is_held_to_be_better_still() {
        let (forecast, now) = (forecast(2), Instant::now());
        assert_eq!(forecast.at_best(1000, now), None, "nothing is known");
        forecast.observe(100, SECOND, now);
        forecast.observe(50, SECOND, now);
        assert_eq!(forecast.at_best(1000, now), Some(5 * SECOND));
    }

    #[test]
    fn old_speeds_do_not_count_for_ever() {
        let (forecast, now) = (forecast(1), Instant::now());
        forecast.observe(100, SECOND, now);
        forecast.observe(10, SECOND, now + 12 * SECOND);
        assert_eq!(forecast.at_best(100, now + 13 * SECOND), Some(SECOND));
        assert_eq!(forecast.at_best(100, now + 23 * SECOND), Some(10 * SECOND));
        assert_eq!(forecast.at_best(100, now + 60 * SECOND), None);
    }

    #[test]
    fn a_factor_of_zero_refuses_nothing() {
        let (forecast, now) = (forecast(0), Instant::now());
        forecast.observe(1, SECOND, now);
        assert_eq!(forecast.at_best(1_000_000, now), None);
    }
}
