//! From a plan and its tensors to an image of the adapter. The norms that DoRA divides by are taken here, once.

use adapters::{BiasReplacement, Container, Dtype, ModuleKind, ModulePlan, Plan, PrivateModule, TensorRef};
use domain::Digest;
use kernels::Matrix;

use super::Adapter;
use super::pack::{Content, Image, Parts, Place};
use crate::model::{Model, Slot};
use crate::packed_adapter::Kind;

/// Why an adapter with a plan cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterLoadError {
    #[error("the plan was made for base {plan}, this model is {model}")]
    OtherBase { plan: Digest, model: Digest },
    #[error("{module}: {message}")]
    Module { module: String, message: String },
    #[error("it has more or larger parts than an image can hold")]
    TooLarge,
    #[error("its parts do not fit this model: {0}")]
    Parts(String),
}

const EMBED: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

impl Adapter {
    /// Brings the tensors of `plan` into memory.
    pub fn load(model: &Model, plan: &Plan, weights: &Container) -> Result<Adapter, AdapterLoadError> {
        let image = Adapter::pack(model, plan, weights)?;
        Adapter::of_image(model, plan.digest, &image).map_err(|damage| AdapterLoadError::Parts(damage.to_string()))
    }

    /// Brings the tensors of `plan` into an image.
    pub(crate) fn pack(model: &Model, plan: &Plan, weights: &Container) -> Result<Image, AdapterLoadError> {
        let base_digest = model.base().digest();
        if plan.base_digest != base_digest {
            return Err(AdapterLoadError::OtherBase { plan: plan.base_digest, model: base_digest });
        }
        let mut packing = Packing { model, weights, parts: Parts::new(model.adapter_storage()) };
        for module in &plan.private {
            packing.add_private(module).map_err(in_module(&module.module))?;
        }
        for module in &plan.modules {
            packing.add_module(module).map_err(in_module(&module.module))?;
        }
        for bias in &plan.biases {
            packing.add_bias(bias).map_err(in_module(&bias.module))?;
        }
        packing.parts.into_image().ok_or(AdapterLoadError::TooLarge)
    }
}

struct Packing<'a> {
    model: &'a Model,
    weights: &'a Container,
    parts: Parts<'a>,
}

impl Packing<'_> {
    fn add_private(&mut self, module: &PrivateModule) -> Result<(), String> {
        let shape: [usize; 2] =
            module.kind.weight_shape().try_into().map_err(|_| "a private module must be a matrix".to_owned())?;
        let (kind, place) = match module.module.as_str() {
            EMBED => (Kind::EmbedPrivate, Place::Embed),
            HEAD => (Kind::HeadPrivate, Place::Head),
            _ => return Err("private modules are supported for the embedding and the output layer".into()),
        };
        self.parts.matrix(kind, place, shape, elements(self.weights, &module.weight, &shape)?)
    }

    fn add_module(&mut self, module: &ModulePlan) -> Result<(), String> {
        match module.kind {
            ModuleKind::Embedding { vocab, dim } if module.module == EMBED => self.add_embedding(module, vocab, dim),
            ModuleKind::Linear { in_features, out_features, .. } => self.add_linear(module, in_features, out_features),
            _ => Err("low-rank changes are supported for linear layers and the embedding".into()),
        }
    }

    fn add_linear(&mut self, module: &ModulePlan, inputs: usize, outputs: usize) -> Result<(), String> {
        let ModulePlan { rank, scale, .. } = *module;
        let (scale, weights) = (scale as f32, self.weights);
        let base = self.model.linear_weight(&module.module).ok_or("the base has no such module")?;
        if (base.outputs(), base.inputs()) != (outputs, inputs) {
            return Err("the base's module is of another shape".into());
        }
        let place = self.place(&module.module)?;
        let [kind_a, kind_b, kind_scale, kind_lora_bias, kind_gain, _] = place.linear_kinds();
        let [shape_a, shape_b] = [[rank, inputs], [outputs, rank]];
        self.parts.matrix(kind_a, place, shape_a, elements(weights, &module.a, &shape_a)?)?;
        self.parts.matrix(kind_b, place, shape_b, elements(weights, &module.b, &shape_b)?)?;
        self.parts.vector(kind_scale, place, vec![scale])?;
        if let Some(lora_bias) = &module.lora_bias {
            let scaled = read(weights, lora_bias, &[outputs])?.into_iter().map(|value| value * scale);
            self.parts.vector(kind_lora_bias, place, scaled.collect())?;
        }
        if let Some(magnitude) = &module.magnitude {
            let (a, b) = (read(weights, &module.a, &shape_a)?, read(weights, &module.b, &shape_b)?);
            let magnitude = read(weights, magnitude, &[outputs])?;
            self.parts.vector(kind_gain, place, divide(&magnitude, &row_norms(base, &a, &b, rank, scale))?)?;
        }
        Ok(())
    }

    fn add_embedding(&mut self, module: &ModulePlan, vocab: usize, hidden: usize) -> Result<(), String> {
        let ModulePlan { rank, scale, .. } = *module;
        let scale = scale as f32;
        let a = transpose(&read(self.weights, &module.a, &[rank, vocab])?, vocab);
        let b = transpose(&read(self.weights, &module.b, &[hidden, rank])?, rank);
        if let Some(magnitude) = &module.magnitude {
            let magnitude = read(self.weights, magnitude, &[hidden])?;
            // A module that is brought whole has no low-rank change, so it is the base's that is changed.
            let norms = column_norms(&self.model.weights().embed, &a, &b, rank, scale);
            self.parts.vector(Kind::EmbedGain, Place::Embed, divide(&magnitude, &norms)?)?;
        }
        self.parts.push(Kind::EmbedA, Place::Embed, [vocab, rank], Content::Values(a))?;
        self.parts.push(Kind::EmbedB, Place::Embed, [rank, hidden], Content::Values(b))?;
        self.parts.vector(Kind::EmbedScale, Place::Embed, vec![scale])
    }

    fn add_bias(&mut self, bias: &BiasReplacement) -> Result<(), String> {
        let place = self.place(&bias.module)?;
        let [.., kind] = place.linear_kinds();
        let outputs = self.model.linear_weight(&bias.module).ok_or("the base has no such module")?.outputs();
        self.parts.vector(kind, place, read(self.weights, &bias.bias, &[outputs])?)
    }

    fn place(&self, path: &str) -> Result<Place, String> {
        if path == HEAD {
            return Ok(Place::Head);
        }
        let (layer, slot) = parse_path(path).ok_or("no such linear layer")?;
        let layer = u16::try_from(layer).map_err(|_| "no such layer")?;
        Ok(Place::Linear(layer, slot as u16))
    }
}

/// Layer and slot of a path such as `model.layers.3.self_attn.q_proj`.
pub(crate) fn parse_path(path: &str) -> Option<(usize, Slot)> {
    let (layer, name) = path.strip_prefix("model.layers.")?.split_once('.')?;
    let slot = Slot::ALL.into_iter().find(|slot| slot.path() == name)?;
    Some((layer.parse().ok()?, slot))
}

/// The elements of the tensor, or of the rows of it that are meant; it must be of `shape`.
fn elements<'a>(weights: &'a Container, tensor: &TensorRef, shape: &[usize]) -> Result<(Dtype, &'a [u8]), String> {
    let name = &tensor.name;
    let view = weights.get(name).ok_or_else(|| format!("{name} is not in the file"))?;
    let rows = tensor.rows.as_ref().map(|rows| rows.len()).or(view.shape.first().copied());
    let found: Vec<usize> = rows.into_iter().chain(view.shape.iter().skip(1).copied()).collect();
    let part = weights.elements(tensor).filter(|_| found == shape);
    let (dtype, data) = part.ok_or_else(|| format!("{name} is of shape {:?}, {shape:?} is meant", view.shape))?;
    if dtype.is_served() { Ok((dtype, data)) } else { Err(format!("{name} is {}, which is not served", dtype.name())) }
}

/// As [`elements`], as f32.
fn read(weights: &Container, tensor: &TensorRef, shape: &[usize]) -> Result<Vec<f32>, String> {
    let (dtype, data) = elements(weights, tensor, shape)?;
    dtype.decode(data).ok_or_else(|| format!("{} is not served", dtype.name()))
}

/// `[rows, width]` to `[width, rows]`.
fn transpose(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.len() / width;
    let mut out = vec![0.0; values.len()];
    for (r, row) in values.chunks_exact(width).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * rows + r] = *value;
        }
    }
    out
}

/// Norm of each row of `W + scale · B A`.
fn row_norms(base: &Matrix, a: &[f32], b: &[f32], rank: usize, scale: f32) -> Vec<f64> {
    let norm = |(o, b): (usize, &[f32])| {
        let mut row = vec![0.0; base.inputs()];
        base.read_row(o, &mut row);
        kernels::expand(b, a, scale, &mut row);
        row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt()
    };
    // Not in parallel: the pool belongs to the steps of those who are being served.
    b.chunks(rank).enumerate().map(norm).collect()
}

/// Norm of each column of `E + scale · (B A)ᵀ`, with `a` `[vocab, rank]` and `b` `[rank, hidden]`.
fn column_norms(base: &Matrix, a: &[f32], b: &[f32], rank: usize, scale: f32) -> Vec<f64> {
    let mut squares = vec![0.0f64; base.inputs()];
    let mut row = vec![0.0; base.inputs()];
    for (token, a) in a.chunks_exact(rank).enumerate() {
        base.read_row(token, &mut row);
        kernels::expand(a, b, scale, &mut row);
        for (square, value) in squares.iter_mut().zip(&row) {
            *square += f64::from(*value) * f64::from(*value);
        }
    }
    squares.iter().map(|square| square.sqrt()).collect()
}

fn divide(magnitude: &[f32], norms: &[f64]) -> Result<Vec<f32>, String> {
    let gain: Vec<f32> = magnitude.iter().zip(norms).map(|(m, n)| (f64::from(*m) / n) as f32).collect();
    let finite = gain.iter().all(|value| value.is_finite());
    if finite { Ok(gain) } else { Err("a changed row has norm 0, by which DoRA would divide".into()) }
}

fn in_module(module: &str) -> impl FnOnce(String) -> AdapterLoadError {
    let module = module.to_owned();
    |message| AdapterLoadError::Module { module, message }
}
