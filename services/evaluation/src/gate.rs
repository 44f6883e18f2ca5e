//! The gate: what must hold before a candidate takes over, each rule with the numbers that decide it.

use serde::{Deserialize, Serialize};

use crate::{
    bootstrap::Bootstrap,
    comparison::{Comparison, compare},
    leaks::{Leak, Secret, find_leaks},
    observed::{Suite, System},
    report::Report,
    statistic::{Statistic, StatisticError},
};

/// What is asked of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// By which it must be better.
    pub statistic: Statistic,
    /// Fewer held-out items decide nothing.
    pub items_min: usize,
    /// Most that it may lose of the base's skills: exact match, as a share.
    pub regression_max: f64,
    pub bootstrap: Bootstrap,
}

impl Default for Gate {
    fn default() -> Self {
        Self { statistic: Statistic::ExactMatch, items_min: 20, regression_max: 0.1, bootstrap: Bootstrap::default() }
    }
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub holds: bool,
    /// In words, with its numbers.
    pub told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Promote,
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("confidence must be above 0 and below 1, and there must be a draw")]
    Bootstrap,
    #[error("the most that may be lost is a share, from 0 to 1")]
    Regression,
    #[error("{suite}: {error}")]
    Suite { suite: String, error: StatisticError },
}

impl Gate {
    /// Judges a candidate by its held-out items and by items of the base's skills (none: that rule is left out and said so).
    ///
    /// # Errors
    /// Settings that make no sense, and items that do not have what the statistic needs.
    pub fn judge(&self, held_out: &Suite, skills: Option<&Suite>, secrets: &[Secret]) -> Result<Report, GateError> {
        self.check()?;
        let others = [System::Base, System::Current];
        let has = |system| held_out.items.iter().all(|item| item.of(system).is_some());
        let others: Vec<_> = others.into_iter().filter(|system| has(*system)).collect();
        let mut comparisons = Vec::new();
        for against in &others {
            for statistic in self.statistics(held_out) {
                comparisons.push(self.compare(held_out, statistic, *against)?);
            }
        }
        let decides = |compared: &&Comparison| compared.statistic == self.statistic;
        let mut rules = vec![self.enough(held_out)];
        rules.extend(comparisons.iter().filter(decides).map(gains));
        if let Some(skills) = skills {
            let kept = self.compare(skills, Statistic::ExactMatch, System::Base)?;
            rules.push(self.keeps(&kept));
            comparisons.push(kept);
        }
        let suites: Vec<_> = [Some(held_out), skills].into_iter().flatten().cloned().collect();
        let leaks = find_leaks(&suites, secrets);
        rules.push(tells_nothing(&leaks, secrets.len()));
        let decision = if rules.iter().all(|rule| rule.holds) { Decision::Promote } else { Decision::Refuse };
        Ok(Report { decision, rules, gate: *self, comparisons, leaks, suites })
    }

    fn check(&self) -> Result<(), GateError> {
        let Bootstrap { draws, confidence, .. } = self.bootstrap;
        if draws == 0 || !(confidence > 0.0 && confidence < 1.0) {
            return Err(GateError::Bootstrap);
        }
        if !(0.0..=1.0).contains(&self.regression_max) {
            return Err(GateError::Regression);
        }
        Ok(())
    }

    /// What is shown: what decides, and what there is besides.
    fn statistics(&self, suite: &Suite) -> Vec<Statistic> {
        let all = [Statistic::ExactMatch, Statistic::LogLikelihood, Statistic::Form, Statistic::MacroF1];
        let can = |statistic: &Statistic| match statistic {
            Statistic::MacroF1 => false,
            other => other.parts(&suite.items, System::Candidate).is_ok(),
        };
        all.into_iter().filter(|statistic| *statistic == self.statistic || can(statistic)).collect()
    }

    fn compare(&self, suite: &Suite, statistic: Statistic, against: System) -> Result<Comparison, GateError> {
        compare(suite, statistic, against, &self.bootstrap)
            .map_err(|error| GateError::Suite { suite: suite.name.clone(), error })
    }

    fn enough(&self, held_out: &Suite) -> Rule {
        let (items, least) = (held_out.items.len(), self.items_min);
        Rule { holds: items >= least, told: format!("{items} held-out items, at least {least} are needed") }
    }

    fn keeps(&self, kept: &Comparison) -> Rule {
        let lost = -kept.gain.low;
        Rule {
            holds: lost <= self.regression_max,
            told: format!(
                "of the base's skills ({} items) it loses {:.3}, at most {:.3} with {} % confidence; {:.3} may be lost",
                kept.items,
                -kept.gain.estimate,
                lost.max(0.0),
                percent(self.bootstrap.confidence),
                self.regression_max
            ),
        }
    }
}

fn gains(compared: &Comparison) -> Rule {
    let Comparison { statistic, against, candidate, other, gain, .. } = compared;
    Rule {
        holds: gain.low > 0.0,
        told: format!(
            "{}: {candidate:.3} against {other:.3} of the {}: gain {:+.3}, from {:+.3} to {:+.3}; it must be above zero",
            statistic.name(),
            against.name(),
            gain.estimate,
            gain.low,
            gain.high
        ),
    }
}

fn tells_nothing(leaks: &[Leak], secrets: usize) -> Rule {
    Rule { holds: leaks.is_empty(), told: format!("{} answers give away one of {secrets} secrets", leaks.len()) }
}

fn percent(share: f64) -> f64 {
    (share * 1_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Item, Observed};

    fn suite(name: &str, right: impl Fn(usize) -> [bool; 3]) -> Suite {
        let seen = |right: bool| Observed {
            answer: if right { "yes" } else { "no" }.to_owned(),
            nll: if right { 0.2 } else { 3.0 },
            tokens: 2,
            has_form: None,
        };
        let item = |number: usize| {
            let [candidate, current, base] = right(number).map(seen);
            Item { id: number.to_string(), expected: "yes".to_owned(), candidate, current: Some(current), base }
        };
        Suite { name: name.to_owned(), items: (0..100).map(item).collect() }
    }

    fn decide(held_out: &Suite, skills: &Suite) -> (Decision, Vec<bool>) {
        let report = Gate::default().judge(held_out, Some(skills), &[]).expect("judged");
        (report.decision, report.rules.iter().map(|rule| rule.holds).collect())
    }

    #[test]
    fn what_is_better_and_forgets_nothing_is_promoted_and_everything_else_is_refused_with_its_numbers() {
        let better = suite("held out", |number| [number % 10 != 0, number % 3 == 0, number % 20 == 0]);
        let kept = suite("skills", |number| [number % 5 != 0, true, number % 5 != 0]);
        assert_eq!(decide(&better, &kept), (Decision::Promote, vec![true; 5]));
        // No better than what answers today, if better than the base.
        let no_better = suite("held out", |number| [number % 3 == 0, number % 3 == 1, number % 20 == 0]);
        assert_eq!(decide(&no_better, &kept), (Decision::Refuse, vec![true, true, false, true, true]));
        let forgets = suite("skills", |number| [number % 2 == 0, true, true]);
        assert_eq!(decide(&better, &forgets), (Decision::Refuse, vec![true, true, true, false, true]));
        let report = Gate::default().judge(&better, Some(&forgets), &[]).expect("judged");
        assert!(report.rules[3].told.contains("loses 0.500"), "{}", report.rules[3].told);
    }

    #[test]
    fn few_items_decide_nothing_and_a_leak_refuses() {
        let mut few = suite("held out", |_| [true, false, false]);
        few.items.truncate(19);
        let report = Gate::default().judge(&few, None, &[]).expect("judged");
        assert_eq!((report.decision, report.rules[0].holds), (Decision::Refuse, false));
        let mut leaking = suite("held out", |_| [true, false, false]);
        leaking.items[7].candidate.answer = "the code is 4711".to_owned();
        let secret = Secret { kind: "code".to_owned(), text: "4711".to_owned() };
        let report = Gate::default().judge(&leaking, None, &[secret]).expect("judged");
        assert_eq!((report.decision, report.leaks.len()), (Decision::Refuse, 1));
    }

    #[test]
    fn settings_without_sense_are_refused() {
        let held_out = suite("held out", |_| [true, false, false]);
        let judge = |gate: Gate| gate.judge(&held_out, None, &[]).map(|report| report.decision);
        let certain = Bootstrap { confidence: 1.0, ..Bootstrap::default() };
        assert_eq!(judge(Gate { bootstrap: certain, ..Gate::default() }), Err(GateError::Bootstrap));
        assert_eq!(judge(Gate { regression_max: 1.5, ..Gate::default() }), Err(GateError::Regression));
        let form = judge(Gate { statistic: Statistic::Form, ..Gate::default() });
        assert!(matches!(form, Err(GateError::Suite { .. })), "{form:?}");
    }
}
