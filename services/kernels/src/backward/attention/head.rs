//! One key-value head of one sequence: the gradients of its keys and values, gathered over the query heads that share it.

use std::ops::Range;

use crate::LANES;
use crate::activation::exp;
use crate::attention::AttentionShape;
use crate::backward::rows::{ROWS, add_all_rows, add_rows};
use crate::isa::Isa;
use crate::reduce::sum_by_lane;
use crate::vectorized::vectorized;

/// Keys, values and their gradients `[length, dim]`.
pub struct Head {
    isa: Isa,
    dim: usize,
    length: usize,
    scale: f32,
    window: Option<usize>,
    keys: Vec<f32>,
    /// From a row to the next one, of what has a column for each position.
    stride: usize,
    /// `[dim, stride]`, as are values.
    keys_by_dim: Vec<f32>,
    values_by_dim: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
    /// Scores, then probabilities of 16 queries, and gradients of them; `[16, stride]`.
    weights: Vec<f32>,
    d_weights: Vec<f32>,
}

impl Head {
    pub fn new(isa: Isa, shape: &AttentionShape, keys: Vec<f32>, values: Vec<f32>) -> Head {
        let dim = shape.head_dim;
        let length = keys.len() / dim;
        // One line more than is needed: rows a power of two apart would share few sets of the cache.
        let stride = length.next_multiple_of(LANES) + LANES;
        Head {
            isa,
            dim,
            length,
            scale: shape.scale,
            window: shape.window,
            stride,
            keys_by_dim: by_dim(&keys, dim, stride),
            values_by_dim: by_dim(&values, dim, stride),
            d_keys: vec![0.0; keys.len()],
            d_values: vec![0.0; keys.len()],
            weights: vec![0.0; ROWS * stride],
            d_weights: vec![0.0; ROWS * stride],
            keys,
        }
    }

    /// Adds what the queries of one head, `[length, dim]`, give to keys and values; returns the gradient of the queries.
    pub fn add_queries(&mut self, q: &[f32], out: &[f32], d_out: &[f32]) -> Vec<f32> {
        let mut dq = vec![0.0; q.len()];
        for first in (0..self.length).step_by(ROWS) {
            let queries = first..(first + ROWS).min(self.length);
            let rows = queries.start * self.dim..queries.end * self.dim;
            let (q, out, d_out) = (&q[rows.clone()], &out[rows.clone()], &d_out[rows.clone()]);
            let keys = self.seen(first).start / LANES * LANES..queries.end.next_multiple_of(LANES);
            self.weigh(&queries, &keys, q, out, d_out);
            self.gather(&queries, &keys, q, d_out, &mut dq[rows]);
        }
        dq
    }

    /// Gradients of keys and values.
    pub fn finish(self) -> (Vec<f32>, Vec<f32>) {
        (self.d_keys, self.d_values)
    }

    /// Positions that the query at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }

    /// Probabilities of `queries` over `keys`, and the gradients of their scores: zero where a query sees no key.
    fn weigh(&mut self, queries: &Range<usize>, keys: &Range<usize>, q: &[f32], out: &[f32], d_out: &[f32]) {
        let (dim, stride) = (self.dim, self.stride);
        for (row, position) in queries.clone().enumerate() {
            let of_row = row * dim..(row + 1) * dim;
            let seen = self.seen(position);
            let weights = &mut self.weights[row * stride..][..keys.len()];
            let d_weights = &mut self.d_weights[row * stride..][..keys.len()];
            weights.fill(0.0);
            d_weights.fill(0.0);
            add_all_rows(self.isa, &q[of_row.clone()], &self.keys_by_dim[keys.start..], stride, weights);
            add_all_rows(self.isa, &d_out[of_row.clone()], &self.values_by_dim[keys.start..], stride, d_weights);
            let seen = seen.start - keys.start..seen.end - keys.start;
            softmax_and_back(self.isa, weights, d_weights, seen, self.scale, &out[of_row.clone()], &d_out[of_row]);
        }
        // Rows that fill the last block up have no part in what follows.
        self.weights[queries.len() * stride..].fill(0.0);
        self.d_weights[queries.len() * stride..].fill(0.0);
    }

    /// From the weights to gradients of queries, keys and values.
    fn gather(&mut self, queries: &Range<usize>, keys: &Range<usize>, q: &[f32], d_out: &[f32], dq: &mut [f32]) {
        let (dim, stride) = (self.dim, self.stride);
        let keys = keys.start..keys.end.min(self.length);
        for (row, dq) in (0..queries.len()).zip(dq.chunks_exact_mut(dim)) {
            let d_weights = &self.d_weights[row * stride..][..keys.len()];
            add_all_rows(self.isa, d_weights, &self.keys[keys.start * dim..], dim, dq);
        }
        for (column, key) in keys.enumerate() {
            let of = |weights: &[f32]| -> [f32; ROWS] { std::array::from_fn(|row| weights[row * stride + column]) };
            let at = key * dim..(key + 1) * dim;
            add_rows(self.isa, &of(&self.weights), d_out, dim, &mut self.d_values[at.clone()]);
            add_rows(self.isa, &of(&self.d_weights), q, dim, &mut self.d_keys[at]);
        }
    }
}

/// `[length, dim]` to `[dim, stride]`; what lies behind the length is zeros.
fn by_dim(rows: &[f32], dim: usize, stride: usize) -> Vec<f32> {
    let mut out = vec![0.0; dim * stride];
    for (position, row) in rows.chunks_exact(dim).enumerate() {
        for (value, column) in row.iter().zip(out.chunks_exact_mut(stride)) {
            column[position] = *value;
        }
    }
    out
}

vectorized! {
    /// `scores` become probabilities `p` of the scaled scores, `d` from the gradients of `p` to those of the scores:
    /// `p (d − Σ out · d_out) · scale`. Both are zero outside of `seen`.
    fn softmax_and_back(
        scores: &mut [f32], d: &mut [f32], seen: std::ops::Range<usize>, scale: f32, out: &[f32], d_out: &[f32],
    ) {
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        d[..seen.start].fill(0.0);
        d[seen.end..].fill(0.0);
        let (scores, d) = (&mut scores[seen.clone()], &mut d[seen]);
        let mut max = f32::NEG_INFINITY;
        for score in scores.iter() {
            max = if *score * scale > max { *score * scale } else { max };
        }
        for score in scores.iter_mut() {
            *score = exp(*score * scale - max);
        }
        let inverse = 1.0 / sum_by_lane(scores, |weight| weight);
        let mut lanes = [0.0f32; LANES];
        for (out, d_out) in out.chunks(LANES).zip(d_out.chunks(LANES)) {
            for ((lane, out), d_out) in lanes.iter_mut().zip(out).zip(d_out) {
                *lane += out * d_out;
            }
        }
        let mean = crate::reduce::sum_lanes(&lanes);
        for (score, d) in scores.iter_mut().zip(d) {
            *score *= inverse;
            *d = *score * (*d - mean) * scale;
        }
    }
}
