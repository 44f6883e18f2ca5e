//! Causal attention of grouped queries over paged keys and values, for prefill and decode alike.
//!
//! A query's result depends on its position and on the keys and values before it, never on the other queries of the
//! step: cutting a prompt into chunks, or sharing a step with others, changes no bit. It writes no keys.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::LANES;
use crate::activation::exp;
use crate::dot::spread;
use crate::kv_blocks::{BLOCK_TOKENS, BlockId, KvBlocks};
use crate::reduce::sum_by_lane;

/// Queries that share one pass over the keys.
const QUERIES: usize = 4;
/// Rows of a sequence in one task.
const TASK_ROWS: usize = 16;

/// What all sequences of a layer have in common.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub heads: usize,
    /// Divides `heads`.
    pub kv_heads: usize,
    /// Even.
    pub head_dim: usize,
    /// Factor of the scores, commonly `1/√head_dim`.
    pub scale: f32,
    /// Tokens a query sees, itself included; `None` is all before it.
    pub window: Option<usize>,
}

/// The new rows of one sequence.
#[derive(Clone, Debug)]
pub struct AttentionSlice<'a> {
    /// Rows of the batch, at positions `past..past + rows.len()`.
    pub rows: Range<usize>,
    pub past: usize,
    /// Blocks of the sequence from position 0, the new rows' keys and values already written.
    pub blocks: &'a [BlockId],
}

/// `out[r][h] = Σ softmax(q · k) v` for the rows of all `slices`.
///
/// `q` and `out` are `[rows, heads, head_dim]`; rows that no slice names are left alone. Slices are disjoint.
pub fn paged_attention(
    shape: &AttentionShape,
    q: &[f32],
    cache: &KvBlocks,
    slices: &[AttentionSlice<'_>],
    out: &mut [f32],
) {
    assert!(cache.fits(shape.kv_heads, shape.head_dim), "the cache is of another shape");
    assert!(shape.heads.is_multiple_of(shape.kv_heads) && shape.head_dim.is_multiple_of(2), "heads of attention");
    assert_eq!(q.len(), out.len(), "q and out have one shape");
    let group = shape.heads / shape.kv_heads * shape.head_dim;
    let mut outs: Vec<Option<&mut [f32]>> = out.chunks_mut(group).map(Some).collect();
    let mut tasks = Vec::new();
    for slice in slices {
        let positions = slice.past + slice.rows.len();
        assert!(slice.blocks.len() * BLOCK_TOKENS >= positions, "{positions} tokens need more blocks");
        for first in slice.rows.clone().step_by(TASK_ROWS) {
            let rows = first..(first + TASK_ROWS).min(slice.rows.end);
            for head in 0..shape.kv_heads {
                let outs = rows.clone().map(|row| outs[row * shape.kv_heads + head].take());
                let outs = outs.map(|out| out.expect("slices are disjoint")).collect();
                let past = slice.past + first - slice.rows.start;
                tasks.push(Task { shape, q, cache, head, first, past, blocks: slice.blocks, outs });
            }
        }
    }
    if tasks.len() == 1 {
        tasks.into_iter().for_each(|task| Arch::new().dispatch(task));
    } else {
        tasks.into_par_iter().for_each(|task| Arch::new().dispatch(task));
    }
}

/// All query heads of one key-value head, for some rows of one sequence.
struct Task<'a> {
    shape: &'a AttentionShape,
    q: &'a [f32],
    cache: &'a KvBlocks,
    head: usize,
    /// Row of `q` that `outs[0]` belongs to, and its position.
    first: usize,
    past: usize,
    blocks: &'a [BlockId],
    outs: Vec<&'a mut [f32]>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            LANES => self.run::<S, 1>(simd),
            8 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, LANES>(simd),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(mut self, simd: S) {
        let repeats = self.shape.heads / self.shape.kv_heads;
        let queries = self.outs.len() * repeats;
        let width = (self.past + self.outs.len()).next_multiple_of(BLOCK_TOKENS);
        let mut scores = vec![0.0f32; QUERIES * width];
        for first in (0..queries).step_by(QUERIES) {
            // A short last group repeats its last query; the copies are not used.
            let group: [usize; QUERIES] = std::array::from_fn(|i| (first + i).min(queries - 1));
            let seen = group.map(|i| self.seen(i / repeats));
            self.score::<S, V>(simd, group.map(|i| self.query(i)), &seen, &mut scores, width);
            for (i, scores) in scores.chunks_exact_mut(width).enumerate().take(queries - first) {
                let scores = softmax(scores, &seen[i], self.shape.scale);
                self.mix::<S, V>(simd, first + i, scores, seen[i].clone());
            }
        }
    }

    /// Positions that a row sees.
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.past + row + 1;
        let start = self.shape.window.map_or(0, |window| end.saturating_sub(window));
        start..end
    }

    fn query(&self, index: usize) -> &[f32] {
        let repeats = self.shape.heads / self.shape.kv_heads;
        let head = (self.first + index / repeats) * self.shape.heads + self.head * repeats + index % repeats;
        &self.q[head * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// Products of the queries with all keys from the first to the last that any of them sees, block by block.
    #[inline(always)]
    fn score<S: Simd, const V: usize>(
        &self,
        simd: S,
        q: [&[f32]; QUERIES],
        seen: &[Range<usize>; QUERIES],
        scores: &mut [f32],
        width: usize,
    ) {
        let start = seen.iter().map(|seen| seen.start).min().unwrap_or(0) / BLOCK_TOKENS;
        let end = seen.iter().map(|seen| seen.end).max().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        for block in start..end {
            let keys = S::as_simd_f32s(self.cache.keys(self.blocks[block], self.head)).0;
            // Two chains for even and odd dimensions hide the latency of the addition.
            let mut acc = [[[simd.splat_f32s(0.0); V]; 2]; QUERIES];
            for (pair, keys) in keys.chunks_exact(2 * V).enumerate() {
                for i in 0..QUERIES {
                    for chain in 0..2 {
                        let q = simd.splat_f32s(q[i][2 * pair + chain]);
                        for v in 0..V {
                            acc[i][chain][v] = simd.mul_add_f32s(q, keys[chain * V + v], acc[i][chain][v]);
                        }
                    }
                }
            }
            for i in 0..QUERIES {
                let [even, odd] = acc[i];
                let mut sum = even;
                for v in 0..V {
                    sum[v] = simd.add_f32s(even[v], odd[v]);
                }
                scores[i * width + block * BLOCK_TOKENS..][..BLOCK_TOKENS].copy_from_slice(&spread::<S, V>(&sum));
            }
        }
    }

    /// The weighted sum of the values that one query sees, in the order of positions.
    #[inline(always)]
    fn mix<S: Simd, const V: usize>(&mut self, simd: S, query: usize, weights: &[f32], seen: Range<usize>) {
        let repeats = self.shape.heads / self.shape.kv_heads;
        let dim = self.shape.head_dim;
        let (cache, blocks, head) = (self.cache, self.blocks, self.head);
        let value = |position: usize| {
            &cache.values(blocks[position / BLOCK_TOKENS], head)[position % BLOCK_TOKENS * dim..][..dim]
        };
        let out = &mut self.outs[query / repeats][query % repeats * dim..][..dim];
        let mut done = 0;
        while dim - done >= 4 * LANES {
            mix_dims::<S, V, 4>(simd, weights, seen.clone(), |t| &value(t)[done..], &mut out[done..][..4 * LANES]);
            done += 4 * LANES;
        }
        while dim - done >= LANES {
            mix_dims::<S, V, 1>(simd, weights, seen.clone(), |t| &value(t)[done..], &mut out[done..][..LANES]);
            done += LANES;
        }
        for (d, out) in out.iter_mut().enumerate().skip(done) {
            *out = seen.clone().fold(0.0, |sum, t| weights[t].mul_add(value(t)[d], sum));
        }
    }
}

#[inline(always)]
fn mix_dims<'a, S: Simd, const V: usize, const N: usize>(
    simd: S,
    weights: &[f32],
    seen: Range<usize>,
    value: impl Fn(usize) -> &'a [f32],
    out: &mut [f32],
) {
    let mut acc = [[simd.splat_f32s(0.0); V]; N];
    for t in seen {
        let weight = simd.splat_f32s(weights[t]);
        let values = S::as_simd_f32s(&value(t)[..N * LANES]).0;
        for n in 0..N {
            for v in 0..V {
                acc[n][v] = simd.mul_add_f32s(weight, values[n * V + v], acc[n][v]);
            }
        }
    }
    for (out, acc) in out.chunks_exact_mut(LANES).zip(&acc) {
        out.copy_from_slice(&spread::<S, V>(acc));
    }
}

/// Turns the products at `seen` into weights that sum to one; all other places of their blocks become exactly zero.
#[inline(always)]
fn softmax<'a>(scores: &'a mut [f32], seen: &Range<usize>, scale: f32) -> &'a [f32] {
    let mut max = f32::NEG_INFINITY;
    for score in &mut scores[seen.clone()] {
        *score *= scale;
        max = max.max(*score);
    }
    // Whole blocks, so that a position's lane in the sum does not depend on where the window begins.
    let blocks = seen.start / BLOCK_TOKENS * BLOCK_TOKENS..seen.end.next_multiple_of(BLOCK_TOKENS);
    for score in &mut scores[blocks.clone()] {
        *score = exp(*score - max);
    }
    scores[blocks.start..seen.start].fill(0.0);
    scores[seen.end..blocks.end].fill(0.0);
    let sum = sum_by_lane(&scores[blocks], |weight| weight);
    for weight in &mut scores[seen.clone()] {
        *weight /= sum;
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, values};

    const SHAPE: AttentionShape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 40, scale: 0.2, window: None };

    struct Sequence {
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        blocks: Vec<BlockId>,
    }

    /// Blocks are shuffled over the cache and what they held before is not zero.
    fn setup(shape: &AttentionShape, lengths: &[usize]) -> (KvBlocks, Vec<Sequence>) {
        let total: usize = lengths.iter().map(|l| l.div_ceil(BLOCK_TOKENS)).sum();
        let kv = shape.kv_heads * shape.head_dim;
        let mut cache = KvBlocks::new(total + 1, shape.kv_heads, shape.head_dim);
        for block in 0..=total {
            for slot in 0..BLOCK_TOKENS {
                cache.write(BlockId(block as u32), slot, &vec![9.0; kv], &vec![f32::NAN; kv]);
            }
        }
        let mut next = (0..total as u32).rev();
        let sequences = lengths.iter().enumerate().map(|(i, length)| {
            let seed = 10 * i as u64;
            let sequence = Sequence {
                q: values(length * shape.heads * shape.head_dim, seed),
                k: values(length * kv, seed + 1),
                v: values(length * kv, seed + 2),
                blocks: next.by_ref().take(length.div_ceil(BLOCK_TOKENS)).map(BlockId).collect(),
            };
            for (t, (k, v)) in sequence.k.chunks(kv).zip(sequence.v.chunks(kv)).enumerate() {
                cache.write(sequence.blocks[t / BLOCK_TOKENS], t % BLOCK_TOKENS, k, v);
            }
            sequence
        });
        let sequences = sequences.collect();
        (cache, sequences)
    }

    fn reference(shape: &AttentionShape, s: &Sequence) -> Vec<f64> {
        let (dim, heads, kv_heads) = (shape.head_dim, shape.heads, shape.kv_heads);
        let mut out = Vec::new();
        for row in 0..s.q.len() / (heads * dim) {
            let start = shape.window.map_or(0, |w| (row + 1).saturating_sub(w));
            for head in 0..heads {
                let q = &s.q[(row * heads + head) * dim..][..dim];
                let at = |t: usize| (t * kv_heads + head / (heads / kv_heads)) * dim;
                let score = |t: usize| -> f64 {
                    (0..dim).map(|d| f64::from(q[d]) * f64::from(s.k[at(t) + d])).sum::<f64>() * f64::from(shape.scale)
                };
                let weights: Vec<f64> = (start..=row).map(|t| score(t).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..dim).map(|d| {
                    (start..=row).zip(&weights).map(|(t, w)| w / sum * f64::from(s.v[at(t) + d])).sum::<f64>()
                }));
            }
        }
        out
    }

    fn shapes() -> Vec<AttentionShape> {
        let mut shapes = Vec::new();
        for (heads, kv_heads, head_dim) in [(6, 2, 40), (4, 4, 8), (3, 1, 64), (2, 1, 128)] {
            for window in [None, Some(1), Some(7), Some(20)] {
                shapes.push(AttentionShape { heads, kv_heads, head_dim, window, ..SHAPE });
            }
        }
        shapes
    }

    /// Tolerance 2e-6: values are in [-1, 1), so the error of a few tens of roundings.
    #[test]
    fn prefill_agrees_with_a_scalar_f64_attention() {
        for shape in shapes() {
            let (cache, sequences) = setup(&shape, &[37]);
            let s = &sequences[0];
            let mut out = vec![0.0; s.q.len()];
            let slice = AttentionSlice { rows: 0..37, past: 0, blocks: &s.blocks };
            paged_attention(&shape, &s.q, &cache, &[slice], &mut out);
            assert_close(&out, &reference(&shape, s), 2e-6);
        }
    }

    #[test]
    fn chunks_decode_and_company_change_no_bit() {
        for shape in shapes() {
            let (cache, sequences) = setup(&shape, &[37, 5, 50]);
            let width = shape.heads * shape.head_dim;
            let whole = |s: &Sequence| {
                let mut out = vec![0.0; s.q.len()];
                let slice = AttentionSlice { rows: 0..s.q.len() / width, past: 0, blocks: &s.blocks };
                paged_attention(&shape, &s.q, &cache, &[slice], &mut out);
                out
            };
            let want: Vec<_> = sequences.iter().map(whole).collect();
            // One step: the tail of the first, all of the second, one token of the third.
            let parts = [(20, 37), (0, 5), (49, 50)];
            let (mut q, mut slices) = (Vec::new(), Vec::new());
            for (s, (from, to)) in sequences.iter().zip(parts) {
                let first = q.len() / width;
                q.extend_from_slice(&s.q[from * width..to * width]);
                slices.push(AttentionSlice { rows: first..first + to - from, past: from, blocks: &s.blocks });
            }
            let mut out = vec![0.0; q.len()];
            paged_attention(&shape, &q, &cache, &slices, &mut out);
            for ((want, slice), (from, to)) in want.iter().zip(&slices).zip(parts) {
                let got = &out[slice.rows.start * width..slice.rows.end * width];
                assert_same_bits(got, &want[from * width..to * width]);
            }
        }
    }
}
