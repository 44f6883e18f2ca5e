//! Gradients through causal attention of grouped queries over whole sequences.
//!
//! Probabilities are computed again from queries and keys, 16 queries at a time: nothing of the size of a sequence squared
//! is kept (Dao et al., "FlashAttention", 2022, without its tiling of keys). One sequence and one key-value head are one
//! task, whose sums run over the positions in order: no bit depends on threads or on other sequences.

mod head;

use std::cmp::Reverse;
use std::ops::Range;

use crate::attention::AttentionShape;
use crate::cpu::Cpu;
use crate::split::Split;
use head::Head;

/// What went into an attention, what came out, and the gradient of that: queries and keys as they were multiplied.
#[derive(Clone, Copy)]
pub struct AttentionRows<'a> {
    /// `[rows, heads, head_dim]`
    pub q: &'a [f32],
    /// `[rows, kv_heads, head_dim]`
    pub k: &'a [f32],
    /// `[rows, kv_heads, head_dim]`
    pub v: &'a [f32],
    /// `[rows, heads, head_dim]`, as [`crate::paged_attention`] gave it.
    pub out: &'a [f32],
    /// `[rows, heads, head_dim]`
    pub d_out: &'a [f32],
}

/// Writes the gradients with respect to queries, keys and values of each of `sequences`: rows that follow one another, at
/// the positions from 0 on. Rows of no sequence are left alone.
///
/// # Panics
/// If sizes do not fit or sequences have rows in common.
pub fn attention_backward(
    cpu: &Cpu,
    shape: &AttentionShape,
    sequences: &[Range<usize>],
    rows: AttentionRows<'_>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    check(shape, sequences, &rows, [dq.len(), dk.len(), dv.len()]);
    let mut tasks: Vec<(&Range<usize>, usize)> =
        sequences.iter().flat_map(|sequence| (0..shape.kv_heads).map(move |head| (sequence, head))).collect();
    // The longest first, so that none is left over at the end.
    tasks.sort_by_key(|(sequence, _)| Reverse(sequence.len()));
    let [dq, dk, dv] = [dq, dk, dv].map(Split::new);
    let (dim, queries, keys) = (shape.head_dim, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    cpu.each(tasks.len(), |task| {
        let (sequence, kv_head) = tasks[task];
        let kv = |source: &[f32]| gather(source, sequence, keys, kv_head * dim, dim);
        let mut head = Head::new(cpu.isa(), shape, kv(rows.k), kv(rows.v));
        let repeats = shape.heads / shape.kv_heads;
        for query_head in kv_head * repeats..(kv_head + 1) * repeats {
            let first = query_head * dim;
            let [q, out, d_out] = [rows.q, rows.out, rows.d_out].map(|all| gather(all, sequence, queries, first, dim));
            let gradient = head.add_queries(&q, &out, &d_out);
            // SAFETY: sequences are disjoint, and a task has its heads for itself.
            unsafe { scatter(&dq, sequence, queries, first, dim, &gradient) };
        }
        let (dk_head, dv_head) = head.finish();
        // SAFETY: as above.
        unsafe {
            scatter(&dk, sequence, keys, kv_head * dim, dim, &dk_head);
            scatter(&dv, sequence, keys, kv_head * dim, dim, &dv_head);
        }
    });
}

/// Columns `first..first + dim` of some rows of `[rows, width]`.
fn gather(source: &[f32], rows: &Range<usize>, width: usize, first: usize, dim: usize) -> Vec<f32> {
    rows.clone().flat_map(|row| &source[row * width + first..][..dim]).copied().collect()
}

/// The way back of [`gather`].
///
/// # Safety
/// Nobody else uses these columns of these rows meanwhile.
unsafe fn scatter(target: &Split<'_, f32>, rows: &Range<usize>, width: usize, first: usize, dim: usize, from: &[f32]) {
    for (row, from) in rows.clone().zip(from.chunks_exact(dim)) {
        let begin = row * width + first;
        // SAFETY: the caller's promise.
        unsafe { target.part(begin..begin + dim) }.copy_from_slice(from);
    }
}

fn check(shape: &AttentionShape, sequences: &[Range<usize>], rows: &AttentionRows<'_>, gradients: [usize; 3]) {
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "heads of attention");
    assert!(shape.window != Some(0), "a query sees itself");
    let AttentionRows { q, k, v, out, d_out } = rows;
    let [dq, dk, dv] = gradients;
    assert!(out.len() == q.len() && d_out.len() == q.len() && dq == q.len(), "queries and results have one shape");
    assert!(v.len() == k.len() && dk == k.len() && dv == k.len(), "keys and values have one shape");
    let count = q.len() / (shape.heads * shape.head_dim);
    assert_eq!(k.len(), count * shape.kv_heads * shape.head_dim, "a key for each row");
    let mut ranges: Vec<_> = sequences.iter().map(|rows| (rows.start, rows.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.last().is_none_or(|last| last.1 <= count), "rows of the batch");
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "sequences are disjoint");
}

#[cfg(test)]
mod tests;
