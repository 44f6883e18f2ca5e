//! A run that was stopped anywhere and read again goes on to the same bits.

use adapters::config::TargetModules;
use adapters::{Files, Limits, LoraConfig};
use engine::train::{Part, Run, TrainError};

use crate::support::{model, recipe, sequence, trainer};

fn lora() -> LoraConfig {
    LoraConfig {
        target_modules: TargetModules::AllLinear,
        rank_pattern: vec![("o_proj".into(), 3)],
        ..LoraConfig::default()
    }
}

fn digest(base: &adapters::Base, files: &Files) -> domain::Digest {
    files.judge(base, &Limits::default()).unwrap().digest
}

#[test]
fn stopped_after_every_pass_and_every_step_a_run_ends_with_the_same_digest() {
    let model = model("llama");
    let mut trainer = trainer(&model, 2, u64::MAX);
    let passes = |step: u64| [[sequence(20 + step as usize, step)], [sequence(9, 50 + step)]];
    let reload = |run: Run| Run::resume(model.base(), run.save(), &Limits::default()).unwrap();
    let mut go_on = |mut run: Run, stop: &dyn Fn(u64, usize) -> bool| {
        while !run.is_finished() {
            let step = run.steps_done();
            for (pass, sequences) in passes(step).iter().enumerate() {
                trainer.accumulate(&mut [Part { run: &mut run, sequences }]).unwrap();
                if stop(step, pass) {
                    run = reload(run);
                }
            }
            trainer.step(&mut run).unwrap();
            if stop(step, 2) {
                run = reload(run);
            }
        }
        (run.save(), digest(model.base(), &run.export()))
    };
    let new = || Run::new(model.base(), recipe(lora(), 9), &Limits::default()).unwrap();
    let want = go_on(new(), &|_, _| false);
    assert!(go_on(new(), &|_, _| true) == want, "stopped everywhere");
    for step in 0..8 {
        for pass in 0..3 {
            assert!(go_on(new(), &|s, p| (s, p) == (step, pass)) == want, "stopped in step {step}, after pass {pass}");
        }
    }
    let other = Run::new(model.base(), recipe(lora(), 10), &Limits::default()).unwrap();
    assert!(go_on(other, &|_, _| false).1 != want.1, "the seed has no say");
}

#[test]
fn a_saved_run_is_for_its_base_and_whole() {
    let (llama, qwen) = (model("llama"), model("qwen3"));
    let saved = Run::new(llama.base(), recipe(lora(), 9), &Limits::default()).unwrap().save();
    let resume = |base, bytes| Run::resume(base, bytes, &Limits::default()).map(|run| run.steps_done());
    assert!(matches!(resume(qwen.base(), saved.clone()), Err(TrainError::OtherBase { .. })));
    assert!(matches!(resume(llama.base(), saved.slice(..saved.len() - 1)), Err(TrainError::State(_))));
    let files = Run::new(llama.base(), recipe(lora(), 9), &Limits::default()).unwrap().export();
    assert!(matches!(resume(llama.base(), files.weights), Err(TrainError::State(_))));
    assert_eq!(resume(llama.base(), saved).unwrap(), 0);
}
