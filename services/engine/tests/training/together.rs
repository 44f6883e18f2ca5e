//! Runs that share passes against each alone: no bit may differ, whatever the threads and the memory.

use adapters::config::TargetModules;
use adapters::{Limits, LoraConfig};
use engine::train::{Part, Run, Sequence};

use crate::support::{model, recipe, sequence, step, trainer};

const STEPS: usize = 6;

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Configs that differ in everything, the ends of the model included.
fn configs() -> [LoraConfig; 4] {
    let default = LoraConfig::default();
    [
        LoraConfig { rank: 4, alpha: 8.0, target_modules: TargetModules::AllLinear, ..default.clone() },
        LoraConfig {
            rank: 3,
            rslora: true,
            target_modules: names(&["embed_tokens", "up_proj", "lm_head"]),
            ..default.clone()
        },
        LoraConfig {
            rank: 17,
            target_modules: TargetModules::AllLinear,
            rank_pattern: vec![("q_proj".into(), 1), ("down_proj".into(), 33)],
            alpha_pattern: vec![("v_proj".into(), 3.0)],
            ..default.clone()
        },
        LoraConfig { rank: 8, target_modules: names(&["model.layers.1.self_attn.v_proj"]), ..default },
    ]
}

/// Sequences of one step, other ones at each, of different lengths for each run.
fn data(run: usize, step: usize) -> Vec<Sequence> {
    (0..2 + run % 3)
        .map(|i| sequence(3 + (7 * run + 5 * step + 11 * i) % 40, (100 * run + 10 * step + i) as u64))
        .collect()
}

fn runs(base: &adapters::Base) -> Vec<Run> {
    let new = |(i, lora)| Run::new(base, recipe(lora, 40 + i as u64), &Limits::default()).unwrap();
    configs().into_iter().enumerate().map(new).collect()
}

#[test]
fn four_runs_together_have_the_bits_that_each_has_alone_over_several_steps() {
    for base in ["qwen3", "llama", "mistral"] {
        let model = model(base);
        // Alone: one thread, everything kept. Together: three threads, and layers are computed again.
        let (mut alone, mut together) = (trainer(&model, 1, u64::MAX), trainer(&model, 3, 0));
        let (mut solo, mut shared) = (runs(model.base()), runs(model.base()));
        for s in 0..STEPS {
            let data: Vec<Vec<Sequence>> = (0..solo.len()).map(|run| data(run, s)).collect();
            let mut expected = Vec::new();
            for (run, data) in solo.iter_mut().zip(&data) {
                expected.push(step(&mut alone, run, data));
            }
            for half in 0..2 {
                let of_run =
                    |data: &'_ Vec<Sequence>| if half == 0 { 0..data.len() / 2 } else { data.len() / 2..data.len() };
                let mut parts: Vec<Part<'_>> = shared
                    .iter_mut()
                    .zip(&data)
                    .map(|(run, data)| Part { run, sequences: &data[of_run(data)] })
                    .collect();
                together.accumulate(&mut parts).unwrap();
            }
            for ((run, solo), expected) in shared.iter_mut().zip(&solo).zip(&expected) {
                assert_eq!(together.step(run).unwrap(), *expected);
                assert!(run.save() == solo.save(), "{base}, step {s}");
            }
        }
        let moved =
            shared.iter().zip(runs(model.base())).all(|(run, new)| run.export().weights != new.export().weights);
        assert!(moved, "nothing was learnt");
    }
}

#[test]
fn more_memory_for_activations_changes_no_bit() {
    let model = model("qwen3-yarn");
    let lora = || LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
    let sequences = [sequence(40, 1), sequence(21, 2)];
    let mut saved = Vec::new();
    // Of three layers: none kept, one, all.
    for bytes in [0, 200_000, u64::MAX] {
        let mut trainer = trainer(&model, 2, bytes);
        let mut run = Run::new(model.base(), recipe(lora(), 1), &Limits::default()).unwrap();
        for _ in 0..3 {
            step(&mut trainer, &mut run, &sequences);
        }
        saved.push(run.save());
    }
    assert!(saved[0] == saved[1] && saved[1] == saved[2]);
}

#[test]
fn what_is_learnt_lowers_the_loss_on_plain_text() {
    let model = model("qwen2");
    let mut trainer = trainer(&model, 2, u64::MAX);
    let lora = LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
    let mut run = Run::new(model.base(), recipe(lora, 1), &Limits::default()).unwrap();
    let text = [Sequence::text(sequence(30, 3).tokens), Sequence::text(sequence(25, 4).tokens)];
    let mut loss = |run: &mut Run| trainer.evaluate(&mut [Part { run, sequences: &text }]).unwrap()[0];
    let before = loss(&mut run);
    assert_eq!((before.trained_tokens, before.tokens, before.weight), (53, 55, 53.0));
    let mut other = crate::support::trainer(&model, 2, u64::MAX);
    for _ in 0..8 {
        step(&mut other, &mut run, &text);
    }
    let after = loss(&mut run);
    assert!(after.mean < 0.8 * before.mean, "{} and {}", before.mean, after.mean);
}
