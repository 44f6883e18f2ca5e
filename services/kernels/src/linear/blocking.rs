//! How a job is cut into tiles. The cut has no say in the results, only in the time.
//!
//! On wide registers, most rows pass in blocks of up to 16 over one panel at a time. Weights come from memory once, as one
//! stream, beside 16 products of each line; the blocks that follow read the panel from the second-level cache. Two panels
//! at a time take no less time in the cache, and more where reading and multiplying are to overlap.

use std::ops::Range;

use super::job::{Ahead, Job};
use super::tile::{Chain, Grouped, Registers};

/// Rows that pass over a panel at once.
const COLUMN_ROWS: usize = 16;
/// Lines of a panel at least; shorter panels, those of adapters, are better taken several at a time.
const DEEP_LINES: usize = 64;
/// Bytes that are fetched ahead where the rows pass in one go. Half of it is too near for 16 rows on Zen 4.
const AHEAD: usize = 4096;

/// A kernel that does a tile of `R` rows × `P` panels.
trait Tiles {
    /// # Safety
    /// The machine has the instructions, and the tile is inside of the job.
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead);
}

struct ChainTiles<C>(C);
struct GroupedTiles<G>(G);

impl<C: Chain> Tiles for ChainTiles<C> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { C::Registers::chain::<C, R, P>(job, row, panel, ahead) }
    }
}

impl<G: Grouped> Tiles for GroupedTiles<G> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { G::Registers::grouped::<G, R, P>(job, row, panel, ahead) }
    }
}

/// A product with f32 or bf16 weights on 32 registers of 16 lanes.
///
/// # Safety
/// The machine has the instructions of `C`.
#[inline(always)]
pub unsafe fn wide_chain<C: Chain>(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.rows.len() {
            // Short panels of adapters have no time for a choice of tiles at each.
            1 => blocks::<ChainTiles<C>, 1, 1>(job),
            // They wait for memory, which gives three streams faster than one.
            2..=8 => blocks::<ChainTiles<C>, 8, 3>(job),
            _ if deep(job) => columns::<ChainTiles<C>>(job),
            _ => blocks::<ChainTiles<C>, 8, 3>(job),
        }
    }
}

/// A product with int8 weights on 32 registers of 16 lanes.
///
/// # Safety
/// The machine has the instructions of `G`.
#[inline(always)]
pub unsafe fn wide_grouped<G: Grouped>(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.rows.len() {
            1 => blocks::<GroupedTiles<G>, 1, 1>(job),
            _ if deep(job) => columns::<GroupedTiles<G>>(job),
            _ => blocks::<GroupedTiles<G>, 8, 2>(job),
        }
    }
}

/// A product with f32 or bf16 weights on 16 registers of 8 lanes.
///
/// # Safety
/// The machine has the instructions of `C`.
#[inline(always)]
pub unsafe fn narrow_chain<C: Chain>(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<ChainTiles<C>, 4, 1>(job) }
}

/// A product with int8 weights on 16 registers of 8 lanes.
///
/// # Safety
/// The machine has the instructions of `G`.
#[inline(always)]
pub unsafe fn narrow_grouped<G: Grouped>(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<GroupedTiles<G>, 2, 1>(job) }
}

/// Whether a job is one for [`columns`]: others have short panels, or rows of which a tile holds fewer.
#[inline(always)]
fn deep(job: &Job<'_>) -> bool {
    job.lines.len() >= DEEP_LINES && job.distance(job.rows.clone()).is_some()
}

/// Rows in even blocks of up to [`COLUMN_ROWS`] over one panel at a time: weights are one stream, which tiles that follow
/// each other read in order.
#[inline(always)]
unsafe fn columns<T: Tiles>(job: &Job<'_>) {
    let blocks = job.rows.len().div_ceil(COLUMN_ROWS);
    let at = |block: usize| job.rows.start + job.rows.len() * block / blocks;
    for panel in job.panels.clone() {
        let (first, stride) = job.weights(panel);
        // SAFETY: the caller's promise.
        unsafe {
            if blocks == 1 {
                let ahead = Ahead { first: first.wrapping_add(AHEAD), stride: 0 };
                column::<T>(job, job.rows.clone(), panel, ahead);
                continue;
            }
            for block in 0..blocks {
                // The first block fetches the next panel, those behind it nothing new.
                let ahead = Ahead { first: first.wrapping_add(if block == 0 { stride } else { 0 }), stride: 0 };
                column::<T>(job, at(block)..at(block + 1), panel, ahead);
            }
        }
    }
}

/// Up to [`COLUMN_ROWS`] rows over one panel.
#[inline(always)]
unsafe fn column<T: Tiles>(job: &Job<'_>, rows: Range<usize>, panel: usize, ahead: Ahead) {
    let row = rows.start;
    // SAFETY: the caller's promise.
    unsafe {
        match rows.len() {
            0 => {}
            1 => T::tile::<1, 1>(job, row, panel, ahead),
            2 => T::tile::<2, 1>(job, row, panel, ahead),
            3 => T::tile::<3, 1>(job, row, panel, ahead),
            4 => T::tile::<4, 1>(job, row, panel, ahead),
            5 => T::tile::<5, 1>(job, row, panel, ahead),
            6 => T::tile::<6, 1>(job, row, panel, ahead),
            7 => T::tile::<7, 1>(job, row, panel, ahead),
            8 => T::tile::<8, 1>(job, row, panel, ahead),
            9 => T::tile::<9, 1>(job, row, panel, ahead),
            10 => T::tile::<10, 1>(job, row, panel, ahead),
            11 => T::tile::<11, 1>(job, row, panel, ahead),
            12 => T::tile::<12, 1>(job, row, panel, ahead),
            13 => T::tile::<13, 1>(job, row, panel, ahead),
            14 => T::tile::<14, 1>(job, row, panel, ahead),
            15 => T::tile::<15, 1>(job, row, panel, ahead),
            _ => T::tile::<16, 1>(job, row, panel, ahead),
        }
    }
}

/// Rows in blocks of `R`, up to 8, over `P` panels at a time.
#[inline(always)]
unsafe fn blocks<T: Tiles, const R: usize, const P: usize>(job: &Job<'_>) {
    let mut panel = job.panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        while panel + P <= job.panels.end {
            row_blocks::<T, R, P>(job, panel);
            panel += P;
        }
        while panel < job.panels.end {
            row_blocks::<T, R, 1>(job, panel);
            panel += 1;
        }
    }
}

/// All rows over `P` panels.
#[inline(always)]
unsafe fn row_blocks<T: Tiles, const R: usize, const P: usize>(job: &Job<'_>, panel: usize) {
    const { assert!(R <= 8, "the rows that are left over are up to seven") };
    let (first, stride) = job.weights(panel);
    let far = job.rows.len() >= 2 * R;
    let mut ahead = if far {
        Ahead { first: first.wrapping_add(P * stride), stride: 0 }
    } else {
        Ahead { first: first.wrapping_add(AHEAD), stride }
    };
    let mut row = job.rows.start;
    // SAFETY: the caller's promise.
    unsafe {
        while row + R <= job.rows.end {
            T::tile::<R, P>(job, row, panel, ahead);
            row += R;
            if far {
                // Each pass fetches one of the panels that come next, and those behind the last one fetch nothing new.
                let next = row < job.rows.start + P * R;
                ahead.first = if next { ahead.first.wrapping_add(stride) } else { first };
            }
        }
        if R == 1 {
            return;
        }
        match job.rows.end - row {
            1 => T::tile::<1, P>(job, row, panel, ahead),
            2 => T::tile::<2, P>(job, row, panel, ahead),
            3 => T::tile::<3, P>(job, row, panel, ahead),
            4 => T::tile::<4, P>(job, row, panel, ahead),
            5 => T::tile::<5, P>(job, row, panel, ahead),
            6 => T::tile::<6, P>(job, row, panel, ahead),
            7 => T::tile::<7, P>(job, row, panel, ahead),
            _ => {}
        }
    }
}
