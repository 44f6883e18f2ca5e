//! The golden checkpoints and adapters, and runs on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::{Files, Limits, LoraConfig};
use engine::model::{CpuConfig, Dtype, Model, ModelOptions};
use engine::train::{OptimiserConfig, Part, Recipe, Run, Schedule, Sequence, StepReport, Trainer, TrainerConfig};

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

pub fn model(base: &str) -> Arc<Model> {
    let dir = golden().join("bases").join(base);
    Arc::new(Model::load(&dir, &ModelOptions::new(Dtype::F32)).unwrap())
}

pub fn trainer(model: &Arc<Model>, threads: usize, activation_bytes_max: u64) -> Trainer {
    let cpu = CpuConfig { threads, ..CpuConfig::default() };
    let config = TrainerConfig { cpu, activation_bytes_max, ..TrainerConfig::default() };
    Trainer::new(Arc::clone(model), config).unwrap()
}

/// With a warm-up of one step, so that the second one is the first that changes anything.
pub fn recipe(lora: LoraConfig, seed: u64) -> Recipe {
    let optimiser = OptimiserConfig {
        learning_rate: 0.02,
        weight_decay: 0.01,
        schedule: Schedule::Cosine,
        warmup_steps: 1,
        steps: 8,
        ..OptimiserConfig::default()
    };
    Recipe { lora, optimiser, seed }
}

/// The golden adapter of a variant, and a run that begins with it.
pub fn golden_run(model: &Model, folder: &Path, optimiser: OptimiserConfig) -> (Files, Run) {
    let limits = Limits::default();
    let files = read_adapter(folder);
    let recipe = Recipe { lora: LoraConfig::default(), optimiser, seed: 0 };
    let run = Run::from_adapter(model.base(), recipe, &files, &limits).unwrap();
    (files, run)
}

/// Only the two files of the adapter: golden values lie beside them.
pub fn read_adapter(folder: &Path) -> Files {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap().into();
    Files { config: read("adapter_config.json"), weights: read("adapter_model.safetensors"), notes: Vec::new() }
}

/// Seeded tokens; the first third is context.
pub fn sequence(length: usize, seed: u64) -> Sequence {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 144) as u32
    };
    let tokens = (0..length).map(|_| next()).collect();
    Sequence { tokens, weights: (0..length).map(|i| if i < length / 3 { 0.0 } else { 1.0 }).collect() }
}

/// Two passes and a step.
pub fn step(trainer: &mut Trainer, run: &mut Run, data: &[Sequence]) -> StepReport {
    let (first, second) = data.split_at(data.len() / 2);
    for sequences in [first, second] {
        trainer.accumulate(&mut [Part { run, sequences }]).unwrap();
    }
    trainer.step(run).unwrap()
}
