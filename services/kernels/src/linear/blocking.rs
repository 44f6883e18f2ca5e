//! How a job is cut into tiles. The cut has no say in the results, only in the time.
//!
//! Up to 16 rows pass in one go, so that weights come from memory once. More rows pass in blocks over a few panels, which
//! stay in the second-level cache meanwhile.

use super::job::{Ahead, Job};
use super::tile::{Chain, Grouped};

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
        unsafe { C::tile::<R, P>(job, row, panel, ahead) }
    }
}

impl<G: Grouped> Tiles for GroupedTiles<G> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { G::tile::<R, P>(job, row, panel, ahead) }
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
            // One stream, which tiles that follow each other read in order.
            1 => blocks::<ChainTiles<C>, 1, 1>(job),
            9..=16 => blocks::<ChainTiles<C>, 8, 2>(job),
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
            2..=48 => blocks::<GroupedTiles<G>, 8, 2>(job),
            // All sums in registers, which pays where weights come from the cache.
            _ => blocks::<GroupedTiles<G>, 6, 2>(job),
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

/// Bytes that are fetched ahead where the rows pass in one go or two.
const AHEAD: usize = 4096;
