//! `banyan train`: an adapter from a dataset version, on the engine that serves, from checkpoint to checkpoint.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use adapters::{
    Limits,
    files::{CONFIG, WEIGHTS},
};
use datasets::Version;
use engine::{
    model::{Model, ModelOptions},
    train::{Trainer, TrainerConfig},
};
use indicatif::ProgressBar;
use serde_json::json;
use trainer::{JobError, Lessons, Plan, Preset, Progress, Size, Trained, remove_checkpoint, train as run_job};

use crate::{
    cli::{DtypeArg, TrainArgs},
    dataset::BaseText,
    failure::{Failure, Outcome},
    output, score,
    up::shipped,
};

/// What leaves the replay out.
const NONE: &str = "none";

/// # Errors
/// What cannot be read, trained or written; a job that was stopped.
pub fn train(args: &TrainArgs, as_json: bool) -> Outcome {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::Failed(format!("{what}: {error}"));
    let base = args.base.clone().unwrap_or_else(shipped::base);
    let text = BaseText::load(&base).map_err(|error| failed("--base", &error))?;
    let version = Version::open(&args.dataset).map_err(|error| failed(&args.dataset.display().to_string(), &error))?;
    let context = usize::try_from(text.context_length()).unwrap_or(usize::MAX);
    let lessons = Lessons::read(&version, &text, context).map_err(|error| failed("DATASET", &error))?;
    let lessons = match replay(args)? {
        Some(lines) => lessons.with_replay(&lines, &text, context).map_err(|error| failed("--replay", &error))?,
        None => lessons,
    };
    let options = ModelOptions::new(score::dtype(DtypeArg::F32));
    let model = Model::load(&base, &options).map_err(|error| failed("--base", &error))?;
    let tokens = lessons.train.iter().map(|row| row.tokens.len()).sum();
    let size = Size { rows: lessons.train.len(), tokens };
    let (recipe, job) = preset(args).choose(model.config(), &base_name(args, &base), size);
    let (model, cancel) = (Arc::new(model), cancelled_by_ctrl_c()?);
    let mut trainer = Trainer::new(Arc::clone(&model), TrainerConfig::default())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let bar = output::progress(recipe.optimiser.steps, "step {pos}/{len} {bar:30} {msg}, {eta} left");
    let plan = Plan { lessons: &lessons, recipe: &recipe, options: &job, folder: &args.out };
    let trained = run_job(&mut trainer, plan, &cancel, |told| show(&bar, told));
    bar.finish_and_clear();
    let trained = trained.map_err(|error| match error {
        JobError::Cancelled(_) => Failure::Failed(format!("{error}: give the same command again")),
        error => Failure::Failed(error.to_string()),
    })?;
    // As whoever serves it will judge it.
    trained.files.judge(model.base(), &Limits::default()).map_err(|refusals| {
        let reasons: Vec<_> = refusals.iter().map(|refusal| format!("\n  {refusal}")).collect();
        Failure::Failed(format!("the trained adapter would be refused:{}", reasons.concat()))
    })?;
    write(&args.out, &trained)?;
    remove_checkpoint(&args.out).map_err(|error| Failure::Failed(error.to_string()))?;
    report(args, &version, &trained, as_json)
}

fn preset(args: &TrainArgs) -> Preset {
    Preset {
        rank: args.rank,
        alpha: args.alpha,
        rslora: args.rslora,
        targets: args.targets.clone().map(|names| names.into_iter().collect()),
        learning_rate: args.learning_rate,
        epochs: args.epochs,
        step_tokens: args.step_tokens,
        seed: args.seed,
    }
}

fn base_name(args: &TrainArgs, base: &Path) -> String {
    let folder = base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let default = if args.base.is_none() { shipped::BASE_NAME.to_owned() } else { folder };
    args.base_name.clone().unwrap_or(default)
}

/// What was asked for, or what the bundled base brings.
fn replay(args: &TrainArgs) -> Result<Option<String>, Failure> {
    let file = match (&args.replay, &args.base) {
        (Some(file), _) if file == Path::new(NONE) => return Ok(None),
        (Some(file), _) => file.clone(),
        (None, Some(_)) => return Ok(None),
        (None, None) => shipped::replay(),
    };
    let read = fs::read_to_string(&file);
    read.map(Some).map_err(|error| Failure::Failed(format!("--replay {}: {error}", file.display())))
}

/// The first one stops after the step that is computed now.
fn cancelled_by_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cancel);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            told.store(true, Ordering::Relaxed);
        }
    });
    Ok(cancel)
}

fn show(bar: &ProgressBar, told: Progress) {
    match told {
        Progress::Step { step, loss, tokens, .. } => {
            bar.set_position(step);
            bar.set_message(format!("loss {loss:.4}, {tokens} tokens a step"));
        }
        Progress::Validated { step, loss, is_best } => {
            let best = if is_best { ", the best so far" } else { "" };
            bar.println(format!("step {step}: validation loss {loss:.4}{best}"));
        }
    }
}

fn write(folder: &Path, trained: &Trained) -> Outcome {
    let fault = |error: std::io::Error| Failure::Failed(format!("--out {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(fault)?;
    for (name, content) in [(WEIGHTS, &trained.files.weights), (CONFIG, &trained.files.config)] {
        fs::write(folder.join(name), content).map_err(fault)?;
    }
    Ok(())
}

fn report(args: &TrainArgs, version: &Version, trained: &Trained, as_json: bool) -> Outcome {
    let Trained { step, steps_done, validation_loss, stopped_early, .. } = trained;
    if as_json {
        return Ok(output::print_json(&json!({
            "adapter": args.out, "dataset": version.digest(), "seed": args.seed, "step": step, "steps_done": steps_done,
            "validation_loss": validation_loss, "stopped_early": stopped_early,
        }))?);
    }
    let loss = validation_loss.map(|loss| format!(", validation loss {loss:.4}")).unwrap_or_default();
    let early = if *stopped_early { " (stopped early: it became no better)" } else { "" };
    output::line(&format!("{}: step {step} of {steps_done}{loss}{early}", args.out.display()))?;
    Ok(())
}
