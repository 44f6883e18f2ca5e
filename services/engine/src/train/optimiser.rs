//! AdamW and its schedule: the settings, and the factors of each step.

use kernels::AdamW;
use serde::{Deserialize, Serialize};

use super::TrainError;

/// Settings of the optimiser of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// The highest learning rate.
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Decoupled: a step keeps `1 − rate · decay` of every factor.
    pub weight_decay: f64,
    /// The largest norm of the gradient of a step, over all factors of the adapter; none: never clipped.
    pub clip_norm: Option<f64>,
    pub schedule: Schedule,
    /// Steps over which the rate rises from zero.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub steps: u64,
}

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Half a cosine down to zero at the last step.
    Cosine,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 2e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            schedule: Schedule::Cosine,
            warmup_steps: 0,
            steps: 1,
        }
    }
}

impl OptimiserConfig {
    /// The rate of the step after `done` others, as `get_cosine_schedule_with_warmup` of transformers gives it: with a
    /// warm-up the first one is zero.
    pub fn learning_rate_at(&self, done: u64) -> f64 {
        let fraction = if done < self.warmup_steps {
            done as f64 / self.warmup_steps as f64
        } else {
            match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Cosine => {
                    let decaying = (self.steps - self.warmup_steps).max(1);
                    let progress = (done - self.warmup_steps) as f64 / decaying as f64;
                    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
                }
            }
        };
        self.learning_rate * fraction.max(0.0)
    }

    /// The first setting that makes no sense.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let between = |value: f64, low: f64, high: f64| value >= low && value < high;
        let faults = [
            ("learning_rate", self.learning_rate, between(self.learning_rate, 0.0, 1e3), "it is from 0 to 1000"),
            ("beta1", self.beta1, between(self.beta1, 0.0, 1.0), "it is from 0 to below 1"),
            ("beta2", self.beta2, between(self.beta2, 0.0, 1.0), "it is from 0 to below 1"),
            ("epsilon", self.epsilon, self.epsilon > 0.0 && self.epsilon < 1.0, "it is above 0 and below 1"),
            ("weight_decay", self.weight_decay, between(self.weight_decay, 0.0, 1e3), "it is from 0 to 1000"),
            ("clip_norm", self.clip_norm.unwrap_or(1.0), self.clip_norm.is_none_or(|n| n > 0.0), "it is above 0"),
            ("warmup_steps", self.warmup_steps as f64, self.warmup_steps <= self.steps, "it is at most `steps`"),
            ("steps", self.steps as f64, self.steps > 0, "it is at least 1"),
        ];
        match faults.into_iter().find(|(_, _, sound, _)| !sound) {
            None => Ok(()),
            Some((name, value, _, expected)) => Err(TrainError::Setting { name, value: value.to_string(), expected }),
        }
    }

    /// What the gradient is multiplied by, besides the mean, if its norm is `norm`.
    pub(super) fn clip_factor(&self, norm: f64) -> f64 {
        self.clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
    }

    /// Factors of the step after `done` others.
    pub(super) fn step(&self, done: u64, gradient_factor: f64) -> AdamW {
        let (rate, t) = (self.learning_rate_at(done), (done + 1) as f64);
        AdamW {
            gradient_factor: gradient_factor as f32,
            keep: (1.0 - rate * self.weight_decay) as f32,
            first_rate: (1.0 - self.beta1) as f32,
            second_keep: self.beta2 as f32,
            second_rate: (1.0 - self.beta2) as f32,
            step: (rate / (1.0 - self.beta1.powf(t))) as f32,
            second_root: (1.0 - self.beta2.powf(t)).sqrt() as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_over_the_warm_up_and_falls_to_zero() {
        let config = OptimiserConfig { learning_rate: 0.5, warmup_steps: 4, steps: 12, ..OptimiserConfig::default() };
        let rates: Vec<f64> = (0..=12).map(|done| config.learning_rate_at(done)).collect();
        assert_eq!(&rates[..5], [0.0, 0.125, 0.25, 0.375, 0.5]);
        assert!((rates[8] - 0.25).abs() < 1e-12 && rates[12].abs() < 1e-12);
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
        let constant = OptimiserConfig { schedule: Schedule::Constant, ..config };
        assert_eq!((constant.learning_rate_at(2), constant.learning_rate_at(11)), (0.25, 0.5));
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let sound = OptimiserConfig::default();
        assert!(sound.check().is_ok());
        let faulty = [
            (OptimiserConfig { learning_rate: f64::NAN, ..sound.clone() }, "learning_rate"),
            (OptimiserConfig { beta2: 1.0, ..sound.clone() }, "beta2"),
            (OptimiserConfig { clip_norm: Some(0.0), ..sound.clone() }, "clip_norm"),
            (OptimiserConfig { warmup_steps: 2, ..sound.clone() }, "warmup_steps"),
            (OptimiserConfig { steps: 0, ..sound }, "steps"),
        ];
        for (config, wrong) in faulty {
            assert!(matches!(config.check(), Err(TrainError::Setting { name, .. }) if name == wrong));
        }
    }
}
