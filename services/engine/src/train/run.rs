//! One adapter in training: its factors, its gradient and its optimiser.

use adapters::config::Bias;
use adapters::{Base, Container, Files, Limits, LoraConfig, ModuleKind, ModuleOutline};
use domain::Digest;
use kernels::Cpu;

use super::batch::PartRows;
use super::factors::{Packed, Site, Sites};
use super::head::PartLoss;
use super::{OptimiserConfig, TrainError, init};

/// What makes a run what it is: the same recipe and the same sequences give the same adapter, bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Rank, alpha, targets and patterns, as PEFT understands them; `base_model` names the base in what is exported.
    pub lora: LoraConfig,
    pub optimiser: OptimiserConfig,
    /// Of the factors that the run begins with.
    pub seed: u64,
}

/// One adapter in training. About 20 bytes for each of its factors, 16 of them numbers of a step.
pub struct Run {
    pub(super) base_digest: Digest,
    pub(super) recipe: Recipe,
    /// `adapter_config.json`
    pub(super) config: bytes::Bytes,
    pub(super) outlines: Vec<ModuleOutline>,
    pub(super) sites: Sites,
    /// As the sites say, as are moments and gradient.
    pub(super) values: Vec<f32>,
    pub(super) moments: [Vec<f32>; 2],
    pub(super) gradient: Vec<f32>,
    /// Of the present values; none after a step.
    pub(super) packed: Option<Packed>,
    pub(super) pending: Pending,
    pub(super) steps_done: u64,
}

/// What was accumulated since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Pending {
    pub loss: f64,
    pub weight: f64,
    pub tokens: u64,
    pub rows: u64,
}

/// The loss over some tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean of `−ln p` over the trained tokens by their weights, in nats.
    pub mean: f64,
    /// Σ weights.
    pub weight: f64,
    /// Tokens with a weight.
    pub trained_tokens: u64,
    /// All tokens that were computed.
    pub tokens: u64,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: u64,
    /// Over all that was accumulated for it, before it was made.
    pub loss: Loss,
    pub learning_rate: f64,
    /// Of the mean gradient, before clipping.
    pub gradient_norm: f64,
}

impl Run {
    /// A new adapter for `base`, which changes nothing yet.
    ///
    /// # Errors
    /// A recipe that asks for what cannot be trained or fits no module of the base.
    pub fn new(base: &Base, recipe: Recipe, limits: &Limits) -> Result<Run, TrainError> {
        let mut run = Run::without_values(base, recipe, limits)?;
        for site in &run.sites.all {
            let ModuleOutline { module, kind, .. } = &run.outlines[site.outline];
            init::fill(site, module, *kind, run.recipe.seed, &mut run.values);
        }
        Ok(run)
    }

    /// A run that goes on from a plain LoRA adapter, whatever trained it; the config in `recipe` gives way to its own.
    ///
    /// # Errors
    /// As [`Run::new`]; also whatever [`adapters::judge`] refuses, and an adapter of more than low-rank changes.
    pub fn from_adapter(base: &Base, recipe: Recipe, files: &Files, limits: &Limits) -> Result<Run, TrainError> {
        let plan = files.judge(base, limits).map_err(TrainError::Refused)?;
        let weights = Container::parse(files.weights.clone(), limits);
        let weights = weights.map_err(|refusal| TrainError::Refused(vec![refusal]))?;
        let reading = LoraConfig::read(&files.config, limits);
        let lora = reading.config.ok_or(TrainError::Refused(reading.refusals))?;
        if !plan.private.is_empty() || !plan.biases.is_empty() {
            return Err(TrainError::Unsupported("a module or bias that replaces the base's"));
        }
        let base_model = recipe.lora.base_model.clone();
        let lora = LoraConfig { base_model, modules_to_save: Default::default(), ..lora };
        let mut run = Run::without_values(base, Recipe { lora, ..recipe }, limits)?;
        for module in &plan.modules {
            let site = run.sites.all.iter().find(|site| run.outlines[site.outline].module == module.module);
            let site = site.ok_or(TrainError::Unsupported("an adapter that was made for a fused projection"))?;
            let read = |tensor| {
                let (dtype, bytes) = weights.elements(tensor)?;
                dtype.decode(bytes)
            };
            let (Some(a), Some(b)) = (read(&module.a), read(&module.b)) else {
                return Err(TrainError::State(format!("{}: no elements that can be read", module.module)));
            };
            site.write(module.kind, &a, &b, &mut run.values);
        }
        Ok(run)
    }

    pub(super) fn without_values(base: &Base, recipe: Recipe, limits: &Limits) -> Result<Run, TrainError> {
        recipe.optimiser.check()?;
        let lora = &recipe.lora;
        let unsupported = [
            (lora.dora, "DoRA"),
            (lora.lora_bias, "a bias of B"),
            (lora.bias != Bias::None, "a bias of the base"),
            (!lora.modules_to_save.is_empty(), "a whole module"),
        ];
        if let Some((_, what)) = unsupported.into_iter().find(|(asked, _)| *asked) {
            return Err(TrainError::Unsupported(what));
        }
        let outlines = adapters::outline(lora, base, limits).map_err(TrainError::Refused)?;
        if outlines.iter().any(|outline| outline.rank == 0) {
            return Err(TrainError::Setting { name: "rank", value: "0".to_owned(), expected: "it is at least 1" });
        }
        let config = adapters::export::config_text(lora, &outlines, base);
        let sites = Sites::new(&outlines, base.layers());
        let zeros = || vec![0.0; sites.len()];
        let (values, moments, gradient) = (zeros(), [zeros(), zeros()], zeros());
        Ok(Run {
            base_digest: base.digest(),
            recipe,
            config,
            outlines,
            sites,
            values,
            moments,
            gradient,
            packed: None,
            pending: Pending::default(),
            steps_done: 0,
        })
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Numbers that are trained.
    pub fn parameters(&self) -> usize {
        self.values.len()
    }

    /// Steps that were made.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Whether all steps of the recipe were made.
    pub fn is_finished(&self) -> bool {
        self.steps_done >= self.recipe.optimiser.steps
    }

    /// The adapter as it is now, in the two files of PEFT, f32. Before the first step that changes anything it is one that
    /// does nothing, which a registry refuses.
    pub fn export(&self) -> Files {
        adapters::export::files(self.config.clone(), &self.outlines, |outline| self.factors(&self.values, outline))
    }

    /// What was accumulated for the next step, module by module: its path, and the gradients of A and B in the shapes of
    /// PEFT, of the mean over the trained tokens.
    pub fn gradients(&self) -> Vec<(&str, [Vec<f32>; 2])> {
        let mean = (1.0 / self.pending.weight) as f32;
        let scaled: Vec<f32> = self.gradient.iter().map(|value| value * mean).collect();
        self.outlines.iter().map(|outline| (outline.module.as_str(), self.factors(&scaled, outline))).collect()
    }

    pub(super) fn add_pending(&mut self, loss: &PartLoss, part: &PartRows) {
        self.pending.loss += loss.sum;
        self.pending.weight += loss.weight;
        self.pending.tokens += loss.tokens as u64;
        self.pending.rows += part.rows.len() as u64;
    }

    /// Makes the step for which gradients were accumulated.
    pub(super) fn step(&mut self, cpu: &Cpu) -> Result<StepReport, TrainError> {
        let (step, optimiser) = (self.steps_done + 1, &self.recipe.optimiser);
        if self.is_finished() {
            return Err(TrainError::Finished { steps: optimiser.steps });
        }
        if self.pending.weight == 0.0 {
            return Err(TrainError::NothingAccumulated { step: self.steps_done });
        }
        let Pending { loss, weight, tokens, rows } = std::mem::take(&mut self.pending);
        let loss = Loss { mean: loss / weight, weight, trained_tokens: tokens, tokens: rows };
        let gradient_norm = kernels::sum_of_squares(&self.gradient).sqrt() / weight;
        for (what, value) in [("loss", loss.mean), ("norm of the gradient", gradient_norm)] {
            if !value.is_finite() {
                self.gradient.fill(0.0);
                return Err(TrainError::NotFinite { step, what, value });
            }
        }
        let by = optimiser.step(self.steps_done, optimiser.clip_factor(gradient_norm) / weight);
        let learning_rate = optimiser.learning_rate_at(self.steps_done);
        let [first, second] = &mut self.moments;
        kernels::adamw(cpu, &by, &mut self.values, first, second, &self.gradient);
        self.gradient.fill(0.0);
        self.packed = None;
        self.steps_done = step;
        Ok(StepReport { step, loss, learning_rate, gradient_norm })
    }

    /// A and B of a module in the shapes of PEFT, of numbers that lie as the sites say.
    fn factors(&self, numbers: &[f32], outline: &ModuleOutline) -> [Vec<f32>; 2] {
        let site = self.sites.all.iter().find(|site| self.outlines[site.outline].module == outline.module);
        let site = site.expect("each outline has a site");
        site.read(outline.kind, numbers)
    }
}

impl Site {
    /// Takes A and B in the shapes of PEFT.
    fn write(&self, kind: ModuleKind, a: &[f32], b: &[f32], values: &mut [f32]) {
        let a = if is_embedding(kind) { transposed(a, self.inputs) } else { a.to_vec() };
        values[self.a.clone()].copy_from_slice(&a);
        values[self.b.clone()].copy_from_slice(&transposed(b, self.rank));
    }

    /// Gives A and B in the shapes of PEFT.
    fn read(&self, kind: ModuleKind, values: &[f32]) -> [Vec<f32>; 2] {
        let a = &values[self.a.clone()];
        let a = if is_embedding(kind) { transposed(a, self.rank) } else { a.to_vec() };
        [a, transposed(&values[self.b.clone()], self.outputs)]
    }
}

fn is_embedding(kind: ModuleKind) -> bool {
    matches!(kind, ModuleKind::Embedding { .. })
}

/// `[rows, width]` to `[width, rows]`.
fn transposed(values: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| values.iter().skip(column).step_by(width).copied()).collect()
}
