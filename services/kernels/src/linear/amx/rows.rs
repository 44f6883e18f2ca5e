//! Up to 16 rows of a job, as tiles read and write them: in place where they lie at equal distances, else by way of a copy.

use super::tiles::{ROW_BYTES, TILE_BYTES, TILE_ROWS, Tiles};
use crate::linear::job::Job;
use crate::linear::portable::Portable;
use crate::matrix::LINE;

/// The activations of up to 16 rows.
pub struct Rows {
    count: usize,
    /// Bytes from each row to the next one; none: each row lies where it lies.
    stride: Option<usize>,
    first: [*const u8; TILE_ROWS],
}

impl Rows {
    /// `count` rows of the job from `row` on, from its first line on.
    #[inline(always)]
    pub fn new(job: &Job<'_>, row: usize, count: usize) -> Rows {
        /// Bytes of a row's activations that belong to a line: two of bf16, four of int8.
        const LINE_BYTES: usize = 4;
        let mut rows = Rows {
            count,
            stride: job.distance(row..row + count),
            first: [job.activations::<1>(row, LINE_BYTES)[0]; TILE_ROWS],
        };
        if rows.stride.is_none() {
            for r in 1..count {
                [rows.first[r]] = job.activations(row + r, LINE_BYTES);
            }
        }
        rows
    }

    /// Fills tile `A`, of so many rows with up to 64 bytes each, from byte `at` of each row on.
    ///
    /// # Safety
    /// The rows have `bytes` bytes there, the bytes of the tile's shape.
    #[inline(always)]
    pub unsafe fn load<T: Tiles, const A: usize>(&self, tiles: &mut T, at: usize, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.stride {
                Some(stride) => tiles.load::<A>(self.first[0].add(at), stride),
                None => {
                    let copy = self.copy(at, bytes);
                    tiles.load::<A>(copy.0.as_ptr().cast(), ROW_BYTES);
                }
            }
        }
    }

    /// Kept out of the loops, which are about rows that follow one another and keep their sums in registers.
    ///
    /// # Safety
    /// As [`Rows::load`].
    #[cold]
    #[inline(never)]
    unsafe fn copy(&self, at: usize, bytes: usize) -> Copied {
        let mut copy = Copied([[0; ROW_BYTES]; TILE_ROWS]);
        for (row, first) in copy.0[..self.count].iter_mut().zip(self.first) {
            // SAFETY: the caller's promise.
            unsafe { first.add(at).copy_to_nonoverlapping(row.as_mut_ptr(), bytes.min(ROW_BYTES)) };
        }
        copy
    }
}

#[repr(align(64))]
struct Copied([[u8; ROW_BYTES]; TILE_ROWS]);

/// f32 sums of a tile.
#[repr(align(64))]
struct Sums([[f32; TILE_ROWS]; TILE_ROWS]);

/// Hands over tile `C`, `count` rows of it from `row` of the job on.
///
/// # Safety
/// The tile has so many rows of 16 sums.
#[inline(always)]
pub unsafe fn put<T: Tiles, const C: usize>(tiles: &mut T, job: &Job<'_>, row: usize, count: usize, panel: usize) {
    // SAFETY: these rows and this panel of the result are the job's; `sums` holds a whole tile.
    unsafe {
        if job.panels_in_place().contains(&panel) {
            let (y, stride) = job.in_place(row..row + count, panel);
            return tiles.store::<C>(y.cast(), 4 * stride);
        }
        let mut sums = Sums([[0.0; TILE_ROWS]; TILE_ROWS]);
        tiles.store::<C>(sums.0.as_mut_ptr().cast(), ROW_BYTES);
        for (r, sums) in sums.0[..count].iter().enumerate() {
            job.put::<Portable, 1, 1>(row + r, panel, [[*sums]]);
        }
    }
}

/// Takes back what [`put`] has left in the result, in place.
///
/// # Safety
/// As [`put`], which has been here before.
#[inline(always)]
pub unsafe fn take<T: Tiles, const C: usize>(tiles: &mut T, job: &Job<'_>, row: usize, count: usize, panel: usize) {
    let (y, stride) = job.in_place(row..row + count, panel);
    // SAFETY: the caller's promise.
    unsafe { tiles.load::<C>(y.cast_const().cast(), 4 * stride) }
}

const _: () = assert!(TILE_BYTES == TILE_ROWS * LINE, "a tile is 16 lines");
