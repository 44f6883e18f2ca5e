//! One training job: steps over the lessons, validation, early stop, checkpoints from which it goes on bit for bit.
//!
//! A step's rows are a function of the seed and the step's number alone ([`order`]), so that a checkpoint needs no position.
//! Whatever is killed goes on from its last checkpoint to the same adapter.

mod checkpoint;
mod order;
mod preset;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use adapters::{Base, Files, Limits};
use engine::train::{Part, Recipe, Run, Sequence, TrainError, Trainer};
use serde::{Deserialize, Serialize};

use crate::lessons::Lessons;
use checkpoint::{Best, Checkpoint};
pub use checkpoint::{CheckpointError, remove as remove_checkpoint};
use order::Order;
pub use preset::{Preset, Size};

/// How a job runs, besides its recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOptions {
    /// Tokens of one step, at least; the last row that is begun belongs to it.
    pub step_tokens: usize,
    /// Of each epoch's rows, as far as there is a replay; from 0 to below 1.
    pub replay_share: f64,
    /// Steps between two looks at the validation set. 0: never.
    pub validate_every: u64,
    /// Looks without a better loss until it stops.
    pub patience: u32,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
}

/// A job: with the trainer's base, all that its result depends on, and where its checkpoint is.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub lessons: &'a Lessons,
    pub recipe: &'a Recipe,
    pub options: &'a JobOptions,
    pub folder: &'a Path,
}

/// What a job tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    Step { step: u64, steps: u64, loss: f64, learning_rate: f64, tokens: u64 },
    Validated { step: u64, loss: f64, is_best: bool },
}

/// A trained adapter.
pub struct Trained {
    pub files: Files,
    /// The step that it is of.
    pub step: u64,
    pub steps_done: u64,
    /// Mean loss on the validation set, in nats a token; none without one.
    pub validation_loss: Option<f64>,
    /// It stopped before its last step, because the validation loss had not become better for a while.
    pub stopped_early: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("stopped after step {0}; it goes on from its last checkpoint")]
    Cancelled(u64),
    #[error("a row has {tokens} tokens, one pass takes {most}")]
    RowTooLong { tokens: usize, most: usize },
}

/// Trains to the end, or goes on from the checkpoint in the folder; `cancel` stops it after the step that it is at. The
/// checkpoint stays until [`remove_checkpoint`], so that nothing is lost before the adapter is kept.
///
/// # Errors
/// What the trainer or the folder says; a checkpoint of another recipe, base or dataset.
pub fn train(
    trainer: &mut Trainer,
    plan: Plan<'_>,
    cancel: &AtomicBool,
    mut tell: impl FnMut(Progress),
) -> Result<Trained, JobError> {
    let Plan { lessons, recipe, options, folder } = plan;
    let most = trainer.config().tokens_max;
    let rows = lessons.train.iter().chain(&lessons.validation).chain(&lessons.replay);
    let longest = rows.map(|row| row.tokens.len()).max().unwrap_or(0);
    if longest > most {
        return Err(JobError::RowTooLong { tokens: longest, most });
    }
    let mut job = Job::begin(trainer.model().base(), plan)?;
    let order = Order::new(recipe.seed, lessons, options.replay_share, options.step_tokens);
    let done = usize::try_from(job.run.steps_done()).unwrap_or(usize::MAX);
    for rows in order.steps().skip(done) {
        if job.is_over() {
            break;
        }
        let step = job.run.steps_done() + 1;
        for pass in order.passes(&rows, most) {
            let rows: Vec<Sequence> = pass.iter().map(|row| lessons.row(*row).clone()).collect();
            trainer.accumulate(&mut [Part { run: &mut job.run, sequences: &rows }])?;
        }
        let report = trainer.step(&mut job.run)?;
        tell(Progress::Step {
            step,
            steps: recipe.optimiser.steps,
            loss: report.loss.mean,
            learning_rate: report.learning_rate,
            tokens: report.loss.tokens,
        });
        if let Some(validated) = job.validate(trainer, lessons, options)? {
            tell(validated);
        }
        let cancelled = cancel.load(Ordering::Relaxed);
        if cancelled || job.is_over() || step.is_multiple_of(options.checkpoint_every.max(1)) {
            job.keep(folder)?;
        }
        if cancelled && !job.is_over() {
            return Err(JobError::Cancelled(step));
        }
    }
    Ok(job.into_trained())
}

/// A job under way.
struct Job {
    /// Names recipe, options and lessons.
    plan: String,
    run: Run,
    best: Option<Best>,
    /// Looks since the best one.
    worse: u32,
    patience: u32,
}

impl Job {
    fn begin(base: &Base, plan: Plan<'_>) -> Result<Self, JobError> {
        let Plan { lessons, recipe, options, folder } = plan;
        let plan = checkpoint::plan(recipe, options, lessons);
        let patience = options.patience;
        Ok(match Checkpoint::read(folder, &plan)? {
            Some(Checkpoint { run, best, worse }) => {
                let run = Run::resume(base, run, &Limits::default())?;
                Self { plan, run, best, worse, patience }
            }
            None => {
                let run = Run::new(base, recipe.clone(), &Limits::default())?;
                Self { plan, run, best: None, worse: 0, patience }
            }
        })
    }

    fn is_over(&self) -> bool {
        self.run.is_finished() || (self.best.is_some() && self.worse >= self.patience.max(1))
    }

    /// Looks at the validation set, if it is time.
    fn validate(
        &mut self,
        trainer: &mut Trainer,
        lessons: &Lessons,
        options: &JobOptions,
    ) -> Result<Option<Progress>, JobError> {
        let step = self.run.steps_done();
        let is_time =
            options.validate_every > 0 && (step.is_multiple_of(options.validate_every) || self.run.is_finished());
        if !is_time || lessons.validation.is_empty() {
            return Ok(None);
        }
        let loss = self.validation_loss(trainer, lessons)?;
        let is_best = self.best.as_ref().is_none_or(|best| loss < best.loss);
        if is_best {
            self.best = Some(Best { step, loss, weights: self.run.export().weights.to_vec().into() });
            self.worse = 0;
        } else {
            self.worse += 1;
        }
        Ok(Some(Progress::Validated { step, loss, is_best }))
    }

    /// Over all trained tokens of the set.
    fn validation_loss(&mut self, trainer: &mut Trainer, lessons: &Lessons) -> Result<f64, JobError> {
        let (mut sum, mut weight) = (0.0, 0.0);
        for pass in order::in_passes(&lessons.validation, trainer.config().tokens_max) {
            let part = Part { run: &mut self.run, sequences: &lessons.validation[pass] };
            for loss in trainer.evaluate(&mut [part])? {
                sum += loss.mean * loss.weight;
                weight += loss.weight;
            }
        }
        Ok(sum / weight)
    }

    fn keep(&self, folder: &Path) -> Result<(), CheckpointError> {
        checkpoint::write(folder, &self.plan, &self.run.save(), self.best.as_ref(), self.worse)
    }

    /// The best one, or the last one where nothing was looked at.
    fn into_trained(self) -> Trained {
        let (last, steps_done) = (self.run.export(), self.run.steps_done());
        let stopped_early = !self.run.is_finished();
        match self.best {
            Some(Best { step, loss, weights }) => Trained {
                files: Files { weights, ..last },
                step,
                steps_done,
                validation_loss: Some(loss),
                stopped_early,
            },
            None => Trained { files: last, step: steps_done, steps_done, validation_loss: None, stopped_early },
        }
    }
}
