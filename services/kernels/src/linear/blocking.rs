//! How a job is cut into tiles. The cut has no say in the results, only in the time.
//!
//! Up to 16 rows pass in one go, so that weights come from memory once. More rows pass in blocks over a few panels, which
//! stay in the second-level cache meanwhile.

use super::job::Job;
use super::tile::{self, Chain, Grouped};

/// A kernel that does a tile of `R` rows × `P` panels.
trait Tiles {
    /// # Safety
    /// The machine has the instructions, and the tile is inside of the job.
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize);
}

struct ChainTiles<C>(C);
struct GroupedTiles<G>(G);

impl<C: Chain> Tiles for ChainTiles<C> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match (R, P) {
                (9.., 1) => tile::chain::<C, R, P, 4>(job, row, panel),
                _ => tile::chain::<C, R, P, 1>(job, row, panel),
            }
        }
    }
}

impl<G: Grouped> Tiles for GroupedTiles<G> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize) {
        // SAFETY: the caller's promise.
        unsafe { tile::grouped::<G, R, P>(job, row, panel) }
    }
}

/// A product with f32 or bf16 weights on 32 registers of 16 lanes.
///
/// # Safety
/// The machine has the instructions of `C`.
#[inline(always)]
pub unsafe fn wide_chain<C: Chain>(job: &Job<'_>) {
    type T<C> = ChainTiles<C>;
    // SAFETY: the caller's promise; each block is inside of the job.
    unsafe {
        match job.rows.len() {
            0 => {}
            1 => rows::<T<C>, 1, 8>(job, job.rows.start),
            9 => rows::<T<C>, 9, 1>(job, job.rows.start),
            10 => rows::<T<C>, 10, 1>(job, job.rows.start),
            11 => rows::<T<C>, 11, 1>(job, job.rows.start),
            12 => rows::<T<C>, 12, 1>(job, job.rows.start),
            13 => rows::<T<C>, 13, 1>(job, job.rows.start),
            14 => rows::<T<C>, 14, 1>(job, job.rows.start),
            15 => rows::<T<C>, 15, 1>(job, job.rows.start),
            16 => rows::<T<C>, 16, 1>(job, job.rows.start),
            _ => blocks::<T<C>, 8, 3>(job),
        }
    }
}

/// A product with int8 weights on 32 registers of 16 lanes.
///
/// # Safety
/// The machine has the instructions of `G`.
#[inline(always)]
pub unsafe fn wide_grouped<G: Grouped>(job: &Job<'_>) {
    type T<G> = GroupedTiles<G>;
    // SAFETY: the caller's promise; each block is inside of the job.
    unsafe {
        match job.rows.len() {
            0 => {}
            1 => rows::<T<G>, 1, 4>(job, job.rows.start),
            7 => rows::<T<G>, 7, 1>(job, job.rows.start),
            8 => rows::<T<G>, 8, 1>(job, job.rows.start),
            9 => rows::<T<G>, 9, 1>(job, job.rows.start),
            10 => rows::<T<G>, 10, 1>(job, job.rows.start),
            11 => rows::<T<G>, 11, 1>(job, job.rows.start),
            12 => rows::<T<G>, 12, 1>(job, job.rows.start),
            13 => rows::<T<G>, 13, 1>(job, job.rows.start),
            14 => rows::<T<G>, 14, 1>(job, job.rows.start),
            15 => rows::<T<G>, 15, 1>(job, job.rows.start),
            16 => rows::<T<G>, 16, 1>(job, job.rows.start),
            _ => blocks::<T<G>, 6, 2>(job),
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
    let mut row = job.rows.start;
    // SAFETY: the caller's promise.
    unsafe {
        while row + R <= job.rows.end {
            T::tile::<R, P>(job, row, panel);
            row += R;
        }
        match job.rows.end - row {
            1 => T::tile::<1, P>(job, row, panel),
            2 => T::tile::<2, P>(job, row, panel),
            3 => T::tile::<3, P>(job, row, panel),
            4 => T::tile::<4, P>(job, row, panel),
            5 => T::tile::<5, P>(job, row, panel),
            6 => T::tile::<6, P>(job, row, panel),
            7 => T::tile::<7, P>(job, row, panel),
            _ => {}
        }
    }
}

/// `R` rows in one go, `P` panels at a time.
#[inline(always)]
unsafe fn rows<T: Tiles, const R: usize, const P: usize>(job: &Job<'_>, row: usize) {
    let mut panel = job.panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        while panel + P <= job.panels.end {
            T::tile::<R, P>(job, row, panel);
            panel += P;
        }
        while panel < job.panels.end {
            T::tile::<R, 1>(job, row, panel);
            panel += 1;
        }
    }
}
