//! Whole jobs on a tiny base: wherever one is killed, it goes on to the same adapter.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use adapters::{Limits, LoraConfig, config::TargetModules};
use domain::Digest;
use engine::{
    model::{CpuConfig, Dtype, Model, ModelOptions},
    train::{OptimiserConfig, Recipe, Sequence, Trainer, TrainerConfig},
};
use trainer::{JobError, JobOptions, Lessons, Plan, Progress, Trained, train};

const STEPS: u64 = 9;

struct Bench {
    model: Arc<Model>,
    trainer: Trainer,
    lessons: Lessons,
    recipe: Recipe,
    options: JobOptions,
}

impl Bench {
    fn new() -> Self {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bases/llama");
        let model = Arc::new(Model::load(&base, &ModelOptions::new(Dtype::F32)).expect("a base"));
        let cpu = CpuConfig { threads: 1, ..CpuConfig::default() };
        let config = TrainerConfig { cpu, ..TrainerConfig::default() };
        let trainer = Trainer::new(Arc::clone(&model), config).expect("threads");
        let rows = |count: u32, seed: u32| {
            let row = |n: u32| Sequence::text((0..8 + n % 5).map(|at| (seed + 31 * n + 7 * at) % 140).collect());
            (0..count).map(row).collect()
        };
        let lessons = Lessons { train: rows(12, 1), validation: rows(3, 99), replay: rows(6, 50) };
        let lora = LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
        let optimiser = OptimiserConfig { learning_rate: 0.02, steps: STEPS, ..OptimiserConfig::default() };
        let options =
            JobOptions { step_tokens: 40, replay_share: 0.2, validate_every: 2, patience: 9, checkpoint_every: 2 };
        Self { model, trainer, lessons, recipe: Recipe { lora, optimiser, seed: 3 }, options }
    }

    fn run(&mut self, folder: &Path, cancel: &AtomicBool, tell: impl FnMut(Progress)) -> Result<Trained, JobError> {
        let plan = Plan { lessons: &self.lessons, recipe: &self.recipe, options: &self.options, folder };
        train(&mut self.trainer, plan, cancel, tell)
    }

    fn whole(&mut self) -> (Digest, u64) {
        let folder = tempfile::tempdir().expect("a folder");
        let trained = self.run(folder.path(), &AtomicBool::new(false), |_| {}).expect("trained");
        self.result(&trained)
    }

    fn result(&self, trained: &Trained) -> (Digest, u64) {
        let plan = trained.files.judge(self.model.base(), &Limits::default()).expect("is accepted");
        (plan.digest, trained.step)
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

#[test]
fn killed_in_whatever_step_a_job_goes_on_to_the_same_adapter() {
    let mut bench = Bench::new();
    let whole = bench.whole();
    for killed_in in 1..=STEPS {
        let folder = tempfile::tempdir().expect("a folder");
        let never = AtomicBool::new(false);
        // After the step was made, and before it is kept: what a kill loses.
        let dies = |told| {
            if matches!(told, Progress::Step { step, .. } if step == killed_in) {
                std::panic::panic_any("killed");
            }
        };
        let killed = catch_unwind(AssertUnwindSafe(|| bench.run(folder.path(), &never, dies).map(|_| ())));
        assert!(killed.is_err(), "it ended before step {killed_in}");
        let mut first = None;
        let gone_on = bench.run(folder.path(), &never, |told| {
            if let Progress::Step { step, .. } = told {
                first.get_or_insert(step);
            }
        });
        assert_eq!(bench.result(&gone_on.expect("trained")), whole, "killed in step {killed_in}");
        assert_eq!(first, Some((killed_in - 1) / 2 * 2 + 1), "it goes on from its last checkpoint");
    }
}

#[test]
fn a_cancelled_job_keeps_its_step_and_goes_on() {
    let mut bench = Bench::new();
    let whole = bench.whole();
    let folder = tempfile::tempdir().expect("a folder");
    let cancelled = bench.run(folder.path(), &AtomicBool::new(true), |_| {});
    assert!(matches!(cancelled, Err(JobError::Cancelled(1))));
    let mut steps = 0;
    let trained = bench.run(folder.path(), &AtomicBool::new(false), |told| {
        steps += u64::from(matches!(told, Progress::Step { .. }));
    });
    assert_eq!((bench.result(&trained.expect("trained")), steps), (whole, STEPS - 1));
}

#[test]
fn a_checkpoint_of_another_job_or_a_damaged_one_is_refused_and_never_ignored() {
    let mut bench = Bench::new();
    let folder = tempfile::tempdir().expect("a folder");
    let never = AtomicBool::new(false);
    let _ = bench.run(folder.path(), &AtomicBool::new(true), |_| {});
    bench.lessons.train.pop();
    let other = bench.run(folder.path(), &never, |_| {}).map(|_| ());
    assert!(other.as_ref().is_err_and(|error| error.to_string().contains("another dataset")), "{other:?}");
    let whole = std::fs::read(file(folder.path())).expect("a checkpoint");
    for damaged in [&whole[..whole.len() - 1], b"nothing"] {
        std::fs::write(file(folder.path()), damaged).expect("writes");
        let refused = bench.run(folder.path(), &never, |_| {}).map(|_| ());
        assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("damaged")), "{refused:?}");
    }
}

#[test]
fn it_stops_when_the_validation_loss_becomes_no_better_and_gives_the_best_adapter() {
    let mut bench = Bench::new();
    // Steps as large as these make everything worse.
    bench.recipe.optimiser = OptimiserConfig { learning_rate: 2.0, steps: 200, ..OptimiserConfig::default() };
    bench.options = JobOptions { validate_every: 1, patience: 3, ..bench.options };
    let folder = tempfile::tempdir().expect("a folder");
    let mut losses = Vec::new();
    let trained = bench.run(folder.path(), &AtomicBool::new(false), |told| {
        if let Progress::Validated { loss, .. } = told {
            losses.push(loss);
        }
    });
    let trained = trained.expect("trained");
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(trained.stopped_early && trained.steps_done < 200, "{losses:?}");
    assert_eq!(trained.validation_loss, Some(best));
    assert_eq!(trained.step + 3, trained.steps_done, "three looks in vain: {losses:?}");
}
