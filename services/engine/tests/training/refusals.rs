//! What cannot be trained is said before anything is computed, and what went wrong names its step.

use std::sync::Arc;

use adapters::config::{Bias, TargetModules};
use adapters::{Code, Limits, LoraConfig};
use engine::model::{Dtype, Model, ModelOptions};
use engine::train::{Part, Run, Sequence, TrainError, Trainer, TrainerConfig};

use crate::support::{golden, model, recipe, sequence, trainer};

fn run(model: &Model) -> Run {
    Run::new(model.base(), recipe(LoraConfig::default(), 1), &Limits::default()).unwrap()
}

#[test]
fn a_part_without_trained_tokens_is_an_error_and_no_loss_of_zero() {
    let model = model("qwen3");
    let mut trainer = trainer(&model, 1, u64::MAX);
    let (mut sound, mut empty) = (run(&model), run(&model));
    let masked = Sequence { tokens: vec![5, 6, 7], weights: vec![1.0, 0.0, 0.0] };
    for sequences in [vec![masked.clone()], vec![Sequence::text(vec![3])], vec![]] {
        let mut parts =
            [Part { run: &mut sound, sequences: &[sequence(9, 1)] }, Part { run: &mut empty, sequences: &sequences }];
        assert!(matches!(trainer.accumulate(&mut parts), Err(TrainError::NothingTrained { part: 1 })));
        assert!(matches!(trainer.evaluate(&mut parts), Err(TrainError::NothingTrained { part: 1 })));
    }
    // Nothing was computed for the other one either.
    assert!(matches!(trainer.step(&mut sound), Err(TrainError::NothingAccumulated { step: 0 })));
    // Beside a sequence with something to learn, one without is fine.
    let both = [masked, sequence(9, 1)];
    assert!(trainer.accumulate(&mut [Part { run: &mut sound, sequences: &both }]).is_ok());
}

#[test]
fn faulty_sequences_are_named() {
    let model = model("qwen3");
    let mut trainer = trainer(&model, 1, u64::MAX);
    let faulty = [
        (Sequence::text(vec![]), "no tokens"),
        (Sequence::text(vec![1, 144]), "token 144"),
        (Sequence::text(vec![1; 65]), "65 tokens"),
        (Sequence { tokens: vec![1, 2], weights: vec![1.0] }, "1 weights"),
        (Sequence { tokens: vec![1, 2], weights: vec![1.0, -1.0] }, "a weight is -1"),
        (Sequence { tokens: vec![1, 2], weights: vec![1.0, f32::NAN] }, "a weight is NaN"),
    ];
    for (sequence_, want) in faulty {
        let sequences = [sequence(9, 1), sequence_];
        match trainer.accumulate(&mut [Part { run: &mut run(&model), sequences: &sequences }]) {
            Err(TrainError::Sequence { part: 0, sequence: 1, message }) => assert!(message.contains(want), "{message}"),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn the_tokens_of_a_pass_are_bounded() {
    let model = model("qwen3");
    let config = TrainerConfig { tokens_max: 29, ..TrainerConfig::default() };
    let mut trainer = Trainer::new(Arc::clone(&model), config).unwrap();
    let mut run = run(&model);
    let thirty = [sequence(10, 1), sequence(20, 2)];
    let refused = trainer.accumulate(&mut [Part { run: &mut run, sequences: &thirty }]);
    assert!(matches!(refused, Err(TrainError::TooManyTokens { found: 30, limit: 29 })));
    assert!(trainer.accumulate(&mut [Part { run: &mut run, sequences: &thirty[..1] }]).is_ok());
}

#[test]
fn a_step_that_is_no_number_is_named_and_leaves_the_run_as_it_was() {
    let model = model("qwen3");
    let mut trainer = trainer(&model, 1, u64::MAX);
    let mut run = run(&model);
    let sound = [sequence(20, 1)];
    trainer.accumulate(&mut [Part { run: &mut run, sequences: &sound }]).unwrap();
    trainer.step(&mut run).unwrap();
    let before = run.save();
    let tokens = sequence(20, 1).tokens;
    let monstrous = [Sequence { weights: vec![f32::MAX; tokens.len()], tokens }];
    trainer.accumulate(&mut [Part { run: &mut run, sequences: &monstrous }]).unwrap();
    match trainer.step(&mut run) {
        Err(TrainError::NotFinite { step: 2, what, value }) => {
            assert!(what.contains("gradient") && !value.is_finite(), "{what} {value}");
        }
        other => panic!("{other:?}"),
    }
    assert!(run.save() == before);
    trainer.accumulate(&mut [Part { run: &mut run, sequences: &sound }]).unwrap();
    assert_eq!(trainer.step(&mut run).unwrap().step, 2);
}

#[test]
fn a_finished_run_makes_no_further_step() {
    let model = model("qwen3");
    let mut trainer = trainer(&model, 1, u64::MAX);
    let mut run = run(&model);
    for _ in 0..8 {
        trainer.accumulate(&mut [Part { run: &mut run, sequences: &[sequence(9, 1)] }]).unwrap();
        trainer.step(&mut run).unwrap();
    }
    trainer.accumulate(&mut [Part { run: &mut run, sequences: &[sequence(9, 1)] }]).unwrap();
    assert!(run.is_finished());
    assert!(matches!(trainer.step(&mut run), Err(TrainError::Finished { steps: 8 })));
}

#[test]
fn what_is_not_trained_is_refused_by_name() {
    let model = model("qwen2");
    let new = |lora| Run::new(model.base(), recipe(lora, 1), &Limits::default()).map(|run| run.parameters());
    let default = LoraConfig::default();
    assert!(new(default.clone()).unwrap() > 0);
    let unsupported = [
        LoraConfig { dora: true, ..default.clone() },
        LoraConfig { lora_bias: true, ..default.clone() },
        LoraConfig { bias: Bias::All, ..default.clone() },
        LoraConfig { modules_to_save: ["lm_head".to_owned()].into(), ..default.clone() },
    ];
    for lora in unsupported {
        assert!(matches!(new(lora), Err(TrainError::Unsupported(_))));
    }
    let nowhere = TargetModules::Names(["nowhere".to_owned()].into());
    for (lora, code) in [
        (LoraConfig { target_modules: nowhere, ..default.clone() }, Code::NoTarget),
        (LoraConfig { rank: 100_000, ..default.clone() }, Code::Quota),
    ] {
        match new(lora) {
            Err(TrainError::Refused(refusals)) => assert_eq!(refusals[0].code, code),
            other => panic!("{other:?}"),
        }
    }
    let mut recipe = recipe(default, 1);
    recipe.optimiser.learning_rate = -1.0;
    let refused = Run::new(model.base(), recipe, &Limits::default()).map(|run| run.parameters());
    assert!(matches!(refused, Err(TrainError::Setting { name: "learning_rate", .. })));
}

#[test]
fn a_run_and_a_trainer_have_one_base_and_it_is_not_in_int8() {
    let (qwen, llama) = (model("qwen3"), model("llama"));
    let refused = trainer(&llama, 1, 0).accumulate(&mut [Part { run: &mut run(&qwen), sequences: &[sequence(9, 1)] }]);
    assert!(matches!(refused, Err(TrainError::OtherBase { .. })));
    let dir = golden().join("bases/qwen3");
    let int8 = Arc::new(Model::load(&dir, &ModelOptions::new(Dtype::Int8)).unwrap());
    assert!(matches!(Trainer::new(int8, TrainerConfig::default()), Err(TrainError::Setting { name: "dtype", .. })));
}

#[test]
fn a_base_in_bf16_is_trained_with_factors_in_f32() {
    let dir = golden().join("bases/qwen3");
    let model = Arc::new(Model::load(&dir, &ModelOptions::new(Dtype::Bf16)).unwrap());
    let mut trainer = trainer(&model, 2, u64::MAX);
    let lora = LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
    let mut run = Run::new(model.base(), recipe(lora, 1), &Limits::default()).unwrap();
    let data = [sequence(30, 1), sequence(20, 2)];
    let losses: Vec<f64> = (0..8).map(|_| crate::support::step(&mut trainer, &mut run, &data).loss.mean).collect();
    assert!(losses[7] < 0.9 * losses[0], "{losses:?}");
}
