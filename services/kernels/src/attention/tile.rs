//! Some queries of one key-value head over one part of their context: scores, weights, weighted sum of values.
//!
//! A query's operations and their order follow from its position alone. Queries that share a pass see all of a block, or
//! the block is done for each of them by itself: nothing that a query must not see is ever multiplied, not even by zero.

use std::ops::Range;

use super::kernel::Kernel;
use super::lanes::Lanes;
use super::part::{Gathered, Weights};
use crate::LANES;
use crate::activation::exp;
use crate::kv_blocks::{BLOCK_TOKENS, BlockId, Blocks};
use crate::reduce::sum_lanes;

/// Blocks of one part of a context. Parts begin at its multiples, whoever computes them, and so decide the order of sums.
pub const PART_BLOCKS: usize = 16;
pub const PART_TOKENS: usize = PART_BLOCKS * BLOCK_TOKENS;
/// Scores of one query; a little more than a part, so that those of several queries do not fall into one set of the cache.
const STRIDE: usize = PART_BLOCKS + 1;
/// Blocks between the one that is computed and the one that is asked for.
const AHEAD: usize = 2;

/// Keys and values of one sequence and head.
pub struct Context<'a, W> {
    pub blocks: &'a Blocks<W>,
    pub table: &'a [BlockId],
    pub head: usize,
}

/// Some queries of one row after the other, and what each of them sees.
pub struct Queries<'a> {
    /// `[query, head_dim]`, at `starts`.
    pub q: &'a [f32],
    pub starts: &'a [usize],
    pub seen: &'a [Range<usize>],
    pub head_dim: usize,
    pub scale: f32,
}

/// Adds what the queries see in `parts` of their context to `gathered`.
///
/// # Safety
/// The machine has the instructions of the kernel.
#[inline(always)]
pub unsafe fn attend<K: Kernel>(
    context: &Context<'_, K::Word>,
    queries: &Queries<'_>,
    parts: Range<usize>,
    gathered: &mut Gathered,
) where
    K::Word: Copy + Default + Send,
{
    let pairs = queries.head_dim.div_ceil(2);
    let mut factors = Vec::with_capacity(queries.starts.len() * pairs);
    for starts in queries.starts.chunks(K::Lanes::QUERIES) {
        for pair in 0..pairs {
            for start in starts {
                let q = &queries.q[*start..][..queries.head_dim];
                factors.push(K::factor(q[2 * pair], q.get(2 * pair + 1).copied().unwrap_or(0.0)));
            }
        }
    }
    let mut mixed = vec![0.0; K::Lanes::QUERIES * crate::kv_blocks::padded(queries.head_dim)];
    for part in parts {
        let tokens = part * PART_TOKENS..(part + 1) * PART_TOKENS;
        for first in (0..queries.starts.len()).step_by(K::Lanes::QUERIES) {
            let count = K::Lanes::QUERIES.min(queries.starts.len() - first);
            let mut tile = Tile {
                context,
                factors: &factors[first * pairs..][..count * pairs],
                seen: &queries.seen[first..first + count],
                tokens: tokens.clone(),
                scale: queries.scale,
                mixed: &mut mixed,
            };
            let add = |i: usize, mixed: &[f32], weights: Weights| gathered.add(first + i, mixed, weights);
            // SAFETY: the caller's promise.
            unsafe {
                match count {
                    1 => tile.run::<K, 1>(add),
                    2 => tile.run::<K, 2>(add),
                    3 => tile.run::<K, 3>(add),
                    4 => tile.run::<K, 4>(add),
                    5 => tile.run::<K, 5>(add),
                    6 => tile.run::<K, 6>(add),
                    7 => tile.run::<K, 7>(add),
                    _ => tile.run::<K, 8>(add),
                }
            }
        }
    }
}

struct Tile<'a, W, F> {
    context: &'a Context<'a, W>,
    /// `[pair of dimensions][query]`
    factors: &'a [F],
    seen: &'a [Range<usize>],
    /// Of this part.
    tokens: Range<usize>,
    scale: f32,
    /// `[query][padded head_dim]`
    mixed: &'a mut [f32],
}

type Scores<const Q: usize> = [[[f32; LANES]; STRIDE]; Q];

impl<W: Copy + Default + Send, F: Copy> Tile<'_, W, F> {
    #[inline(always)]
    unsafe fn run<K, const Q: usize>(&mut self, mut add: impl FnMut(usize, &[f32], Weights))
    where
        K: Kernel<Word = W, Factor = F>,
    {
        let mut seen = [0..0, 0..0, 0..0, 0..0, 0..0, 0..0, 0..0, 0..0];
        for (here, seen) in seen.iter_mut().zip(self.seen) {
            *here = seen.start.max(self.tokens.start)..seen.end.min(self.tokens.end);
        }
        let seen = &seen[..Q];
        if seen.iter().all(Range::is_empty) {
            return;
        }
        let mut scores: Scores<Q> = [[[0.0; LANES]; STRIDE]; Q];
        // SAFETY: the caller's promise.
        unsafe { self.score::<K, Q>(seen, &mut scores) };
        let base = self.tokens.start;
        let mut weights = [Weights { max: f32::NEG_INFINITY, sum: 0.0 }; Q];
        for i in 0..Q {
            if !seen[i].is_empty() {
                weights[i] = weigh::<K>(&mut scores[i], seen[i].start - base..seen[i].end - base, self.scale);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.mix::<K, Q>(seen, &scores) };
        let width = self.mixed.len() / K::Lanes::QUERIES;
        for (i, weights) in weights.into_iter().enumerate() {
            add(i, &self.mixed[i * width..][..width], weights);
        }
    }

    /// Products with all keys from the first to the last block that any of the queries sees.
    #[inline(always)]
    unsafe fn score<K, const Q: usize>(&self, seen: &[Range<usize>], scores: &mut Scores<Q>)
    where
        K: Kernel<Word = W, Factor = F>,
    {
        let seen = seen.iter().filter(|seen| !seen.is_empty());
        let start = seen.clone().map(|seen| seen.start).min().unwrap_or(0) / BLOCK_TOKENS;
        let end = seen.map(|seen| seen.end).max().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        let first = self.tokens.start / BLOCK_TOKENS;
        let pairs = self.factors.len() / Q;
        for block in start..end {
            let keys = self.context.keys(block).as_ptr();
            // The last blocks of keys bring the first values.
            let ahead = match block + AHEAD < end {
                true => self.context.keys(block + AHEAD).as_ptr(),
                false => self.context.values((block + AHEAD - end + start).min(end - 1)).as_ptr(),
            };
            // SAFETY: the caller's promise; `pairs` pairs of keys are in a block and `Q` factors in each pair.
            unsafe {
                let mut sums = [K::Lanes::splat(0.0); Q];
                for pair in 0..pairs {
                    let at = pair * K::WORDS * LANES;
                    for line in 0..K::WORDS {
                        K::Lanes::prefetch(ahead.wrapping_add(at + line * LANES));
                    }
                    let keys = K::load(keys.add(at), LANES);
                    for i in 0..Q {
                        sums[i] = K::add_product(sums[i], keys, *self.factors.get_unchecked(pair * Q + i));
                    }
                }
                for i in 0..Q {
                    sums[i].store(scores[i][block - first].as_mut_ptr());
                }
            }
        }
    }

    /// Weighted sums of the values: each query's own beginning, the blocks that all see whole, each query's own end.
    #[inline(always)]
    unsafe fn mix<K, const Q: usize>(&mut self, seen: &[Range<usize>], scores: &Scores<Q>)
    where
        K: Kernel<Word = W, Factor = F>,
    {
        let width = self.mixed.len() / K::Lanes::QUERIES;
        let vectors = width / LANES;
        self.mixed.fill(0.0);
        let start = seen.iter().map(|seen| seen.start).max().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        let end = seen.iter().map(|seen| seen.end).min().unwrap_or(0) / BLOCK_TOKENS;
        let (head, tail) = match start < end {
            true => (start * BLOCK_TOKENS, end * BLOCK_TOKENS),
            false => (usize::MAX, usize::MAX),
        };
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..Q {
                self.mix_alone::<K>(&scores[i], i * width, seen[i].start..seen[i].end.min(head));
            }
            if start < end {
                let mut vector = 0;
                while vector + K::Lanes::DIMS <= vectors {
                    match K::Lanes::DIMS {
                        2 => self.mix_blocks::<K, Q, 2>(scores, start..end, vector),
                        _ => self.mix_blocks::<K, Q, 1>(scores, start..end, vector),
                    }
                    vector += K::Lanes::DIMS;
                }
                if vector < vectors {
                    self.mix_blocks::<K, Q, 1>(scores, start..end, vector);
                }
                for i in 0..Q {
                    self.mix_alone::<K>(&scores[i], i * width, tail..seen[i].end);
                }
            }
        }
    }

    /// `D` vectors of values from `vector` on, of whole blocks, for all queries.
    #[inline(always)]
    unsafe fn mix_blocks<K, const Q: usize, const D: usize>(
        &mut self,
        scores: &Scores<Q>,
        blocks: Range<usize>,
        vector: usize,
    ) where
        K: Kernel<Word = W, Factor = F>,
    {
        let width = self.mixed.len() / K::Lanes::QUERIES;
        let first = self.tokens.start / BLOCK_TOKENS;
        // SAFETY: the caller's promise; `vector + D` vectors are in each row of values and of sums.
        unsafe {
            let mut sums = [[K::Lanes::splat(0.0); D]; Q];
            for i in 0..Q {
                for d in 0..D {
                    sums[i][d] = K::Lanes::load(self.mixed.as_ptr().add(i * width + (vector + d) * LANES));
                }
            }
            for block in blocks.clone() {
                let values = self.context.values(block).as_ptr();
                let ahead = self.context.values((block + AHEAD).min(blocks.end - 1)).as_ptr();
                for pair in 0..BLOCK_TOKENS / 2 {
                    let at = pair * K::WORDS * width + vector * LANES;
                    let mut loaded = [K::load(values.add(at), width); D];
                    for d in 0..D {
                        K::Lanes::prefetch(ahead.wrapping_add(at + d * LANES));
                        loaded[d] = K::load(values.add(at + d * LANES), width);
                    }
                    for i in 0..Q {
                        let weight = K::weight(&scores[i][block - first], pair);
                        for d in 0..D {
                            sums[i][d] = K::add_product(sums[i][d], loaded[d], weight);
                        }
                    }
                }
            }
            for i in 0..Q {
                for d in 0..D {
                    sums[i][d].store(self.mixed.as_mut_ptr().add(i * width + (vector + d) * LANES));
                }
            }
        }
    }

    /// Adds the values of `tokens` to the sum at `at`, for one query.
    #[inline(always)]
    unsafe fn mix_alone<K>(&mut self, scores: &[[f32; LANES]; STRIDE], at: usize, tokens: Range<usize>)
    where
        K: Kernel<Word = W, Factor = F>,
    {
        if tokens.is_empty() {
            return;
        }
        let vectors = self.mixed.len() / K::Lanes::QUERIES / LANES;
        let mut vector = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while vector + 4 <= vectors {
                self.mix_tokens::<K, 4>(scores, at, tokens.clone(), vector);
                vector += 4;
            }
            while vector < vectors {
                self.mix_tokens::<K, 1>(scores, at, tokens.clone(), vector);
                vector += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn mix_tokens<K, const D: usize>(
        &mut self,
        scores: &[[f32; LANES]; STRIDE],
        at: usize,
        tokens: Range<usize>,
        vector: usize,
    ) where
        K: Kernel<Word = W, Factor = F>,
    {
        let width = self.mixed.len() / K::Lanes::QUERIES;
        let first = self.tokens.start / BLOCK_TOKENS;
        // SAFETY: the caller's promise; `vector + D` vectors are in each row of values and of sums.
        unsafe {
            let out = self.mixed.as_mut_ptr().add(at + vector * LANES);
            let mut sums = [K::Lanes::splat(0.0); D];
            for d in 0..D {
                sums[d] = K::Lanes::load(out.add(d * LANES));
            }
            for pair in tokens.start / 2..tokens.end.div_ceil(2) {
                let (block, in_block) = (pair * 2 / BLOCK_TOKENS, pair % (BLOCK_TOKENS / 2));
                let values = self.context.values(block).as_ptr().add(in_block * K::WORDS * width + vector * LANES);
                let weight = K::weight(&scores[block - first], in_block);
                for d in 0..D {
                    let mut loaded = K::load(values.add(d * LANES), width);
                    if 2 * pair < tokens.start {
                        loaded = K::only(loaded, true);
                    }
                    if 2 * pair + 1 >= tokens.end {
                        loaded = K::only(loaded, false);
                    }
                    sums[d] = K::add_product(sums[d], loaded, weight);
                }
            }
            for d in 0..D {
                sums[d].store(out.add(d * LANES));
            }
        }
    }
}

impl<W: Copy + Default + Send> Context<'_, W> {
    #[inline(always)]
    fn keys(&self, block: usize) -> &[W] {
        self.blocks.keys(self.table[block], self.head)
    }

    #[inline(always)]
    fn values(&self, block: usize) -> &[W] {
        self.blocks.values(self.table[block], self.head)
    }
}

/// Turns products at the tokens `seen` of a part into weights relative to the largest, packed; all other places of their
/// blocks become exactly zero.
#[inline(always)]
fn weigh<K: Kernel>(scores: &mut [[f32; LANES]; STRIDE], seen: Range<usize>, scale: f32) -> Weights {
    let blocks = seen.start / BLOCK_TOKENS..seen.end.div_ceil(BLOCK_TOKENS);
    let unseen = [blocks.start * BLOCK_TOKENS..seen.start, seen.end..blocks.end * BLOCK_TOKENS];
    let flat = scores.as_flattened_mut();
    unseen.iter().for_each(|unseen| flat[unseen.clone()].fill(f32::NEG_INFINITY));
    let scores = &mut scores[blocks.clone()];
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for block in &mut *scores {
        for i in 0..LANES {
            block[i] *= scale;
            maxima[i] = if block[i] > maxima[i] { block[i] } else { maxima[i] };
        }
    }
    let max = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for block in &mut *scores {
        for i in 0..LANES {
            block[i] = K::round(exp(block[i] - max));
        }
    }
    let flat = scores.as_flattened_mut();
    for unseen in unseen {
        flat[unseen.start - blocks.start * BLOCK_TOKENS..unseen.end - blocks.start * BLOCK_TOKENS].fill(0.0);
    }
    for block in scores {
        for i in 0..LANES {
            sums[i] += block[i];
        }
        K::pack(block);
    }
    Weights { max, sum: sum_lanes(&sums) }
}
