//! From a plan and its tensors to weights in memory. The norms that DoRA divides by are taken here, once.

use adapters::{BiasReplacement, Container, ModuleKind, ModulePlan, Plan, PrivateModule, TensorRef};
use domain::Digest;
use kernels::{Cpu, Lora, Matrix};

use super::{Adapter, EmbeddingChange, EmbeddingLora, HeadChange, LinearChange};
use crate::model::{Model, Slot};

/// Why an adapter with a plan cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterLoadError {
    #[error("the plan was made for base {plan}, this model is {model}")]
    OtherBase { plan: Digest, model: Digest },
    #[error("{module}: {message}")]
    Module { module: String, message: String },
}

const EMBED: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

impl Adapter {
    /// Brings the tensors of `plan` into memory.
    pub fn load(model: &Model, plan: &Plan, weights: &Container) -> Result<Adapter, AdapterLoadError> {
        let base_digest = model.base().digest();
        if plan.base_digest != base_digest {
            return Err(AdapterLoadError::OtherBase { plan: plan.base_digest, model: base_digest });
        }
        let layers = (0..model.config().layers).map(|_| Default::default()).collect();
        let (embed, head) = (EmbeddingChange::default(), HeadChange::default());
        let mut adapter = Adapter { digest: plan.digest, base_digest, bytes: 0, embed, layers, head };
        for module in &plan.private {
            adapter.add_private(model, module, weights).map_err(in_module(&module.module))?;
        }
        for module in &plan.modules {
            adapter.add_module(model, module, weights).map_err(in_module(&module.module))?;
        }
        for bias in &plan.biases {
            adapter.add_bias(bias, weights).map_err(in_module(&bias.module))?;
        }
        let linears = adapter.layers.iter().flatten().chain([&adapter.head.change]).map(LinearChange::bytes);
        adapter.bytes =
            linears.sum::<usize>() + adapter.embed.bytes() + adapter.head.private.as_ref().map_or(0, Matrix::bytes);
        Ok(adapter)
    }

    fn add_private(&mut self, model: &Model, module: &PrivateModule, weights: &Container) -> Result<(), String> {
        let &[rows, columns] = module.kind.weight_shape().as_slice() else {
            return Err("a private module must be a matrix".into());
        };
        let values = read(weights, &module.weight, &[rows, columns])?;
        let storage = model.adapter_storage();
        let matrix = Matrix::from_values(&Cpu::serial(), rows, columns, storage, &values);
        match module.module.as_str() {
            EMBED => self.embed.private = Some(matrix),
            HEAD => self.head.private = Some(matrix),
            _ => return Err("private modules are supported for the embedding and the output layer".into()),
        }
        Ok(())
    }

    fn add_module(&mut self, model: &Model, module: &ModulePlan, weights: &Container) -> Result<(), String> {
        let (rank, scale) = (module.rank, module.scale as f32);
        match module.kind {
            ModuleKind::Embedding { vocab, dim } if module.module == EMBED => {
                let a = read(weights, &module.a, &[rank, vocab])?;
                let b = read(weights, &module.b, &[dim, rank])?;
                let lora = EmbeddingLora { a: transpose(&a, vocab), b: transpose(&b, rank), rank, scale };
                let base = self.embed.private.as_ref().unwrap_or(&model.weights().embed);
                if let Some(magnitude) = &module.magnitude {
                    let magnitude = read(weights, magnitude, &[dim])?;
                    self.embed.gain = Some(divide(&magnitude, &column_norms(base, &lora))?);
                }
                self.embed.lora = Some(lora);
            }
            ModuleKind::Linear { in_features, out_features, .. } => {
                let a = read(weights, &module.a, &[rank, in_features])?;
                let b = read(weights, &module.b, &[out_features, rank])?;
                let vector = |tensor: &Option<TensorRef>| {
                    tensor.as_ref().map(|tensor| read(weights, tensor, &[out_features])).transpose()
                };
                let (magnitude, mut lora_bias) = (vector(&module.magnitude)?, vector(&module.lora_bias)?);
                for value in lora_bias.iter_mut().flatten() {
                    *value *= scale;
                }
                let base = model.linear_weight(&module.module).ok_or("the base has no such module")?;
                if (base.outputs(), base.inputs()) != (out_features, in_features) {
                    return Err("the base's module is of another shape".into());
                }
                let storage = model.adapter_storage();
                let gain = magnitude.map(|m| divide(&m, &row_norms(base, &a, &b, rank, scale))).transpose()?;
                let change = self.linear_mut(&module.module)?;
                change.lora = Some(Lora::from_values(&Cpu::serial(), rank, storage, &a, &b, scale));
                (change.gain, change.lora_bias) = (gain, lora_bias);
            }
            _ => return Err("low-rank changes are supported for linear layers and the embedding".into()),
        }
        Ok(())
    }

    fn add_bias(&mut self, bias: &BiasReplacement, weights: &Container) -> Result<(), String> {
        let view = weights.get(&bias.bias.name).ok_or("its bias is not in the file")?;
        let values = read(weights, &bias.bias, &[bias.bias.rows.as_ref().map_or(view.elements(), |rows| rows.len())])?;
        self.linear_mut(&bias.module)?.bias = Some(values);
        Ok(())
    }

    fn linear_mut(&mut self, path: &str) -> Result<&mut LinearChange, String> {
        if path == HEAD {
            return Ok(&mut self.head.change);
        }
        let (layer, slot) = parse_path(path).ok_or("no such linear layer")?;
        self.layers.get_mut(layer).map(|layer| &mut layer[slot as usize]).ok_or_else(|| "no such layer".into())
    }
}

/// Layer and slot of a path such as `model.layers.3.self_attn.q_proj`.
pub(crate) fn parse_path(path: &str) -> Option<(usize, Slot)> {
    let (layer, name) = path.strip_prefix("model.layers.")?.split_once('.')?;
    let slot = Slot::ALL.into_iter().find(|slot| slot.path() == name)?;
    Some((layer.parse().ok()?, slot))
}

/// The tensor, or the rows of it that are meant, as f32; it must be of `shape`.
fn read(weights: &Container, tensor: &TensorRef, shape: &[usize]) -> Result<Vec<f32>, String> {
    let name = &tensor.name;
    let mut view = weights.get(name).ok_or_else(|| format!("{name} is not in the file"))?;
    let whole = view.shape.first().copied().unwrap_or(0);
    let rows = tensor.rows.clone().unwrap_or(0..whole);
    let row_bytes = view.data.len().checked_div(whole).unwrap_or(0);
    let found: Vec<usize> = std::iter::once(rows.len()).chain(view.shape.iter().skip(1).copied()).collect();
    if rows.end > whole || found != shape {
        return Err(format!("{name} is of shape {:?}, {shape:?} is meant", view.shape));
    }
    view.data = &view.data[rows.start * row_bytes..rows.end * row_bytes];
    view.to_f32().ok_or_else(|| format!("{name} is {}, which is not served", view.dtype.name()))
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

/// Norm of each column of `E + scale · (B A)ᵀ`.
fn column_norms(base: &Matrix, lora: &EmbeddingLora) -> Vec<f64> {
    let mut squares = vec![0.0f64; base.inputs()];
    let mut row = vec![0.0; base.inputs()];
    for (token, a) in lora.a.chunks_exact(lora.rank).enumerate() {
        base.read_row(token, &mut row);
        kernels::expand(a, &lora.b, lora.scale, &mut row);
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
