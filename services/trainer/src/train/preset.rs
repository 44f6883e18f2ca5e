//! Hyper-parameters for those who do not want to choose: by the size of the base and of the data.

use std::collections::BTreeSet;

use adapters::{LoraConfig, config::TargetModules};
use engine::{
    model::ModelConfig,
    train::{OptimiserConfig, Recipe},
};

use super::JobOptions;

/// A base with fewer numbers than this has words that it was hardly trained on, so that an adapter must reach the
/// embedding and the output layer too; and it takes large steps.
const SMALL_PARAMETERS: usize = 50_000_000;
/// Of all tokens of the training side.
const EPOCHS_MAX: f64 = 20.0;
const LINEAR: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const ENDS: [&str; 2] = ["embed_tokens", "lm_head"];

/// What the choice is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    /// Of all rows, prompts included.
    pub tokens: usize,
}

/// What may be chosen instead; the rest follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preset {
    pub rank: Option<usize>,
    pub alpha: Option<f64>,
    pub rslora: bool,
    pub targets: Option<BTreeSet<String>>,
    pub learning_rate: Option<f64>,
    pub epochs: Option<f64>,
    pub step_tokens: Option<usize>,
    pub seed: u64,
}

impl Preset {
    /// `base_name`: how the exported config names its base.
    pub fn choose(&self, model: &ModelConfig, base_name: &str, size: Size) -> (Recipe, JobOptions) {
        let is_small = parameters(model) < SMALL_PARAMETERS;
        let rank = self.rank.unwrap_or(16);
        let targets = self.targets.clone().unwrap_or_else(|| {
            let ends = ENDS.iter().filter(|_| is_small);
            LINEAR.iter().chain(ends).map(|name| (*name).to_owned()).collect()
        });
        let step_tokens = self.step_tokens.unwrap_or(if is_small { 2_304 } else { 4_096 }).max(1);
        // A million tokens teach a few thousand short rows; many rows need fewer epochs.
        let wanted = if is_small { 1_100_000.0 } else { 3_000_000.0 };
        let tokens = size.tokens.max(1) as f64;
        let epochs = self.epochs.unwrap_or((wanted / tokens).clamp(1.0, EPOCHS_MAX));
        let steps = ((epochs * tokens / step_tokens as f64).ceil() as u64).max(1);
        let lora = LoraConfig {
            base_model: Some(base_name.to_owned()),
            rank,
            alpha: self.alpha.unwrap_or(2.0 * rank as f64),
            rslora: self.rslora,
            target_modules: TargetModules::Names(targets),
            ..LoraConfig::default()
        };
        let optimiser = OptimiserConfig {
            learning_rate: self.learning_rate.unwrap_or(if is_small { 8e-3 } else { 2e-4 }),
            beta2: 0.99,
            warmup_steps: (steps * 3).div_ceil(100).clamp(1, 30).min(steps),
            steps,
            ..OptimiserConfig::default()
        };
        let validate_every = (steps / 20).max(1);
        let job = JobOptions {
            step_tokens,
            replay_share: 0.12,
            validate_every,
            patience: 6,
            checkpoint_every: (steps / 40).max(1),
        };
        (Recipe { lora, optimiser, seed: self.seed }, job)
    }
}

/// Of the decoder, about: embedding, attention, feed-forward.
fn parameters(model: &ModelConfig) -> usize {
    let hidden = model.hidden_size;
    let attention = 2 * hidden * (model.heads + model.kv_heads) * model.head_dim;
    model.vocab_size * hidden + model.layers * (attention + 3 * hidden * model.intermediate_size)
}
