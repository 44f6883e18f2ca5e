//! Products with int8 weights of fewer inputs than a group: the second half of a low-rank change. There is nothing to
//! block: a row's activations are a few words and stay in the first-level cache, weights are read once from end to end.

use super::job::Job;
use super::tile::{Grouped, Registers};
use crate::matrix::LINE;

/// Rows that share a load of weights.
const ROWS: usize = 4;
/// Bytes that weights are fetched ahead.
const AHEAD: usize = 4096;
/// Panels that scales are fetched ahead.
const SCALES_AHEAD: usize = 16;

/// Does `job`, all of its inputs.
///
/// # Safety
/// The machine has the instructions of `G`, and the function that this is inlined into may use them.
#[inline(always)]
pub unsafe fn grouped<G: Grouped>(job: &Job<'_>) {
    let mut row = job.rows.start;
    // SAFETY: rows of the job; the caller's promise.
    unsafe {
        while row + ROWS <= job.rows.end {
            rows::<G, ROWS>(job, row);
            row += ROWS;
        }
        while row < job.rows.end {
            rows::<G, 1>(job, row);
            row += 1;
        }
    }
}

/// `R` rows from `row` on × all panels.
#[inline(always)]
unsafe fn rows<G: Grouped, const R: usize>(job: &Job<'_>, row: usize) {
    let x: [_; R] = job.activations(row, 4);
    // SAFETY: each row of the job has its one group.
    let groups: [_; R] = job.activation_groups(row).map(|group| unsafe { *group });
    for panel in job.panels.clone() {
        let (weights, _) = job.weights(panel);
        let (scales, panel_scale_bytes) = job.weight_scales(panel);
        // SAFETY: the lines and the scales are inside of the job, and so are the rows.
        unsafe {
            let mut partial = groups.map(|group| G::start(group.start));
            for line in 0..job.lines.len() {
                let weights = weights.add(line * LINE);
                G::Registers::prefetch(weights.wrapping_add(AHEAD));
                let weights = G::load(weights);
                for r in 0..R {
                    partial[r] = G::add(partial[r], weights, x[r].add(line * 4));
                }
            }
            G::Registers::prefetch(scales.wrapping_add(SCALES_AHEAD * panel_scale_bytes));
            let scales = G::load_scales(scales);
            let mut sums = [[G::Registers::zero()]; R];
            for r in 0..R {
                sums[r] = [G::combine(sums[r][0], partial[r], scales, groups[r])];
            }
            job.put::<G::Registers, R, 1>(row, panel, sums);
        }
    }
}
