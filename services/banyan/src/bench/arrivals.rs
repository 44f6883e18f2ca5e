//! When requests come and which adapter they name: a Poisson process, and a Zipf distribution over ranks.

use rand::{Rng, RngExt as _};

/// Arrivals at a constant average rate, each independent of all others.
#[derive(Clone, Copy, Debug)]
pub struct Poisson {
    /// Per second, above 0.
    pub rate: f64,
}

impl Poisson {
    /// Seconds until the next arrival: exponentially distributed with the mean `1 / rate`.
    pub fn gap(self, random: &mut impl Rng) -> f64 {
        let uniform: f64 = random.random();
        // 1 - uniform is above 0, so the logarithm is finite.
        -(1.0 - uniform).ln() / self.rate
    }
}

/// Ranks from 0 on; rank k has a probability proportional to `1 / (k + 1)^exponent`.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Sums of the weights up to each rank, over their total.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `ranks` ranks, at least one.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<_> = (1..=ranks.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|value| *value /= sum);
        Self { cumulative }
    }

    pub const fn ranks(&self) -> usize {
        self.cumulative.len()
    }

    pub fn rank(&self, random: &mut impl Rng) -> usize {
        let uniform: f64 = random.random();
        self.cumulative.partition_point(|&up_to| up_to <= uniform).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const DRAWS: usize = 200_000;

    #[test]
    fn gaps_are_exponential_with_the_mean_of_the_rate() {
        let mut random = StdRng::seed_from_u64(7);
        let poisson = Poisson { rate: 4.0 };
        let gaps: Vec<_> = (0..DRAWS).map(|_| poisson.gap(&mut random)).collect();
        let mean = gaps.iter().sum::<f64>() / DRAWS as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / DRAWS as f64;
        // The standard error of the mean is 0.25 / sqrt(200,000) = 0.0006.
        assert!((mean - 0.25).abs() < 0.003, "{mean}");
        // Of an exponential distribution, the deviation equals the mean.
        assert!((variance.sqrt() - 0.25).abs() < 0.006, "{variance}");
        let long = gaps.iter().filter(|gap| **gap > 0.5).count() as f64 / DRAWS as f64;
        assert!((long - (-2.0f64).exp()).abs() < 0.004, "{long}");
    }

    #[test]
    fn arrivals_in_a_second_are_poisson() {
        let mut random = StdRng::seed_from_u64(11);
        let poisson = Poisson { rate: 4.0 };
        let seconds = 20_000;
        let mut counts = vec![0_u32; seconds];
        let mut at = poisson.gap(&mut random);
        while at < seconds as f64 {
            counts[at as usize] += 1;
            at += poisson.gap(&mut random);
        }
        let mean = counts.iter().map(|n| f64::from(*n)).sum::<f64>() / seconds as f64;
        let variance = counts.iter().map(|n| (f64::from(*n) - mean).powi(2)).sum::<f64>() / seconds as f64;
        assert!((mean - 4.0).abs() < 0.06 && (variance - 4.0).abs() < 0.2, "{mean} {variance}");
    }

    #[test]
    fn ranks_follow_their_weights() {
        let mut random = StdRng::seed_from_u64(3);
        let zipf = Zipf::new(100, 1.0);
        let mut counts = [0_usize; 100];
        (0..DRAWS).for_each(|_| counts[zipf.rank(&mut random)] += 1);
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [0, 1, 4, 49, 99] {
            let wanted = 1.0 / ((rank + 1) as f64 * harmonic);
            let seen = counts[rank] as f64 / DRAWS as f64;
            let error = (wanted / DRAWS as f64).sqrt();
            assert!((seen - wanted).abs() < 5.0 * error, "rank {rank}: {seen} for {wanted}");
        }
    }

    #[test]
    fn without_an_exponent_all_ranks_are_alike_and_one_rank_is_always_the_first() {
        let mut random = StdRng::seed_from_u64(5);
        let zipf = Zipf::new(10, 0.0);
        let mut counts = [0_usize; 10];
        (0..DRAWS).for_each(|_| counts[zipf.rank(&mut random)] += 1);
        assert!(counts.iter().all(|count| (*count as f64 - 20_000.0).abs() < 700.0), "{counts:?}");
        assert_eq!(Zipf::new(1, 1.0).rank(&mut random), 0);
    }
}
