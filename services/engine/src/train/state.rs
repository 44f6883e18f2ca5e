//! A run on disk: everything that the next step depends on, bit for bit, in the safetensors container.

use std::collections::BTreeMap;

use adapters::container::{NewTensor, write};
use adapters::{Base, Container, Limits, LoraConfig};
use bytes::Bytes;
use domain::Digest;
use serde::{Deserialize, Serialize};

use super::run::Pending;
use super::{OptimiserConfig, Recipe, Run, TrainError};

/// The key of the metadata; a change of meaning needs another one.
const KEY: &str = "banyan.train.v1";

/// What is no tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    base: Digest,
    /// `adapter_config.json`
    config: String,
    optimiser: OptimiserConfig,
    seed: u64,
    pending: Pending,
    steps_done: u64,
}

impl Run {
    /// The whole run, between any two calls.
    pub fn save(&self) -> Bytes {
        let note = Note {
            base: self.base_digest,
            config: String::from_utf8_lossy(&self.config).into_owned(),
            optimiser: self.recipe.optimiser.clone(),
            seed: self.recipe.seed,
            pending: self.pending,
            steps_done: self.steps_done,
        };
        let note = serde_json::to_string(&note).expect("plain fields");
        let [first, second] = &self.moments;
        let mut parts = vec![("values", &self.values), ("first_moment", first), ("second_moment", second)];
        if self.pending.rows > 0 {
            parts.push(("gradient", &self.gradient));
        }
        let tensor = |(name, values): (&str, &'_ Vec<f32>)| NewTensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            values: values.clone().into(),
        };
        write(parts.into_iter().map(tensor).collect(), &BTreeMap::from([(KEY.to_owned(), note)]))
    }

    /// The run that [`Run::save`] wrote: its next step gives the bits that it would have given then.
    ///
    /// # Errors
    /// What is no saved run, or one for another base.
    pub fn resume(base: &Base, saved: Bytes, limits: &Limits) -> Result<Run, TrainError> {
        let state = |message: &str| TrainError::State(message.to_owned());
        let container = Container::parse(saved, limits).map_err(|refusal| TrainError::State(refusal.message))?;
        let note = container.header().metadata().get(KEY).ok_or_else(|| state("it is no run of this version"))?;
        let note: Note = serde_json::from_str(note).map_err(|fault| TrainError::State(fault.to_string()))?;
        if note.base != base.digest() {
            return Err(TrainError::OtherBase { run: note.base, model: base.digest() });
        }
        let lora = LoraConfig::read(note.config.as_bytes(), limits);
        let lora = lora.config.ok_or(TrainError::Refused(lora.refusals))?;
        let recipe = Recipe { lora, optimiser: note.optimiser, seed: note.seed };
        let mut run = Run::without_values(base, recipe, limits)?;
        let [first, second] = &mut run.moments;
        let mut parts = vec![("values", &mut run.values), ("first_moment", first), ("second_moment", second)];
        if note.pending.rows > 0 {
            parts.push(("gradient", &mut run.gradient));
        }
        if container.names().count() != parts.len() {
            return Err(state("it has other tensors than a run"));
        }
        for (name, values) in parts {
            let saved =
                container.get(name).and_then(|tensor| tensor.to_f32()).filter(|saved| saved.len() == values.len());
            *values = saved.ok_or_else(|| TrainError::State(format!("{name} is missing or of another size")))?;
        }
        (run.pending, run.steps_done) = (note.pending, note.steps_done);
        Ok(run)
    }
}
