//! Stops asking somebody who does not answer: after some failures in a row nobody asks for a while, and then one asks for
//! all.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

pub struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Nobody asks before.
    until: Option<Instant>,
}

impl Breaker {
    /// Opens after `failures_max` failures in a row, for `pause`.
    pub fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max, pause, state: Mutex::default() }
    }

    /// Whether to ask now. After a pause it lets one through, and the next one after another pause.
    pub fn allows(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + self.pause);
                true
            }
            None => true,
        }
    }

    /// There was an answer. Says whether it is the first one after a pause.
    pub fn succeeded(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = 0;
        state.until.take().is_some()
    }

    /// There was none. Says whether a pause begins with this.
    pub fn failed(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.failures_max {
            return false;
        }
        state.until.replace(now + self.pause).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_lets_one_through_after_a_pause_and_closes_with_an_answer() {
        let (breaker, start) = (Breaker::new(2, Duration::from_millis(100)), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!breaker.failed(at(0)) && !breaker.succeeded() && !breaker.failed(at(1)), "not two in a row");
        assert!(breaker.allows(at(1)) && breaker.failed(at(2)));
        assert!(!breaker.allows(at(3)) && !breaker.allows(at(101)));
        assert!(breaker.allows(at(102)), "one asks");
        assert!(!breaker.allows(at(103)), "and the others wait for what becomes of it");
        assert!(!breaker.failed(at(104)), "still open");
        assert!(!breaker.allows(at(203)) && breaker.allows(at(205)));
        assert!(breaker.succeeded());
        assert!(breaker.allows(at(206)) && !breaker.succeeded());
    }
}
