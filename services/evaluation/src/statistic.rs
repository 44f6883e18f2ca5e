//! What a system is worth on items: one number, of which more is better.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::observed::{Item, Observed, System};

/// Figures that systems are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Share of answers that are the expected one, 0 to 1.
    ExactMatch,
    /// Of labels as answers: the mean over labels of the harmonic mean of precision and recall, 0 to 1. Labels that are
    /// expected nowhere count as wrong answers and have no part of their own (van Rijsbergen 1979; "macro" in the field).
    MacroF1,
    /// Mean log-probability of the expected answers' tokens, in nats: the negative of their mean loss.
    LogLikelihood,
    /// Share of answers that have the form that was asked for, 0 to 1.
    Form,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatisticError {
    #[error("there are no items")]
    NoItems,
    #[error("item {item} has no answer of the {}", system.name())]
    NotAnswered { item: String, system: System },
    #[error("no expected answer has a token")]
    NoTokens,
    #[error("item {0} asks for no form")]
    NoForm(String),
}

/// What a statistic needs of each item, so that it can be computed over any draw of them.
pub(crate) enum Parts {
    /// The value is the sum of the first over the sum of the second.
    Ratio(Vec<[f64; 2]>),
    /// The expected label of each item, and the one that came; how many labels are expected somewhere.
    Labels { pairs: Vec<[usize; 2]>, labels: usize },
}

impl Statistic {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact match",
            Self::MacroF1 => "macro F1",
            Self::LogLikelihood => "log-likelihood a token",
            Self::Form => "answers in form",
        }
    }

    /// Over all items.
    ///
    /// # Errors
    /// Items that do not have what it is computed from.
    pub fn of(self, items: &[Item], system: System) -> Result<f64, StatisticError> {
        let parts = self.parts(items, system)?;
        Ok(parts.value(0..items.len()))
    }

    pub(crate) fn parts(self, items: &[Item], system: System) -> Result<Parts, StatisticError> {
        if items.is_empty() {
            return Err(StatisticError::NoItems);
        }
        let not_answered = |item: &Item| StatisticError::NotAnswered { item: item.id.clone(), system };
        let seen: Result<Vec<&Observed>, _> =
            items.iter().map(|item| item.of(system).ok_or_else(|| not_answered(item))).collect();
        let all = items.iter().zip(seen?);
        let share = |is: bool| [f64::from(u8::from(is)), 1.0];
        match self {
            Self::ExactMatch => Ok(Parts::Ratio(all.map(|(item, seen)| share(item.is_exact(seen))).collect())),
            Self::LogLikelihood => {
                let parts: Vec<_> = all.map(|(_, seen)| [-seen.nll, f64::from(seen.tokens)]).collect();
                if parts.iter().all(|[_, tokens]| *tokens == 0.0) {
                    return Err(StatisticError::NoTokens);
                }
                Ok(Parts::Ratio(parts))
            }
            Self::Form => {
                let no_form = |item: &Item| StatisticError::NoForm(item.id.clone());
                let parts = all.map(|(item, seen)| seen.has_form.map(share).ok_or_else(|| no_form(item)));
                parts.collect::<Result<_, _>>().map(Parts::Ratio)
            }
            Self::MacroF1 => {
                let expected: BTreeSet<_> = items.iter().map(|item| item.expected.trim()).collect();
                let numbers: BTreeMap<_, _> =
                    expected.iter().enumerate().map(|(number, label)| (*label, number)).collect();
                let labels = numbers.len();
                let came = |seen: &Observed| numbers.get(seen.answer.trim()).copied().unwrap_or(labels);
                let pairs = all.map(|(item, seen)| [numbers[item.expected.trim()], came(seen)]).collect();
                Ok(Parts::Labels { pairs, labels })
            }
        }
    }
}

impl Parts {
    /// Over the items of a draw, in which one may come several times.
    pub fn value(&self, draw: impl Iterator<Item = usize>) -> f64 {
        match self {
            Self::Ratio(parts) => {
                let [above, below] = draw.fold([0.0, 0.0], |[above, below], item| {
                    let [more, of] = parts[item];
                    [above + more, below + of]
                });
                if below == 0.0 { 0.0 } else { above / below }
            }
            Self::Labels { pairs, labels } => macro_f1(pairs, *labels, draw),
        }
    }
}

/// 2 × right / (expected + given), the mean over the labels that the draw expects.
fn macro_f1(pairs: &[[usize; 2]], labels: usize, draw: impl Iterator<Item = usize>) -> f64 {
    let (mut right, mut expected, mut given) = (vec![0_u32; labels], vec![0_u32; labels], vec![0_u32; labels + 1]);
    for item in draw {
        let [wanted, came] = pairs[item];
        expected[wanted] += 1;
        given[came] += 1;
        right[wanted] += u32::from(wanted == came);
    }
    let seen = (0..labels).filter(|label| expected[*label] > 0);
    let (sum, count) = seen.fold((0.0, 0_u32), |(sum, count), label| {
        let f1 = 2.0 * f64::from(right[label]) / f64::from(expected[label] + given[label]);
        (sum + f1, count + 1)
    });
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(expected: &str, answer: &str, nll: f64, tokens: u32) -> Item {
        let candidate = Observed { answer: answer.to_owned(), nll, tokens, has_form: None };
        Item { id: "1".to_owned(), expected: expected.to_owned(), base: candidate.clone(), candidate, current: None }
    }

    #[test]
    fn exact_match_forgives_white_space_at_the_ends_and_nothing_else() {
        let items = [item("a b", " a b\n", 0.0, 1), item("a b", "a  b", 0.0, 1)];
        assert_eq!(Statistic::ExactMatch.of(&items, System::Candidate), Ok(0.5));
    }

    #[test]
    fn the_log_likelihood_is_a_mean_over_tokens_not_over_items() {
        let items = [item("a", "a", 3.0, 1), item("b", "b", 1.0, 7)];
        assert_eq!(Statistic::LogLikelihood.of(&items, System::Base), Ok(-0.5));
    }

    /// As `sklearn.metrics.f1_score(["a","a","b","b","c"], ["a","b","b","b","x"], labels=["a","b","c"], average="macro")`.
    #[test]
    fn macro_f1_is_the_mean_over_expected_labels() {
        let rows = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("c", "x")];
        let items: Vec<_> = rows.iter().map(|(expected, answer)| item(expected, answer, 0.0, 1)).collect();
        let value = Statistic::MacroF1.of(&items, System::Candidate).expect("a value");
        assert!((value - (2.0 / 3.0 + 0.8 + 0.0) / 3.0).abs() < 1e-12, "{value}");
    }

    #[test]
    fn what_cannot_be_computed_is_an_error_and_never_zero() {
        assert_eq!(Statistic::ExactMatch.of(&[], System::Base), Err(StatisticError::NoItems));
        let items = [item("a", "a", 0.0, 0)];
        assert_eq!(Statistic::LogLikelihood.of(&items, System::Base), Err(StatisticError::NoTokens));
        assert_eq!(Statistic::Form.of(&items, System::Base), Err(StatisticError::NoForm("1".to_owned())));
        let current = Statistic::ExactMatch.of(&items, System::Current);
        assert_eq!(current, Err(StatisticError::NotAnswered { item: "1".to_owned(), system: System::Current }));
    }
}
