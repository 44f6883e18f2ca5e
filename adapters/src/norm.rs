//! How large low-rank changes are: their Frobenius norms, exactly. That takes the time of a product of all tensors, so
//! whoever only needs to know whether a change is zero or too large asks `resolve/change.rs`.

use crate::container::Container;
use crate::plan::{ModulePlan, TensorRef};

/// Norms of the changes of one adapter. The parts of a fused projection share A, so its Gram matrix is kept until another
/// tensor comes.
#[derive(Default)]
pub(crate) struct Norms {
    gram_of_a: Option<(TensorRef, Vec<f64>)>,
}

impl Norms {
    /// `‖s·BA‖ = |s| · √tr((BᵀB)(AAᵀ))`, in f64.
    pub fn of(&mut self, plan: &ModulePlan, weights: &Container) -> f64 {
        let gram_of_a = match self.gram_of_a.take() {
            Some((tensor, gram)) if tensor == plan.a => gram,
            _ => gram_of_rows(weights, &plan.a, plan.rank),
        };
        let gram_of_b = gram_of_columns(weights, &plan.b, plan.rank);
        let squared: f64 = gram_of_a.iter().zip(&gram_of_b).map(|(a, b)| a * b).sum();
        self.gram_of_a = Some((plan.a.clone(), gram_of_a));
        plan.scale.abs() * squared.max(0.0).sqrt()
    }
}

/// `A Aᵀ` of `A [rank, n]`: `[rank, rank]`.
fn gram_of_rows(weights: &Container, tensor: &TensorRef, rank: usize) -> Vec<f64> {
    let values: Vec<f64> = elements(weights, tensor).collect();
    let width = values.len().checked_div(rank).unwrap_or(0);
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
fn elements(weights: &Container, tensor: &TensorRef) -> impl Iterator<Item = f64> {
    let values = weights.elements(tensor).and_then(|(dtype, data)| dtype.decode(data));
    values.into_iter().flatten().map(f64::from)
}
