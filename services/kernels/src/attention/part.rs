//! What a query has gathered from some of its context: the weighted sum of values, the sum of weights, and the score that
//! the weights are relative to. Parts are merged in the order of positions.

use crate::activation::exp;
use crate::vectorized::vectorized;

/// Sums of some queries.
pub struct Gathered {
    /// Elements of one query.
    width: usize,
    /// `[queries, width]`
    mixed: Vec<f32>,
    weights: Vec<Weights>,
}

/// Of one query. `sum` is 0 while nothing has been seen, and then at least the 1 of the largest score.
#[derive(Clone, Copy)]
pub struct Weights {
    pub max: f32,
    pub sum: f32,
}

impl Gathered {
    pub fn nothing(queries: usize, width: usize) -> Self {
        let weights = vec![Weights { max: f32::NEG_INFINITY, sum: 0.0 }; queries];
        Gathered { width, mixed: vec![0.0; queries * width], weights }
    }

    /// Adds what query `query` gathered from the next part of its context.
    #[inline(always)]
    pub fn add(&mut self, query: usize, mixed: &[f32], weights: Weights) {
        merge(&mut self.mixed[query * self.width..][..self.width], &mut self.weights[query], mixed, weights);
    }

    /// Writes the weighted mean of query `query`.
    #[inline(always)]
    pub fn finish(&self, query: usize, out: &mut [f32]) {
        let sum = self.weights[query].sum;
        for (out, mixed) in out.iter_mut().zip(&self.mixed[query * self.width..]) {
            *out = *mixed / sum;
        }
    }
}

vectorized! {
    /// Adds the parts of all queries.
    pub fn add_all(total: &mut Gathered, part: &Gathered) {
        for (query, weights) in part.weights.iter().enumerate() {
            total.add(query, &part.mixed[query * part.width..][..part.width], *weights);
        }
    }
}

#[inline(always)]
fn merge(total: &mut [f32], of_total: &mut Weights, part: &[f32], of_part: Weights) {
    if of_part.sum == 0.0 {
        return;
    }
    if of_total.sum == 0.0 {
        total.copy_from_slice(part);
        *of_total = of_part;
        return;
    }
    let max = if of_part.max > of_total.max { of_part.max } else { of_total.max };
    let (old, new) = (exp(of_total.max - max), exp(of_part.max - max));
    for (total, part) in total.iter_mut().zip(part) {
        *total = *total * old + *part * new;
    }
    *of_total = Weights { max, sum: of_total.sum * old + of_part.sum * new };
}
