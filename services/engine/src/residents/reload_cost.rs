//! What it costs to bring an adapter back, learnt from the loads that happened: a fixed part (finding it, opening it,
//! the round trip) and a part for each byte. A straight line by least squares in which old loads fade.

use std::time::Duration;

/// Weight that a load keeps when the next one is seen: about the last hundred count.
const KEPT: f64 = 0.99;

/// A line through (bytes, seconds), as decayed sums.
#[derive(Debug, Default)]
pub struct ReloadCost {
    loads: f64,
    bytes: f64,
    seconds: f64,
    bytes_bytes: f64,
    bytes_seconds: f64,
}

impl ReloadCost {
    /// A load of `bytes` took so long.
    pub fn observe(&mut self, bytes: u64, took: Duration) {
        let (bytes, seconds) = (bytes as f64, took.as_secs_f64());
        for (sum, value) in [
            (&mut self.loads, 1.0),
            (&mut self.bytes, bytes),
            (&mut self.seconds, seconds),
            (&mut self.bytes_bytes, bytes * bytes),
            (&mut self.bytes_seconds, bytes * seconds),
        ] {
            *sum = *sum * KEPT + value;
        }
    }

    /// Seconds that loading `bytes` may take; never negative, and never less for more bytes.
    pub fn seconds(&self, bytes: u64) -> f64 {
        let (fixed, each_byte) = self.line();
        fixed + each_byte * bytes as f64
    }

    /// Seconds for each load, and for each byte of it.
    fn line(&self) -> (f64, f64) {
        if self.bytes <= 0.0 || self.seconds <= 0.0 {
            // Nothing is known: only sizes count.
            return (0.0, 1e-9);
        }
        let spread = self.loads * self.bytes_bytes - self.bytes * self.bytes;
        // With one size, sums are equal up to rounding and any split fits; the whole is taken as fixed.
        let each_byte = if spread <= 1e-9 * self.loads * self.bytes_bytes {
            0.0
        } else {
            let slope = (self.loads * self.bytes_seconds - self.bytes * self.seconds) / spread;
            slope.clamp(0.0, self.seconds / self.bytes)
        };
        ((self.seconds - each_byte * self.bytes) / self.loads, each_byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_part_and_a_part_for_each_byte_are_told_apart() {
        let mut cost = ReloadCost::default();
        for n in 1..=40u64 {
            let bytes = n % 5 * 1_000_000 + 1_000_000;
            cost.observe(bytes, Duration::from_micros(2000 + bytes / 1000));
        }
        for bytes in [1_000_000u64, 8_000_000] {
            let expected = 0.002 + bytes as f64 * 1e-9;
            assert!((cost.seconds(bytes) - expected).abs() < 1e-6, "{} for {bytes}", cost.seconds(bytes));
        }
    }

    #[test]
    fn whatever_was_measured_no_cost_is_negative_and_more_bytes_never_cost_less() {
        let mut cost = ReloadCost::default();
        assert!(cost.seconds(10) < cost.seconds(1000));
        for (bytes, millis) in [(1000, 50), (1_000_000, 1), (5_000_000, 0), (0, 3), (1000, 50)] {
            cost.observe(bytes, Duration::from_millis(millis));
            assert!(cost.seconds(0) >= 0.0 && cost.seconds(0) <= cost.seconds(1 << 40), "{cost:?}");
        }
    }

    #[test]
    fn what_is_slow_now_counts_for_more_than_what_was_slow_once() {
        let mut cost = ReloadCost::default();
        for _ in 0..10 {
            cost.observe(1000, Duration::from_millis(100));
        }
        for _ in 0..500 {
            cost.observe(1000, Duration::from_millis(1));
        }
        assert!(cost.seconds(1000) < 0.002, "{}", cost.seconds(1000));
    }
}
