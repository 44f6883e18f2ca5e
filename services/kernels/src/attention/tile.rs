//! Some queries of one key-value head over one part of their context: scores, weights, weighted sum of values.
//!
//! A query's operations and their order follow from its position alone. Queries that share a pass see all of a block, or
//! the block is done for each of them by itself: nothing that a query must not see is ever multiplied, not even by zero.

#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use std::ops::Range;

use pulp::bytemuck::Pod;

use super::kernel::Kernel;
use super::lanes::Lanes;
use super::part::{Gathered, Weights};
use crate::LANES;
use crate::activation::exp;
use crate::kv_blocks::{BLOCK_TOKENS, BlockId, Blocks, padded};
use crate::reduce::sum_lanes;

/// Blocks of one part of a context. Parts begin at its multiples, whoever computes them, and so decide the order of sums.
pub const PART_BLOCKS: usize = 16;
pub const PART_TOKENS: usize = PART_BLOCKS * BLOCK_TOKENS;
/// Scores of one query; a little more than a part, so that those of several queries do not fall into one set of the cache.
const STRIDE: usize = PART_BLOCKS + 1;
/// Blocks of keys between the one that is computed and the one that is asked for. Values are asked for while the keys of
/// their part are computed, and the next part's keys with the values: both then wait in the second level of the cache.
const AHEAD: usize = 4;
/// The most queries of a tile, of all instruction sets.
const QUERIES_MAX: usize = 8;

/// Products of one query with the keys of a part, then its weights.
type Scores = [[f32; LANES]; STRIDE];

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
    let width = padded(queries.head_dim);
    let mut scores = vec![[[0.0; LANES]; STRIDE]; K::Lanes::QUERIES];
    let mut mixed = vec![0.0; K::Lanes::QUERIES * width];
    for part in parts {
        let tokens = part * PART_TOKENS..(part + 1) * PART_TOKENS;
        for first in (0..queries.starts.len()).step_by(K::Lanes::QUERIES) {
            let last = (first + K::Lanes::QUERIES).min(queries.starts.len());
            let mut tile = Tile {
                context,
                factors: &factors[first * pairs..last * pairs],
                first_block: tokens.start / BLOCK_TOKENS,
                seen: &array(&queries.seen[first..last], &tokens)[..last - first],
                scores: &mut scores,
                width,
                mixed: &mut mixed,
            };
            if tile.seen.iter().all(Range::is_empty) {
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { tile.score::<K>() };
            // SAFETY: as above.
            let weights = unsafe { tile.weigh::<K>(queries.scale) };
            // SAFETY: as above.
            unsafe { tile.mix::<K>() };
            for (i, weights) in weights.into_iter().enumerate().take(last - first) {
                gathered.add(first + i, &mixed[i * width..][..width], weights);
            }
        }
    }
}

/// What queries see of a part.
#[inline(always)]
fn array(seen: &[Range<usize>], tokens: &Range<usize>) -> [Range<usize>; QUERIES_MAX] {
    let mut here = [const { 0..0 }; QUERIES_MAX];
    for (here, seen) in here.iter_mut().zip(seen) {
        *here = seen.start.max(tokens.start)..seen.end.min(tokens.end);
    }
    here
}

/// Queries that go through one part together.
struct Tile<'a, W, F> {
    context: &'a Context<'a, W>,
    /// `[pair of dimensions][query]`
    factors: &'a [F],
    first_block: usize,
    /// Tokens of this part that each query sees.
    seen: &'a [Range<usize>],
    scores: &'a mut [Scores],
    /// Of one query in `mixed`.
    width: usize,
    mixed: &'a mut [f32],
}

/// Calls a method with the number of queries as a constant, so that their sums are registers.
macro_rules! for_queries {
    ($tile:ident.$method:ident::<$kernel:ty $(, $constant:literal)?>($($arg:expr),*)) => {
        match $tile.seen.len() {
            1 => $tile.$method::<$kernel, 1 $(, $constant)?>($($arg),*),
            2 => $tile.$method::<$kernel, 2 $(, $constant)?>($($arg),*),
            3 => $tile.$method::<$kernel, 3 $(, $constant)?>($($arg),*),
            4 => $tile.$method::<$kernel, 4 $(, $constant)?>($($arg),*),
            5 if <$kernel as Kernel>::Lanes::QUERIES > 4 => $tile.$method::<$kernel, 5 $(, $constant)?>($($arg),*),
            6 if <$kernel as Kernel>::Lanes::QUERIES > 4 => $tile.$method::<$kernel, 6 $(, $constant)?>($($arg),*),
            7 if <$kernel as Kernel>::Lanes::QUERIES > 4 => $tile.$method::<$kernel, 7 $(, $constant)?>($($arg),*),
            8 if <$kernel as Kernel>::Lanes::QUERIES > 4 => $tile.$method::<$kernel, 8 $(, $constant)?>($($arg),*),
            count => unreachable!("{count} queries in a tile"),
        }
    };
}

impl<W: Pod + Send, F: Copy> Tile<'_, W, F> {
    /// Products with all keys from the first to the last block that any of the queries sees.
    #[inline(always)]
    unsafe fn score<K: Kernel<Word = W, Factor = F>>(&mut self) {
        let seen = self.seen.iter().filter(|seen| !seen.is_empty());
        let start = seen.clone().map(|seen| seen.start).min().unwrap_or(0) / BLOCK_TOKENS;
        let end = seen.map(|seen| seen.end).max().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        // SAFETY: the caller's promise.
        unsafe { for_queries!(self.score_blocks::<K>(start..end)) }
    }

    #[inline(always)]
    unsafe fn score_blocks<K: Kernel<Word = W, Factor = F>, const Q: usize>(&mut self, blocks: Range<usize>) {
        let pairs = self.factors.len() / Q;
        let scores = &mut self.scores[..Q];
        for block in blocks.clone() {
            let keys = self.context.keys(block).as_ptr();
            let ahead = self.context.keys((block + AHEAD).min(blocks.end - 1)).as_ptr();
            let values = self.context.values(block).as_ptr();
            // SAFETY: the caller's promise; `pairs` pairs of keys are in a block and `Q` factors in each pair.
            unsafe {
                let mut sums = [K::Lanes::splat(0.0); Q];
                for pair in 0..pairs {
                    let at = pair * K::WORDS * LANES;
                    for line in 0..K::WORDS {
                        K::Lanes::prefetch(ahead.wrapping_add(at + line * LANES));
                        K::Lanes::prefetch_far(values.wrapping_add(at + line * LANES));
                    }
                    let keys = K::load(keys.add(at), LANES);
                    for i in 0..Q {
                        sums[i] = K::add_product(sums[i], keys, *self.factors.get_unchecked(pair * Q + i));
                    }
                }
                for i in 0..Q {
                    sums[i].store(scores[i][block - self.first_block].as_mut_ptr());
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn weigh<K: Kernel>(&mut self, scale: f32) -> [Weights; QUERIES_MAX] {
        let mut weights = [Weights { max: f32::NEG_INFINITY, sum: 0.0 }; QUERIES_MAX];
        let base = self.first_block * BLOCK_TOKENS;
        for ((weights, scores), seen) in weights.iter_mut().zip(&mut *self.scores).zip(self.seen) {
            if !seen.is_empty() {
                // SAFETY: the caller's promise.
                *weights = unsafe { weigh::<K>(scores, seen.start - base..seen.end - base, scale) };
            }
        }
        weights
    }

    /// Weighted sums of the values: each query's own beginning, the blocks that all see whole, each query's own end.
    #[inline(always)]
    unsafe fn mix<K: Kernel<Word = W, Factor = F>>(&mut self) {
        self.mixed.fill(0.0);
        let start = self.seen.iter().map(|seen| seen.start).max().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        let end = self.seen.iter().map(|seen| seen.end).min().unwrap_or(0) / BLOCK_TOKENS;
        let shared = match start < end {
            true => start * BLOCK_TOKENS..end * BLOCK_TOKENS,
            false => usize::MAX..usize::MAX,
        };
        for before in [true, false] {
            for (i, seen) in self.seen.iter().enumerate() {
                let own = if before { seen.start..seen.end.min(shared.start) } else { shared.end..seen.end };
                // SAFETY: the caller's promise.
                unsafe { self.mix_alone::<K>(i, own) };
            }
            if before && start < end {
                // SAFETY: the caller's promise.
                unsafe { self.mix_shared::<K>(start..end) };
            }
        }
    }

    #[inline(always)]
    unsafe fn mix_shared<K: Kernel<Word = W, Factor = F>>(&mut self, blocks: Range<usize>) {
        let vectors = self.width / LANES;
        let mut vector = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while K::Lanes::DIMS == 2 && vector + 2 <= vectors {
                for_queries!(self.mix_blocks::<K, 2>(blocks.clone(), vector));
                vector += 2;
            }
            while vector < vectors {
                for_queries!(self.mix_blocks::<K, 1>(blocks.clone(), vector));
                vector += 1;
            }
        }
    }

    /// `D` vectors of values from `vector` on, of whole blocks, for all queries.
    #[inline(always)]
    unsafe fn mix_blocks<K, const Q: usize, const D: usize>(&mut self, blocks: Range<usize>, vector: usize)
    where
        K: Kernel<Word = W, Factor = F>,
    {
        let width = self.width;
        let scores = &self.scores[..Q];
        // SAFETY: the caller's promise; `vector + D` vectors are in each row of values and of sums.
        unsafe {
            let mixed = self.mixed.as_mut_ptr().add(vector * LANES);
            let mut sums = [[K::Lanes::splat(0.0); D]; Q];
            for i in 0..Q {
                for d in 0..D {
                    sums[i][d] = K::Lanes::load(mixed.add(i * width + d * LANES));
                }
            }
            for block in blocks.clone() {
                let values = self.context.values(block).as_ptr();
                let ahead = self.context.keys((block + PART_BLOCKS).min(self.context.table.len() - 1)).as_ptr();
                for pair in 0..BLOCK_TOKENS / 2 {
                    let at = pair * K::WORDS * width + vector * LANES;
                    let mut loaded = [K::load(values.add(at), width); D];
                    for d in 0..D {
                        for row in 0..K::WORDS {
                            K::Lanes::prefetch_far(ahead.wrapping_add(at + row * width + d * LANES));
                        }
                        loaded[d] = K::load(values.add(at + d * LANES), width);
                    }
                    for i in 0..Q {
                        let weight = K::weight(&scores[i][block - self.first_block], pair);
                        for d in 0..D {
                            sums[i][d] = K::add_product(sums[i][d], loaded[d], weight);
                        }
                    }
                }
            }
            for i in 0..Q {
                for d in 0..D {
                    sums[i][d].store(mixed.add(i * width + d * LANES));
                }
            }
        }
    }

    /// Adds the values of some tokens for one query.
    #[inline(always)]
    unsafe fn mix_alone<K: Kernel<Word = W, Factor = F>>(&mut self, query: usize, tokens: Range<usize>) {
        let vectors = self.width / LANES;
        let mut vector = if tokens.is_empty() { vectors } else { 0 };
        // SAFETY: the caller's promise.
        unsafe {
            while vector + 4 <= vectors {
                self.mix_tokens::<K, 4>(query, tokens.clone(), vector);
                vector += 4;
            }
            while vector < vectors {
                self.mix_tokens::<K, 1>(query, tokens.clone(), vector);
                vector += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn mix_tokens<K, const D: usize>(&mut self, query: usize, tokens: Range<usize>, vector: usize)
    where
        K: Kernel<Word = W, Factor = F>,
    {
        let width = self.width;
        // SAFETY: the caller's promise; `vector + D` vectors are in each row of values and of sums.
        unsafe {
            let mixed = self.mixed.as_mut_ptr().add(query * width + vector * LANES);
            let mut sums = [K::Lanes::splat(0.0); D];
            for d in 0..D {
                sums[d] = K::Lanes::load(mixed.add(d * LANES));
            }
            for pair in tokens.start / 2..tokens.end.div_ceil(2) {
                let (block, in_block) = (pair * 2 / BLOCK_TOKENS, pair % (BLOCK_TOKENS / 2));
                let values = self.context.values(block).as_ptr().add(in_block * K::WORDS * width + vector * LANES);
                let weight = K::weight(&self.scores[query][block - self.first_block], in_block);
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
                sums[d].store(mixed.add(d * LANES));
            }
        }
    }
}

impl<W: Pod + Send> Context<'_, W> {
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
unsafe fn weigh<K: Kernel>(scores: &mut Scores, seen: Range<usize>, scale: f32) -> Weights {
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
        // SAFETY: the caller's promise.
        unsafe { K::pack(block) };
    }
    Weights { max, sum: sum_lanes(&sums) }
}
