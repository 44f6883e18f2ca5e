//! The inner loops: a tile of a few rows × a few panels, all of whose sums stay in registers while the lines of the panels
//! are read once. Each sum is one chain over the inputs in order, whatever the tile: that is why a row's bits do not depend
//! on the rows beside it.
#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::job::{Ahead, Job};
use crate::input::Group;
use crate::matrix::{GROUP, LINE, PANEL};

/// Lines of a group of int8.
const GROUP_LINES: usize = GROUP / 4;

/// 16 f32 sums as an instruction set holds them, and what it does with them whatever the weights are.
///
/// The methods are those of an instruction set and may be called only where it is.
pub trait Registers {
    type Sums: Copy;

    fn zero() -> Self::Sums;
    /// `y[..16] = sums`
    unsafe fn put(y: *mut f32, sums: Self::Sums);
    /// `y[..16] += scale · sums`, with two roundings on every machine: the result does not depend on whether there is an FMA.
    unsafe fn add(y: *mut f32, sums: Self::Sums, scale: f32);
    /// Fetches a line that is read soon.
    fn prefetch(line: *const u8);

    /// [`chain`] as a function of its own for each size of tile: one function with all of them takes minutes to compile.
    unsafe fn chain<C, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        C: Chain<Registers = Self>;

    /// [`grouped`], likewise.
    unsafe fn grouped<G, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        G: Grouped<Registers = Self>;
}

/// f32 sums of f32 or bf16 products. One line of weights at a time. As [`Registers`] otherwise.
pub trait Chain {
    type Registers: Registers;
    type Weights: Copy;
    /// Bytes of a row's activations that belong to a line.
    const LINE_BYTES: usize;

    unsafe fn load(line: *const u8) -> Self::Weights;
    unsafe fn add(sums: Sums<Self::Registers>, weights: Self::Weights, x: *const u8) -> Sums<Self::Registers>;
}

/// Integer sums of int8 products in groups, and f32 sums of the groups. As [`Registers`] otherwise.
pub trait Grouped {
    type Registers: Registers;
    type Weights: Copy;
    type Scales: Copy;
    /// Integer sums of a group.
    type Partial: Copy;

    unsafe fn start(start: i32) -> Self::Partial;
    unsafe fn load(line: *const u8) -> Self::Weights;
    unsafe fn load_scales(scales: *const u8) -> Self::Scales;
    /// Four activations.
    unsafe fn add(sums: Self::Partial, weights: Self::Weights, x: *const u8) -> Self::Partial;
    /// `sums + f32(partial) · (scales · group.scale)`, the last multiplication and the addition with one rounding.
    unsafe fn combine(
        sums: Sums<Self::Registers>,
        partial: Self::Partial,
        scales: Self::Scales,
        group: Group,
    ) -> Sums<Self::Registers>;
}

type Sums<T> = <T as Registers>::Sums;

/// `R` rows from `row` on × `P` panels from `panel` on.
#[inline(always)]
pub unsafe fn chain<C: Chain, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
    let (weights, panel_bytes) = job.weights(panel);
    let x = job.activations::<R>(row, C::LINE_BYTES);
    let mut sums = [[C::Registers::zero(); P]; R];
    for line in 0..job.lines.len() {
        // SAFETY: the lines are inside of the job, and so are the rows.
        unsafe {
            let first = weights.add(line * LINE);
            let mut loaded = [C::load(first); P];
            for p in 0..P {
                C::Registers::prefetch(ahead.first.wrapping_add(line * LINE + p * ahead.stride));
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
    // SAFETY: the instructions are there, by the caller's promise.
    unsafe { job.put::<C::Registers, R, P>(row, panel, sums) }
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
    let (x, groups) = (job.activations::<R>(row, 4), job.activation_groups::<R>(row));
    let mut sums = [[G::Registers::zero(); P]; R];
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
                    G::Registers::prefetch(ahead.first.wrapping_add(line * LINE + p * ahead.stride));
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
                G::Registers::prefetch(scales.wrapping_add(P * panel_scale_bytes));
                let scales = G::load_scales(scales);
                for r in 0..R {
                    sums[r][p] = G::combine(sums[r][p], partial[r][p], scales, *groups[r].add(group));
                }
            }
        }
    }
    // SAFETY: the instructions are there, by the caller's promise.
    unsafe { job.put::<G::Registers, R, P>(row, panel, sums) }
}
