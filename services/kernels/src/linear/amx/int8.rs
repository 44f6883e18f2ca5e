//! Products of int8 on tiles. Each group of 64 inputs is one tile product whose exact sums are scaled to f32; two tiles
//! take turns, so that one group is scaled while the next one is multiplied.

use std::arch::x86_64::*;
use std::ops::Range;

use super::rows::Rows;
use super::tiles::{ROW_BYTES, Shape, TILE_BYTES, TILE_ROWS, Tiles};
use super::{TILE_LINES, parts, prefetch};
use crate::input::Group;
use crate::linear::avx512::Avx512;
use crate::linear::job::Job;
use crate::matrix::{GROUP, LINE, PANEL};

/// How far ahead of their use weights are asked for, in bytes of one panel.
const AHEAD: usize = 6144;

const _: () = assert!(GROUP == ROW_BYTES && PANEL == TILE_ROWS, "a group of a panel is one tile");

/// Does `job` of int8 weights, on `tiles`.
///
/// # Safety
/// The tiles can be used, and the processor has AVX-512 F, BW and VL.
pub unsafe fn run<T: Tiles>(tiles: &mut T, job: &Job<'_>) {
    assert!(job.lines.len().is_multiple_of(TILE_LINES), "the inputs of a job are whole groups");
    if job.rows.is_empty() || job.lines.is_empty() {
        return;
    }
    let mut sums = Exact([[[0; TILE_ROWS]; TILE_ROWS]; 2]);
    let mut run = |rows: Range<usize>, panels: Range<usize>, lines: Range<usize>, fetch: bool| {
        let part = Part { job, groups: lines.start / TILE_LINES..lines.end / TILE_LINES };
        // SAFETY: parts of the job; the rest is the caller's promise.
        unsafe { part.run(tiles, &mut sums, rows, panels, fetch) }
    };
    if job.rows.len() <= TILE_ROWS {
        return run(job.rows.clone(), job.panels.clone(), 0..job.lines.len(), true);
    }
    parts(job, |rows, panels, lines| {
        let fetch = rows.start == job.rows.start;
        let whole = rows.end - rows.len() % TILE_ROWS;
        run(rows.start..whole, panels.clone(), lines.clone(), fetch);
        run(whole..rows.end, panels, lines, fetch && whole == rows.start);
    });
}

/// The exact sums of two groups.
#[repr(align(64))]
struct Exact([ExactSums; 2]);

type ExactSums = [[i32; TILE_ROWS]; TILE_ROWS];

/// Some groups of a job, counted from its first one. Before and behind them, sums are in the result.
struct Part<'a> {
    job: &'a Job<'a>,
    groups: Range<usize>,
}

/// Up to 16 rows and one panel.
struct Operands<const ROWS: usize> {
    x: Rows,
    x_groups: [*const Group; ROWS],
    w: *const u8,
    w_scales: *const u8,
    /// Whether the weights come from afar.
    fetch: bool,
}

impl Part<'_> {
    /// `rows` are whole tiles, or one incomplete tile. `fetch`: these rows are the first that read the weights.
    unsafe fn run<T: Tiles>(
        &self,
        tiles: &mut T,
        exact: &mut Exact,
        rows: Range<usize>,
        panels: Range<usize>,
        fetch: bool,
    ) {
        if rows.is_empty() {
            return;
        }
        let count = rows.len().min(TILE_ROWS);
        let (part, whole) = (Shape { rows: count as u8, ..Shape::WHOLE }, Shape::WHOLE);
        tiles.configure([part, part, whole, whole, part, whole, part, whole]);
        for panel in panels {
            for row in rows.clone().step_by(TILE_ROWS) {
                let fetch = fetch && row == rows.start;
                // One instance for each count of rows: their sums are registers.
                macro_rules! by_count {
                    ($($rows:literal)*) => {
                        match count {
                            // SAFETY: rows, panels and groups of the job; the caller's promise.
                            $($rows => unsafe { self.panel::<T, $rows>(tiles, exact, row, panel, fetch) },)*
                            _ => unreachable!("a tile has 1 to 16 rows"),
                        }
                    };
                }
                by_count!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
            }
        }
    }

    /// `ROWS` rows, the rows of tiles 0, 1, 4 and 6, times one panel.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn panel<T: Tiles, const ROWS: usize>(
        &self,
        tiles: &mut T,
        exact: &mut Exact,
        row: usize,
        panel: usize,
        fetch: bool,
    ) {
        let Part { job, groups: Range { start, end } } = *self;
        let of = Operands {
            x: Rows::new(job, row, ROWS),
            x_groups: std::array::from_fn(|r| job.activation_groups::<1>(row + r)[0]),
            w: job.weights(panel).0,
            w_scales: job.weight_scales(panel).0,
            fetch,
        };
        let mut sums = [_mm512_setzero_ps(); ROWS];
        let Exact([even, odd]) = exact;
        // SAFETY: rows, panels and groups of the job.
        unsafe {
            if start > 0 {
                let (y, stride) = job.in_place(row..row + ROWS, panel);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(y.add(r * stride));
                }
            }
            of.multiply::<T, 0, 4, 5>(tiles, even, start);
            let mut group = start + 1;
            while group + 1 < end {
                of.multiply::<T, 1, 6, 7>(tiles, odd, group);
                of.scale(&mut sums, even, group - 1);
                of.multiply::<T, 0, 4, 5>(tiles, even, group + 1);
                of.scale(&mut sums, odd, group);
                group += 2;
            }
            if group < end {
                of.multiply::<T, 1, 6, 7>(tiles, odd, group);
                of.scale(&mut sums, even, group - 1);
                of.scale(&mut sums, odd, group);
            } else {
                of.scale(&mut sums, even, group - 1);
            }
            job.put::<Avx512, _, _>(row, panel, sums.map(|sum| [sum]));
        }
    }
}

impl<const ROWS: usize> Operands<ROWS> {
    /// The exact sums of one group, by way of tiles `C`, `A` and `B`.
    #[inline(always)]
    unsafe fn multiply<T: Tiles, const C: usize, const A: usize, const B: usize>(
        &self,
        tiles: &mut T,
        exact: &mut ExactSums,
        group: usize,
    ) {
        tiles.zero::<C>();
        // SAFETY: a group of the rows and of the panel; `exact` holds a whole tile.
        unsafe {
            let w = self.w.add(group * TILE_BYTES);
            self.x.load::<T, A>(tiles, group * GROUP, GROUP);
            tiles.load::<B>(w, LINE);
            tiles.dot_int8::<C, A, B>();
            tiles.store::<C>(exact.as_mut_ptr().cast(), ROW_BYTES);
            if self.fetch {
                prefetch(w, AHEAD);
            }
        }
    }

    /// Adds the sums of one group, scaled: with the operations of `avx512`, whose integer sums begin where these end.
    ///
    /// # Safety
    /// As [`Part::panel`], into which it is always inlined: the sums are its registers.
    #[inline(always)]
    unsafe fn scale(&self, sums: &mut [__m512; ROWS], exact: &ExactSums, group: usize) {
        // SAFETY: a group of the rows and of the panel, on a processor with the instructions.
        unsafe {
            let w_scales = _mm512_cvtph_ps(_mm256_loadu_si256(self.w_scales.add(group * 2 * PANEL).cast()));
            for (r, sum) in sums.iter_mut().enumerate() {
                let Group { scale, start } = *self.x_groups[r].add(group);
                let exact = _mm512_add_epi32(_mm512_loadu_si512(exact[r].as_ptr().cast()), _mm512_set1_epi32(start));
                let factor = _mm512_mul_ps(w_scales, _mm512_set1_ps(scale));
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(exact), factor, *sum);
            }
        }
    }
}
