//! Grouped LoRA: the rows of a batch that use an adapter get its low-rank change, each group its own; rows without
//! an adapter cost nothing. What an adapter is and whether it fits is decided elsewhere.
//!
//! Two regions do all sites of one input: every `h = A x`, then every `y += scale · B h`. `A x` is summed in blocks of
//! 1024 inputs, each in order, and the blocks are added in order: no bit depends on threads or on other rows.
//!
//! In int8, `h` is quantised as activations are: in groups of 64 of the rank, or of all of a lower rank.

mod plan;

use crate::cpu::Cpu;
use crate::input::{Forms, Input};
use crate::matrix::{Matrix, Storage};
use plan::Plan;

/// The low-rank change of one linear layer: `ΔW = scale · B A`, of any rank.
///
/// `h = A x` is f32. With B in bf16 it is rounded to bf16, with B in int8 it is quantised, with B in f32 it is kept.
#[derive(Clone)]
pub struct Lora {
    /// `[rank, inputs]`
    a: Matrix,
    /// `[outputs, rank]`
    b: Matrix,
    scale: f32,
}

impl Lora {
    /// From packed `a` `[rank, inputs]` and `b` `[outputs, rank]`.
    ///
    /// # Panics
    /// If their ranks differ.
    pub fn from_parts(a: Matrix, b: Matrix, scale: f32) -> Lora {
        assert_eq!(a.outputs(), b.inputs(), "the rank of A and of B");
        Lora { a, b, scale }
    }

    /// From row-major `a` `[rank, inputs]` and `b` `[outputs, rank]`.
    pub fn from_values(cpu: &Cpu, rank: usize, storage: Storage, a: &[f32], b: &[f32], scale: f32) -> Lora {
        let pack = |outputs, inputs, values: &[f32]| Matrix::from_values(cpu, outputs, inputs, storage, values);
        Lora::from_parts(pack(rank, a.len() / rank, a), pack(b.len() / rank, rank, b), scale)
    }

    /// `[rank, inputs]`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// `[outputs, rank]`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    pub fn rank(&self) -> usize {
        self.a.outputs()
    }

    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The form of activations that it reads.
    pub fn forms(&self) -> Forms {
        self.a.storage().into()
    }

    /// Memory that the change takes.
    pub fn bytes(&self) -> usize {
        self.a.bytes() + self.b.bytes()
    }
}

/// The rows of a batch that share one change.
pub struct LoraGroup<'a> {
    pub rows: &'a [usize],
    pub lora: &'a Lora,
}

/// One linear layer of the several that read the same input.
pub struct LoraSite<'a> {
    /// No row is in two groups.
    pub groups: &'a [LoraGroup<'a>],
    pub outputs: usize,
    /// `[rows, outputs]`
    pub y: &'a mut [f32],
}

/// `y[r] += scale · B (A x[r])` for the rows of each group of each site; ranks may differ.
///
/// # Panics
/// If sizes do not fit, a row is in two groups of a site or in none of the input, or the input lacks a form.
pub fn grouped_loras(cpu: &Cpu, x: &Input<'_>, sites: &mut [LoraSite<'_>]) {
    let Some(plan) = Plan::new(cpu.isa(), x, sites) else { return };
    let partial = plan.shrink(cpu, x);
    let hidden = plan.hidden(cpu.isa(), &partial);
    plan.expand(cpu, &hidden);
}

/// As [`grouped_loras`] of changes in f32, and gives `h = A x` of each group, `[rows of the group, rank]`: the groups of
/// the first site in order, those of the second one, and so on.
///
/// # Panics
/// As [`grouped_loras`]; also if a change is not in f32 or a group has no rows.
pub fn grouped_loras_with_hidden(cpu: &Cpu, x: &Input<'_>, sites: &mut [LoraSite<'_>]) -> Vec<Vec<f32>> {
    let groups = sites.iter().flat_map(|site| site.groups);
    for group in groups {
        assert!(!group.rows.is_empty(), "a group has rows");
        assert_eq!(group.lora.b.storage(), Storage::F32, "only changes in f32 keep what B reads");
    }
    let Some(plan) = Plan::new(cpu.isa(), x, sites) else { return Vec::new() };
    let partial = plan.shrink(cpu, x);
    let hidden = plan.hidden(cpu.isa(), &partial);
    plan.expand(cpu, &hidden);
    plan.hidden_f32(&hidden)
}

#[cfg(test)]
mod tests;
