//! Causal attention of grouped queries over paged keys and values, for prefill and decode alike.
//!
//! A query's result depends on its position and on the keys and values before it, never on the other queries of the
//! step, nor on the threads: cutting a prompt into chunks, or sharing a step with others, changes no bit. Contexts are
//! gone through in parts of a fixed length, whose sums are merged in order. It writes no keys.

mod dispatch;
mod kernel;
mod lanes;
mod part;
mod tile;

use std::cmp::Reverse;
use std::ops::Range;

use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::kv_blocks::{BLOCK_TOKENS, BlockId, Blocks, Data, KvBlocks, padded};
use crate::split::Split;
use part::Gathered;
use tile::{Context, PART_TOKENS, Queries};

/// Rows of a sequence in one task.
const TASK_ROWS: usize = 16;
/// With fewer tasks than this for each thread, contexts are cut over threads too.
const TASKS_PER_THREAD: usize = 2;

/// What all sequences of a layer have in common.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub heads: usize,
    /// Divides `heads`.
    pub kv_heads: usize,
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
/// `q` and `out` are `[rows, heads, head_dim]`; rows that no slice names are left alone. Slices are disjoint. A cache of
/// f32 is computed with in f32. With products of bf16 (`Isa::Avx512Bf16`) and a cache of bf16, queries and weights are
/// rounded to bf16 as well; all sums are f32.
pub fn paged_attention(
    cpu: &Cpu,
    shape: &AttentionShape,
    q: &[f32],
    cache: &KvBlocks,
    slices: &[AttentionSlice<'_>],
    out: &mut [f32],
) {
    check(shape, q, cache, slices, out);
    let mut tasks = tasks(shape, slices);
    // The longest first, so that none is left over at the end.
    tasks.sort_by_key(|task| Reverse(task.rows.len() * task.positions().len()));
    let step = Step { isa: cpu.isa(), shape, q, cache, out: Split::new(out) };
    if tasks.len() < TASKS_PER_THREAD * cpu.threads() && cpu.threads() > 1 {
        return by_parts(cpu, &step, &tasks);
    }
    cpu.each(tasks.len(), |i| {
        let mut gathered = step.nothing(&tasks[i]);
        step.attend(&tasks[i], tasks[i].parts(), &mut gathered);
        step.finish(&tasks[i], &gathered);
    });
}

/// Few tasks for the threads: each part of a context is one.
fn by_parts(cpu: &Cpu, step: &Step<'_>, tasks: &[Task<'_>]) {
    let mut parts: Vec<_> = tasks.iter().flat_map(|task| task.parts().map(move |part| (task, part))).collect();
    let mut gathered: Vec<_> = parts.iter().map(|(task, _)| step.nothing(task)).collect();
    cpu.each_chunk(&mut gathered, 1, |i, gathered| {
        let (task, part) = &parts[i];
        step.attend(task, *part..*part + 1, &mut gathered[0]);
    });
    let mut all = parts.drain(..).zip(&gathered).peekable();
    for task in tasks {
        let mut total = step.nothing(task);
        while let Some((_, gathered)) = all.next_if(|((of, _), _)| std::ptr::eq(*of, task)) {
            part::add_all(step.isa, &mut total, gathered);
        }
        step.finish(task, &total);
    }
}

/// What all tasks of a call need.
struct Step<'a> {
    isa: Isa,
    shape: &'a AttentionShape,
    q: &'a [f32],
    cache: &'a KvBlocks,
    out: Split<'a, f32>,
}

/// All query heads of one key-value head, for some rows of one sequence.
struct Task<'a> {
    head: usize,
    /// Rows of the batch, and the position of the first.
    rows: Range<usize>,
    past: usize,
    window: Option<usize>,
    blocks: &'a [BlockId],
}

fn tasks<'a>(shape: &AttentionShape, slices: &[AttentionSlice<'a>]) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    for slice in slices {
        for first in slice.rows.clone().step_by(TASK_ROWS) {
            let rows = first..(first + TASK_ROWS).min(slice.rows.end);
            let past = slice.past + first - slice.rows.start;
            tasks.extend((0..shape.kv_heads).map(|head| Task {
                head,
                rows: rows.clone(),
                past,
                window: shape.window,
                blocks: slice.blocks,
            }));
        }
    }
    tasks
}

impl Task<'_> {
    /// Positions that a row of the task sees.
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.past + row + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Positions that any of its rows sees.
    fn positions(&self) -> Range<usize> {
        self.seen(0).start..self.seen(self.rows.len() - 1).end
    }

    /// Parts of the context with these positions.
    fn parts(&self) -> Range<usize> {
        let positions = self.positions();
        positions.start / PART_TOKENS..positions.end.div_ceil(PART_TOKENS)
    }
}

impl Step<'_> {
    fn repeats(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    fn nothing(&self, task: &Task<'_>) -> Gathered {
        Gathered::nothing(task.rows.len() * self.repeats(), padded(self.shape.head_dim))
    }

    /// Place of the first of a row's queries in `q` and `out`.
    fn start(&self, task: &Task<'_>, row: usize) -> usize {
        ((task.rows.start + row) * self.shape.heads + task.head * self.repeats()) * self.shape.head_dim
    }

    fn attend(&self, task: &Task<'_>, parts: Range<usize>, gathered: &mut Gathered) {
        let (repeats, dim) = (self.repeats(), self.shape.head_dim);
        let rows = 0..task.rows.len();
        let starts: Vec<_> = rows.clone().flat_map(|row| (0..repeats).map(move |i| (row, i))).collect();
        let starts: Vec<_> = starts.into_iter().map(|(row, i)| self.start(task, row) + i * dim).collect();
        let seen: Vec<_> = rows.flat_map(|row| std::iter::repeat_n(task.seen(row), repeats)).collect();
        let scale = self.shape.scale;
        let queries = Queries { q: self.q, starts: &starts, seen: &seen, head_dim: dim, scale };
        match &self.cache.data {
            Data::F32(blocks) => dispatch::attend_f32(self.isa, &task.context(blocks), &queries, parts, gathered),
            Data::Bf16(blocks) => dispatch::attend_bf16(self.isa, &task.context(blocks), &queries, parts, gathered),
        }
    }

    fn finish(&self, task: &Task<'_>, gathered: &Gathered) {
        let dim = self.shape.head_dim;
        for row in 0..task.rows.len() {
            let start = self.start(task, row);
            // SAFETY: slices are disjoint, and a task has its rows and head for itself.
            let out = unsafe { self.out.part(start..start + self.repeats() * dim) };
            for (i, out) in out.chunks_exact_mut(dim).enumerate() {
                gathered.finish(row * self.repeats() + i, out);
            }
        }
    }
}

impl<'a> Task<'a> {
    fn context<W>(&self, blocks: &'a Blocks<W>) -> Context<'a, W> {
        Context { blocks, table: self.blocks, head: self.head }
    }
}

fn check(shape: &AttentionShape, q: &[f32], cache: &KvBlocks, slices: &[AttentionSlice<'_>], out: &[f32]) {
    assert!(cache.fits(shape.kv_heads, shape.head_dim), "the cache is of another shape");
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "heads of attention");
    assert!(shape.window != Some(0), "a query sees itself");
    assert_eq!(q.len(), out.len(), "q and out have one shape");
    let rows = q.len() / (shape.heads * shape.head_dim);
    let mut ranges: Vec<_> = slices.iter().map(|slice| (slice.rows.start, slice.rows.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.last().is_none_or(|last| last.1 <= rows), "rows of the batch");
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "slices are disjoint");
    for slice in slices {
        let positions = slice.past + slice.rows.len();
        assert!(slice.blocks.len() * BLOCK_TOKENS >= positions, "{positions} tokens need more blocks");
    }
}

#[cfg(test)]
mod tests;
