//! Sampling parameters that are known to be in range.

use serde::{Deserialize, Serialize};

/// How the next token is drawn. Built by [`Sampling::check`] only, so every value is finite and in range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy; 0 to 100.
    pub temperature: f32,
    /// Smallest set of tokens whose probability reaches this; above 0, at most 1.
    pub top_p: f32,
    /// The k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Tokens at least this share as likely as the most likely one; 0 to 1.
    pub min_p: f32,
    /// Over prompt and answer (Keskar et al. 2019, CTRL); above 0, 1 is off.
    pub repetition_penalty: f32,
    /// Over the answer, once for each token in it; -2 to 2.
    pub presence_penalty: f32,
    /// Over the answer, for each time that a token is in it; -2 to 2.
    pub frequency_penalty: f32,
    pub seed: u64,
}

/// One parameter out of range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplingFault {
    pub field: &'static str,
    pub description: &'static str,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// The most likely token at every step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Returns the same value, or every parameter that is out of range.
    pub fn check(self) -> Result<Self, Vec<SamplingFault>> {
        let within = |value: f32, low: f32, high: f32| (low..=high).contains(&value);
        let rules = [
            (within(self.temperature, 0.0, 100.0), "temperature", "must be 0 to 100"),
            (within(self.top_p, f32::MIN_POSITIVE, 1.0), "top_p", "must be above 0 and at most 1"),
            (within(self.min_p, 0.0, 1.0), "min_p", "must be 0 to 1"),
            (within(self.repetition_penalty, 1e-3, 1e3), "repetition_penalty", "must be 0.001 to 1000"),
            (within(self.presence_penalty, -2.0, 2.0), "presence_penalty", "must be -2 to 2"),
            (within(self.frequency_penalty, -2.0, 2.0), "frequency_penalty", "must be -2 to 2"),
        ];
        let faults: Vec<_> = rules
            .into_iter()
            .filter(|(fits, ..)| !fits)
            .map(|(_, field, description)| SamplingFault { field, description })
            .collect();
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_out_of_range_is_named_at_once() {
        let wrong = Sampling {
            temperature: f32::NAN,
            top_p: 0.0,
            min_p: 1.5,
            repetition_penalty: 0.0,
            presence_penalty: -3.0,
            frequency_penalty: f32::INFINITY,
            ..Sampling::default()
        };
        let named: Vec<_> = wrong.check().expect_err("all wrong").into_iter().map(|fault| fault.field).collect();
        assert_eq!(
            named,
            ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"]
        );
        assert!(Sampling::greedy().check().is_ok());
    }
}
