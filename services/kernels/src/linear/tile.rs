//! The inner loops: a tile of a few rows × a few panels, all of whose sums stay in registers while the lines of the panels
//! are read once. Each sum is one chain over the inputs in order, whatever the tile: that is why a row's bits do not depend
//! on the rows beside it.
#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::job::{Ahead, Job};
use crate::input::Group;
use crate::matrix::{GROUP, LINE, PANEL};

/// Lines of a group of int8.
const GROUP_LINES: usize = GROUP / 4;

/// f32 sums of f32 or bf16 products. One line of weights at a time.
///
/// The methods are those of an instruction set and may be called only where it is.
pub trait Chain {
    type Weights: Copy;
    type Sums: Copy;
    /// Bytes of a row's activations that belong to a line.
    const LINE_BYTES: usize;

    fn zero() -> Self::Sums;
    unsafe fn load(line: *const u8) -> Self::Weights;
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, x: *const u8) -> Self::Sums;
    fn values(sums: Self::Sums) -> [f32; PANEL];
    fn prefetch(line: *const u8);

    /// [`chain`] as a function of its own for each size of tile: one function with all of them takes minutes to compile.
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead);
}

/// Integer sums of int8 products in groups, and f32 sums of the groups. As [`Chain`] otherwise.
pub trait Grouped {
    type Weights: Copy;
    type Scales: Copy;
    /// Integer sums of a group.
    type Partial: Copy;
    type Sums: Copy;

    fn zero() -> Self::Sums;
    unsafe fn start(start: i32) -> Self::Partial;
    unsafe fn load(line: *const u8) -> Self::Weights;
    unsafe fn load_scales(scales: *const u8) -> Self::Scales;
    /// Four activations.
    unsafe fn add(sums: Self::Partial, weights: Self::Weights, x: *const u8) -> Self::Partial;
    /// `sums + f32(partial) · (scales · group.scale)`, the last multiplication and the addition with one rounding.
    unsafe fn combine(sums: Self::Sums, partial: Self::Partial, scales: Self::Scales, group: Group) -> Self::Sums;
    fn values(sums: Self::Sums) -> [f32; PANEL];
    fn prefetch(line: *const u8);

    /// [`grouped`], as [`Chain::tile`].
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead);
}

/// `R` rows from `row` on × `P` panels from `panel` on.
#[inline(always)]
pub unsafe fn chain<C: Chain, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
    let (weights, panel_bytes) = job.weights(panel);
    let mut x = [std::ptr::null(); R];
    for r in 0..R {
        x[r] = job.activations(row + r, C::LINE_BYTES);
    }
    let mut sums = [[C::zero(); P]; R];
    for line in 0..job.lines.len() {
        // SAFETY: the lines are inside of the job, and so are the rows.
        unsafe {
            let first = weights.add(line * LINE);
            let mut loaded = [C::load(first); P];
            for p in 0..P {
                C::prefetch(ahead.first.wrapping_add(line * LINE + p * ahead.stride));
                loaded[p] = C::load(first.add(p * panel_bytes));
            }
            for r in 0..R {
                let x = x[r].add(line * C::LINE_BYTES);
                for p in 0..P {
                    sums[r][p] = C::add(sums[r][p], loaded[p], x);
                }
            }
        }
    }
    let mut values = [[[0.0; PANEL]; P]; R];
    for r in 0..R {
        for p in 0..P {
            values[r][p] = C::values(sums[r][p]);
        }
    }
    job.put(row, panel, values);
}

/// As [`chain`], for int8.
#[inline(always)]
pub unsafe fn grouped<G: Grouped, const R: usize, const P: usize>(
    job: &Job<'_>,
    row: usize,
    panel: usize,
    ahead: Ahead,
) {
    let (weights, panel_bytes) = job.weights(panel);
    let (scales, panel_scale_bytes) = job.weight_scales(panel);
    let mut x = [std::ptr::null(); R];
    let mut groups = [std::ptr::null(); R];
    for r in 0..R {
        x[r] = job.activations(row + r, 4);
        groups[r] = job.activation_groups(row + r);
    }
    let mut sums = [[G::zero(); P]; R];
    for group in 0..job.groups().len() {
        // SAFETY: the groups and their lines are inside of the job.
        unsafe {
            let mut partial = [[G::start(0); P]; R];
            for r in 0..R {
                partial[r] = [G::start((*groups[r].add(group)).start); P];
            }
            for line in group * GROUP_LINES..(group + 1) * GROUP_LINES {
                let first = weights.add(line * LINE);
                let mut loaded = [G::load(first); P];
                for p in 0..P {
                    G::prefetch(ahead.first.wrapping_add(line * LINE + p * ahead.stride));
                    loaded[p] = G::load(first.add(p * panel_bytes));
                }
                for r in 0..R {
                    let x = x[r].add(line * 4);
                    for p in 0..P {
                        partial[r][p] = G::add(partial[r][p], loaded[p], x);
                    }
                }
            }
            for p in 0..P {
                let scales = scales.add(p * panel_scale_bytes + group * 2 * PANEL);
                // Those of the panels that come next: they are a stream of their own, too thin to be foreseen.
                G::prefetch(scales.wrapping_add(P * panel_scale_bytes));
                let scales = G::load_scales(scales);
                for r in 0..R {
                    sums[r][p] = G::combine(sums[r][p], partial[r][p], scales, *groups[r].add(group));
                }
            }
        }
    }
    let mut values = [[[0.0; PANEL]; P]; R];
    for r in 0..R {
        for p in 0..P {
            values[r][p] = G::values(sums[r][p]);
        }
    }
    job.put(row, panel, values);
}
