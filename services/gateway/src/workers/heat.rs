//! How much load each key has had of late: the most answers at a time, which halve with every half-life once they are gone.
//! So an adapter keeps its additional homes for a while, and does not lose and load them again with every lull.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub struct Heat {
    keys: Mutex<HashMap<Vec<u8>, Level>>,
    half_life: Duration,
    keys_max: usize,
}

struct Level {
    running: usize,
    /// At `at`; never less than `running`.
    recent: f64,
    at: Instant,
}

/// An answer that runs; dropping it is its end.
pub struct Warm {
    heat: Arc<Heat>,
    key: Vec<u8>,
}

impl Heat {
    /// Of at most `keys_max` keys besides those that have answers now.
    pub fn new(half_life: Duration, keys_max: usize) -> Self {
        Self { keys: Mutex::default(), half_life, keys_max }
    }

    /// One more answer of this key.
    pub fn enter(self: &Arc<Self>, key: &[u8]) -> Warm {
        let now = Instant::now();
        let mut keys = self.lock();
        if !keys.contains_key(key) && keys.len() >= self.keys_max {
            let half_life = self.half_life;
            keys.retain(|_, level| level.running > 0 || level.recent(now, half_life) >= 1.0);
            if keys.len() >= self.keys_max {
                keys.retain(|_, level| level.running > 0);
            }
        }
        let level = keys.entry(key.to_vec()).or_insert(Level { running: 0, recent: 0.0, at: now });
        level.change(1, now, self.half_life);
        drop(keys);
        Warm { heat: Arc::clone(self), key: key.to_vec() }
    }

    /// Answers of this key at a time, of late.
    pub fn recent(&self, key: &[u8]) -> usize {
        let now = Instant::now();
        self.lock().get(key).map_or(0, |level| level.recent(now, self.half_life).round() as usize)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Level>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Level {
    fn recent(&self, now: Instant, half_life: Duration) -> f64 {
        let halves = now.duration_since(self.at).as_secs_f64() / half_life.as_secs_f64();
        let running = self.running as f64;
        running + (self.recent - running) * 0.5f64.powf(halves)
    }

    fn change(&mut self, by: isize, now: Instant, half_life: Duration) {
        let recent = self.recent(now, half_life);
        self.running = self.running.saturating_add_signed(by);
        self.recent = recent.max(self.running as f64);
        self.at = now;
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        if let Some(level) = self.heat.lock().get_mut(&self.key) {
            level.change(-1, Instant::now(), self.heat.half_life);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_counts_at_once_and_is_forgotten_slowly() {
        let (half_life, start) = (Duration::from_secs(30), Instant::now());
        let mut level = Level { running: 0, recent: 0.0, at: start };
        (0..40).for_each(|_| level.change(1, start, half_life));
        (0..40).for_each(|_| level.change(-1, start, half_life));
        let after = |level: &Level, halves: u32| level.recent(start + half_life * halves, half_life).round();
        assert_eq!((level.running, after(&level, 0), after(&level, 1), after(&level, 2)), (0, 40.0, 20.0, 10.0));
        level.change(1, start + half_life, half_life);
        assert_eq!((after(&level, 1), after(&level, 9)), (20.0, 1.0));
    }

    #[test]
    fn what_is_cold_is_forgotten_when_there_are_too_many() {
        let heat = Arc::new(Heat::new(Duration::from_nanos(1), 2));
        let warm: Vec<_> = (0..3).map(|_| heat.enter(b"warm")).collect();
        for key in [b"a", b"b", b"c", b"d"] {
            drop(heat.enter(key));
        }
        assert!(heat.lock().len() <= 2);
        assert_eq!((heat.recent(b"warm"), heat.recent(b"never")), (3, 0));
        drop(warm);
    }
}
