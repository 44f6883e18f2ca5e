//! Two systems on the same items.

use serde::{Deserialize, Serialize};

use crate::{
    bootstrap::{Bootstrap, Interval},
    observed::{Suite, System},
    statistic::{Statistic, StatisticError},
};

/// How much the candidate is better than another system, by one statistic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub suite: String,
    pub statistic: Statistic,
    pub against: System,
    pub items: usize,
    pub candidate: f64,
    pub other: f64,
    /// Candidate less other, each on the same draw.
    pub gain: Interval,
    /// Items that only the candidate answers exactly.
    pub won: u32,
    /// Items that only the other one answers exactly.
    pub lost: u32,
    /// How likely so uneven a pair of won and lost is by chance: McNemar's test, exact and two-sided.
    pub p: f64,
}

/// # Errors
/// Items that do not have what the statistic is computed from.
pub fn compare(
    suite: &Suite,
    statistic: Statistic,
    against: System,
    bootstrap: &Bootstrap,
) -> Result<Comparison, StatisticError> {
    let items = &suite.items;
    let [ours, theirs] = [statistic.parts(items, System::Candidate)?, statistic.parts(items, against)?];
    let all = || 0..items.len();
    let gain =
        bootstrap.interval(items.len(), |draw| ours.value(draw.iter().copied()) - theirs.value(draw.iter().copied()));
    let (mut won, mut lost) = (0, 0);
    for item in items {
        let exact = |system| item.of(system).is_some_and(|seen| item.is_exact(seen));
        match (exact(System::Candidate), exact(against)) {
            (true, false) => won += 1,
            (false, true) => lost += 1,
            _ => {}
        }
    }
    Ok(Comparison {
        suite: suite.name.clone(),
        statistic,
        against,
        items: items.len(),
        candidate: ours.value(all()),
        other: theirs.value(all()),
        gain,
        won,
        lost,
        p: mcnemar(won, lost),
    })
}

/// Both tails of a fair coin thrown `won + lost` times, at most 1 (McNemar 1947, exact form).
fn mcnemar(won: u32, lost: u32) -> f64 {
    let thrown = won + lost;
    // The logarithm of "thrown over k", step by step.
    let (mut log_choose, mut tail) = (0.0_f64, 0.0);
    for k in 0..=won.min(lost) {
        tail += (log_choose - f64::from(thrown) * std::f64::consts::LN_2).exp();
        log_choose += (f64::from(thrown - k) / f64::from(k + 1)).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Item, Observed};

    fn suite(rows: &[(bool, bool)]) -> Suite {
        let seen = |right: bool| Observed {
            answer: if right { "yes" } else { "no" }.to_owned(),
            nll: if right { 0.1 } else { 2.0 },
            tokens: 1,
            has_form: None,
        };
        let item = |(number, (candidate, base)): (usize, &(bool, bool))| Item {
            id: number.to_string(),
            expected: "yes".to_owned(),
            candidate: seen(*candidate),
            current: None,
            base: seen(*base),
        };
        Suite { name: "held out".to_owned(), items: rows.iter().enumerate().map(item).collect() }
    }

    /// `scipy.stats.binomtest(2, 12).pvalue`, `binomtest(0, 5)`, `binomtest(3, 6)`.
    #[test]
    fn mcnemar_is_the_binomial_test() {
        for (won, lost, p) in [(10, 2, 0.038_574_218_75), (0, 5, 0.0625), (3, 3, 1.0), (0, 0, 1.0)] {
            assert!((mcnemar(won, lost) - p).abs() < 1e-12, "{won} {lost}: {}", mcnemar(won, lost));
            assert!((mcnemar(lost, won) - p).abs() < 1e-12);
        }
        assert!(mcnemar(4_000, 0) >= 0.0);
    }

    #[test]
    fn a_better_candidate_has_a_gain_above_zero_and_an_equal_one_has_none() {
        let better: Vec<_> = (0..200).map(|number| (number % 10 != 0, number % 2 == 0)).collect();
        let compared = compare(&suite(&better), Statistic::ExactMatch, System::Base, &Bootstrap::default());
        let compared = compared.expect("compared");
        assert!((compared.gain.estimate - 0.4).abs() < 1e-12 && compared.gain.low > 0.25, "{compared:?}");
        assert_eq!([compared.won, compared.lost], [100, 20]);
        let same: Vec<_> = (0..200).map(|number| (number % 2 == 0, number % 2 == 0)).collect();
        let compared = compare(&suite(&same), Statistic::LogLikelihood, System::Base, &Bootstrap::default());
        let gain = compared.expect("compared").gain;
        assert_eq!([gain.estimate, gain.low, gain.high], [0.0; 3], "in pairs there is no noise left");
    }
}
