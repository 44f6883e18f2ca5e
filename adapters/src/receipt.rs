//! What was loaded, in numbers: the record kept with each version, which `inspect` prints.

use std::collections::{BTreeMap, BTreeSet};

use domain::Digest;
use serde::{Deserialize, Serialize};

use crate::config::LoraConfig;
use crate::container::Container;
use crate::dtype::Dtype;
use crate::plan::{BiasReplacement, ModulePlan, Note, NoteCode, Plan, PrivateModule, TensorRef};
use crate::refusal::Code;
use crate::resolve::findings::Findings;

/// The load receipt of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub digest: Digest,
    pub base_digest: Digest,
    /// PEFT release that wrote the config, where it says so.
    pub peft_version: Option<String>,
    pub rank_max: usize,
    /// Numbers in all tensors that are used.
    pub parameters: u64,
    /// Bytes of all tensors that are used.
    pub bytes: u64,
    /// Frobenius norm of all changes together.
    pub delta_norm: f64,
    pub modules: Vec<ModuleReceipt>,
    pub private: Vec<PrivateReceipt>,
    /// Modules whose bias is replaced.
    pub biases: Vec<String>,
    pub notes: Vec<Note>,
}

/// One low-rank change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleReceipt {
    pub module: String,
    /// `lora` or `dora`.
    pub variant: Variant,
    pub rank: usize,
    pub alpha: f64,
    pub scale: f64,
    pub dtype: Dtype,
    /// Whether B has a bias.
    pub lora_bias: bool,
    /// Frobenius norm of `scale · B A`.
    pub delta_norm: f64,
}

/// The arithmetic of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    Lora,
    Dora,
}

/// One private module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivateReceipt {
    pub module: String,
    pub dtype: Dtype,
    pub bytes: u64,
}

/// Fills in the norm of each change: `‖s·BA‖² = s² · tr((BᵀB)(AAᵀ))`, in f64.
pub(crate) fn measure(modules: &mut [ModulePlan], weights: &Container) {
    // the parts of a fused projection share A: its Gram matrix is kept until another module comes
    let mut grams_of_a: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for plan in modules {
        let gram_of_a = grams_of_a.entry(plan.a.name.clone()).or_insert_with(|| gram_of_rows(weights, &plan.a.name));
        let gram_of_b = gram_of_columns(weights, &plan.b, plan.rank);
        let squared: f64 = gram_of_a.iter().zip(&gram_of_b).map(|(a, b)| a * b).sum();
        plan.delta_norm = plan.scale.abs() * squared.max(0.0).sqrt();
        if plan.b.rows.is_none() {
            grams_of_a.clear();
        }
    }
}

/// Refuses changes that no f32 can hold, whose answers would be no numbers.
pub(crate) fn refuse_overflow(modules: &[ModulePlan], findings: &mut Findings) {
    let overflows = |plan: &&ModulePlan| !(plan.scale as f32).is_finite() || !(plan.delta_norm as f32).is_finite();
    for plan in modules.iter().filter(overflows) {
        findings.refuse(
            Code::NonFinite,
            &plan.module,
            "The scaled change is too large for an f32, so answers would be no numbers. Correct `lora_alpha`, or upload an earlier checkpoint.",
        );
    }
}

/// Refuses an adapter that changes nothing, and notes modules whose change is zero.
pub(crate) fn note_zero_changes(
    modules: &[ModulePlan],
    private: &[PrivateModule],
    biases: &[BiasReplacement],
    weights: &Container,
    findings: &mut Findings,
) {
    let zero_bias = |plan: &ModulePlan| match &plan.lora_bias {
        Some(bias) => plan.scale == 0.0 || elements(weights, bias).all(|value| value == 0.0),
        None => true,
    };
    let zero = |plan: &&ModulePlan| plan.delta_norm == 0.0 && plan.magnitude.is_none() && zero_bias(plan);
    let zeros: Vec<&ModulePlan> = modules.iter().filter(zero).collect();
    if zeros.len() == modules.len() && private.is_empty() && biases.is_empty() {
        return findings.refuse(
            Code::Noop,
            "adapter",
            "Every change is zero (B or A is zero, or `lora_alpha` is 0), so answers would be those of the base. Upload a trained checkpoint.",
        );
    }
    for plan in zeros {
        findings.note(NoteCode::ZeroDelta, &plan.module, "The change of this module is zero.");
    }
}

/// The plan with its receipt.
#[allow(clippy::too_many_arguments)] // the parts of the plan, each used once and by name
pub(crate) fn complete(
    digest: Digest,
    base_digest: Digest,
    config: &LoraConfig,
    modules: Vec<ModulePlan>,
    private: Vec<PrivateModule>,
    biases: Vec<BiasReplacement>,
    notes: Vec<Note>,
    weights: &Container,
) -> Plan {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for plan in &modules {
        let optional = plan.magnitude.iter().chain(&plan.lora_bias);
        used.extend([&plan.a, &plan.b].into_iter().chain(optional).map(|tensor| tensor.name.as_str()));
    }
    used.extend(private.iter().map(|module| module.weight.name.as_str()));
    used.extend(biases.iter().map(|bias| bias.bias.name.as_str()));
    let views = || used.iter().filter_map(|name| weights.get(name));
    let bytes = views().map(|view| view.data.len() as u64).sum();
    let parameters = views().map(|view| view.elements() as u64).sum();
    let dtype = |name: &str| weights.get(name).map_or(Dtype::F32, |view| view.dtype);

    let receipt = Receipt {
        digest,
        base_digest,
        peft_version: config.peft_version.clone(),
        rank_max: modules.iter().map(|plan| plan.rank).max().unwrap_or(0),
        parameters,
        bytes,
        delta_norm: modules.iter().map(|plan| plan.delta_norm.powi(2)).sum::<f64>().sqrt(),
        modules: modules
            .iter()
            .map(|plan| ModuleReceipt {
                module: plan.module.clone(),
                variant: if plan.magnitude.is_some() { Variant::Dora } else { Variant::Lora },
                rank: plan.rank,
                alpha: plan.alpha,
                scale: plan.scale,
                dtype: dtype(&plan.b.name),
                lora_bias: plan.lora_bias.is_some(),
                delta_norm: plan.delta_norm,
            })
            .collect(),
        private: private
            .iter()
            .map(|module| PrivateReceipt {
                module: module.module.clone(),
                dtype: dtype(&module.weight.name),
                bytes: module.bytes,
            })
            .collect(),
        biases: biases.iter().map(|bias| bias.module.clone()).collect(),
        notes: notes.clone(),
    };
    Plan { digest, base_digest, modules, private, biases, notes, receipt, bytes }
}

/// `A Aᵀ` of `A [rank, n]`: `[rank, rank]`.
fn gram_of_rows(weights: &Container, name: &str) -> Vec<f64> {
    let Some(view) = weights.get(name) else { return Vec::new() };
    let rank = view.shape.first().copied().unwrap_or(0);
    let width = view.elements().checked_div(rank).unwrap_or(0);
    let values: Vec<f64> = elements(weights, &TensorRef::whole(name)).collect();
    let row = |i: usize| values.get(i * width..(i + 1) * width).unwrap_or_default();
    let mut gram = vec![0.0; rank * rank];
    for i in 0..rank {
        for j in 0..=i {
            let product = dot(row(i), row(j));
            gram[i * rank + j] = product;
            gram[j * rank + i] = product;
        }
    }
    gram
}

/// `Bᵀ B` of `B [n, rank]`: `[rank, rank]`.
fn gram_of_columns(weights: &Container, tensor: &TensorRef, rank: usize) -> Vec<f64> {
    let values: Vec<f64> = elements(weights, tensor).collect();
    let mut gram = vec![0.0; rank * rank];
    for row in values.chunks_exact(rank.max(1)) {
        for (gram_row, left) in gram.chunks_exact_mut(rank.max(1)).zip(row) {
            for (sum, right) in gram_row.iter_mut().zip(row) {
                *sum += left * right;
            }
        }
    }
    gram
}

/// Sum of products in eight lanes, which the compiler turns into vector instructions; the order is fixed.
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (left_chunks, left_rest) = left.as_chunks::<8>();
    let (right_chunks, right_rest) = right.as_chunks::<8>();
    for (a, b) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The elements of a tensor, or of the rows that are meant.
fn elements<'a>(weights: &'a Container, tensor: &TensorRef) -> impl Iterator<Item = f64> + 'a {
    let view = weights.get(&tensor.name);
    let data = view.and_then(|view| {
        let rows = view.shape.first().copied().filter(|rows| *rows > 0)?;
        let row_bytes = view.data.len() / rows;
        let range = tensor.rows.clone().unwrap_or(0..rows);
        let data = view.data.get(range.start * row_bytes..range.end * row_bytes)?;
        view.dtype.decode(data)
    });
    data.into_iter().flatten().map(f64::from)
}
