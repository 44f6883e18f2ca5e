//! The trainer: a frozen model, and passes over it for one or many runs.

use std::sync::Arc;

use kernels::{Cpu, CpuConfig, Forms, Storage};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::batch::{Batch, PartRows, Sequence};
use super::factors::Packed;
use super::head::PartLoss;
use super::memory::Memory;
use super::pass::{Pass, Tenant};
use super::run::{Loss, Run, StepReport};
use super::transposed::Transposed;
use crate::model::Model;

/// Threads and limits of a trainer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// Its own: those of the engine are not waited for.
    pub cpu: CpuConfig,
    /// Tokens of one pass over all parts.
    pub tokens_max: usize,
    /// Memory for activations of a pass. Layers whose activations it does not hold are computed a second time on the way
    /// back; with 0 it is every layer, and a layer's input is all that is kept. No bit depends on it.
    pub activation_bytes_max: u64,
    /// Memory for logits of a pass; those of one row at least.
    pub logits_bytes_max: u64,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            cpu: CpuConfig::default(),
            tokens_max: 16_384,
            activation_bytes_max: 1 << 30,
            logits_bytes_max: 64 << 20,
        }
    }
}

/// The part of a pass that belongs to one run.
pub struct Part<'a> {
    pub run: &'a mut Run,
    pub sequences: &'a [Sequence],
}

/// A frozen model to train on. One thread drives it.
pub struct Trainer {
    model: Arc<Model>,
    transposed: Transposed,
    config: TrainerConfig,
    cpu: Cpu,
    memory: Memory,
}

impl Trainer {
    /// Starts the threads, and transposes the weights: as much memory as an f32 base takes, besides it.
    ///
    /// # Errors
    /// No threads, or a base in int8, whose activations are rounded too coarsely to learn through.
    pub fn new(model: Arc<Model>, config: TrainerConfig) -> Result<Trainer, TrainError> {
        if model.dtype().storage() == Storage::Int8 {
            let (name, value) = ("dtype", "int8".to_owned());
            return Err(TrainError::Setting { name, value, expected: "a base to train on is in f32 or bf16" });
        }
        let cpu = Cpu::new(&config.cpu).map_err(TrainError::Cpu)?;
        let transposed = Transposed::new(&cpu, &model);
        Ok(Trainer { model, transposed, config, cpu, memory: Memory::default() })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// Memory of the weights that it holds besides the model.
    pub fn bytes(&self) -> usize {
        self.transposed.bytes()
    }

    /// One pass: adds the gradient of each part's loss to its run, and gives the losses. A run gets the bits that it would
    /// get in a pass of its own. Several passes before a step accumulate: the step takes the mean over all their tokens.
    ///
    /// # Errors
    /// Before anything is computed: a part without anything to learn, a faulty sequence, too many tokens, another base.
    pub fn accumulate(&mut self, parts: &mut [Part<'_>]) -> Result<Vec<Loss>, TrainError> {
        let batch = self.batch(parts.iter().map(|part| (&*part.run, part.sequences)))?;
        for part in parts.iter_mut() {
            part.run.pack(&self.cpu);
        }
        let (mut tenants, mut gradients) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for (part, rows) in parts.iter_mut().zip(&batch.parts) {
            let Run { sites, values, packed, gradient, .. } = &mut *part.run;
            tenants.push(Tenant::new(sites, values, packed.as_ref().expect("it was packed above"), rows));
            gradients.push(&mut gradient[..]);
        }
        let pass = pass(&self.model, &self.transposed, &self.cpu, &self.config, &batch, tenants);
        let losses = pass.learn(&mut self.memory, &mut gradients, self.config.activation_bytes_max);
        for ((part, loss), rows) in parts.iter_mut().zip(&losses).zip(&batch.parts) {
            part.run.add_pending(loss, rows);
        }
        Ok(losses.iter().zip(&batch.parts).map(Loss::new).collect())
    }

    /// The loss of each run on its sequences, and nothing else: a validation set.
    ///
    /// # Errors
    /// As [`Trainer::accumulate`].
    pub fn evaluate(&mut self, parts: &mut [Part<'_>]) -> Result<Vec<Loss>, TrainError> {
        let batch = self.batch(parts.iter().map(|part| (&*part.run, part.sequences)))?;
        for part in parts.iter_mut() {
            part.run.pack(&self.cpu);
        }
        let tenants = parts.iter().zip(&batch.parts).map(|(part, rows)| {
            let Run { sites, values, packed, .. } = &*part.run;
            Tenant::new(sites, values, packed.as_ref().expect("it was packed above"), rows)
        });
        let pass = pass(&self.model, &self.transposed, &self.cpu, &self.config, &batch, tenants.collect());
        let losses = pass.evaluate(&mut self.memory);
        Ok(losses.iter().zip(&batch.parts).map(Loss::new).collect())
    }

    /// Makes the step of `run` for which gradients were accumulated.
    ///
    /// # Errors
    /// Nothing accumulated, all steps done, or a loss or gradient that is no number: then the run stays as it was before
    /// these gradients.
    pub fn step(&mut self, run: &mut Run) -> Result<StepReport, TrainError> {
        run.step(&self.cpu)
    }

    fn batch<'a>(&self, parts: impl Iterator<Item = (&'a Run, &'a [Sequence])>) -> Result<Batch, TrainError> {
        let model = self.model.base().digest();
        let mut sequences = Vec::new();
        for (run, of_run) in parts {
            if run.base_digest != model {
                return Err(TrainError::OtherBase { run: run.base_digest, model });
            }
            sequences.push(of_run);
        }
        Batch::new(self.model.config(), &self.cpu, &sequences, self.config.tokens_max)
    }
}

fn pass<'a>(
    model: &'a Model,
    transposed: &'a Transposed,
    cpu: &'a Cpu,
    config: &TrainerConfig,
    batch: &'a Batch,
    tenants: Vec<Tenant<'a>>,
) -> Pass<'a> {
    let forms = Forms::from(model.dtype().storage());
    let logits_bytes_max = usize::try_from(config.logits_bytes_max).unwrap_or(usize::MAX);
    Pass { model, transposed, cpu, batch, tenants, forms, logits_bytes_max }
}

impl Run {
    /// Brings the factors into the form that passes read, if a step has changed them.
    fn pack(&mut self, cpu: &Cpu) {
        if self.packed.is_none() {
            self.packed = Some(Packed::new(cpu, &self.sites, &self.values));
        }
    }
}

impl Loss {
    fn new((loss, part): (&PartLoss, &PartRows)) -> Loss {
        Loss {
            mean: loss.sum / loss.weight,
            weight: loss.weight,
            trained_tokens: loss.tokens as u64,
            tokens: part.rows.len() as u64,
        }
    }
}
