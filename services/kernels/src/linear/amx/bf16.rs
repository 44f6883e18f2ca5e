//! Products of bf16 on tiles. Few rows stream the weights once, four panels at a time; many rows run in squares of 2 × 2
//! tiles whose operands stay in the second-level cache.

use std::ops::Range;

use super::rows::{Rows, put, take};
use super::tiles::{ROW_BYTES, Shape, TILE_BYTES, TILE_ROWS, Tiles};
use super::{TILE_LINES, blocks, parts, prefetch};
use crate::linear::job::Job;
use crate::matrix::LINE;

/// How far ahead of their use weights are asked for, in bytes of one panel.
const AHEAD: usize = 4096;
/// As above within a part of many rows, whose lines are fewer.
const AHEAD_IN_PART: usize = 2 * TILE_BYTES;

/// Does `job` of bf16 weights, on `tiles`.
///
/// # Safety
/// The tiles can be used.
pub unsafe fn run<T: Tiles>(tiles: &mut T, job: &Job<'_>) {
    let lines = job.lines.len();
    assert!(
        lines < TILE_LINES || lines.is_multiple_of(TILE_LINES),
        "the inputs of a job are whole tiles or one part of one"
    );
    if job.rows.is_empty() || lines == 0 {
        return;
    }
    // SAFETY: the caller's promise; each part is inside of the job.
    unsafe {
        if job.rows.len() <= TILE_ROWS {
            return few_rows(tiles, job);
        }
        parts(job, |rows, panels, lines| {
            let whole = rows.end - rows.len() % (2 * TILE_ROWS);
            for (rows, is_first) in [(rows.start..whole, true), (whole..rows.end, whole == rows.start)] {
                let fetch = is_first && rows.start == job.rows.start;
                Part { job, rows, panels: panels.clone(), lines: lines.clone(), fetch }.run(tiles);
            }
        });
    }
}

/// Up to 16 rows: tiles 0 to 3 sum four panels, tile 4 holds the rows, tiles 5 to 7 take the weights in turn.
unsafe fn few_rows<T: Tiles>(tiles: &mut T, job: &Job<'_>) {
    let steps = Steps::new(job.lines.len());
    let (sums, x, w) = steps.shapes(job.rows.len());
    tiles.configure([sums, sums, sums, sums, x, w, w, w]);
    let mut panel = job.panels.start;
    // SAFETY: panels of the job.
    unsafe {
        while panel + 4 <= job.panels.end {
            stream::<T, 4>(tiles, job, steps, panel);
            panel += 4;
        }
        if panel + 2 <= job.panels.end {
            stream::<T, 2>(tiles, job, steps, panel);
            panel += 2;
        }
        if panel < job.panels.end {
            stream::<T, 1>(tiles, job, steps, panel);
        }
    }
}

/// All rows and lines of the job times `PANELS` (1, 2 or 4) panels.
unsafe fn stream<T: Tiles, const PANELS: usize>(tiles: &mut T, job: &Job<'_>, steps: Steps, panel: usize) {
    let (row, count) = (job.rows.start, job.rows.len());
    let x = Rows::new(job, row, count);
    let w: [*const u8; PANELS] = std::array::from_fn(|p| job.weights(panel + p).0);
    tiles.zero::<0>();
    if PANELS > 1 {
        tiles.zero::<1>();
    }
    if PANELS > 2 {
        tiles.zero::<2>();
        tiles.zero::<3>();
    }
    for step in 0..steps.count {
        let at = step * TILE_BYTES;
        // SAFETY: a step of the rows and of the panels, in the shapes that are configured.
        unsafe {
            x.load::<T, 4>(tiles, step * ROW_BYTES, steps.row_bytes());
            tiles.load::<5>(w[0].add(at), LINE);
            tiles.dot_bf16::<0, 4, 5>();
            if PANELS > 1 {
                tiles.load::<6>(w[1].add(at), LINE);
                tiles.dot_bf16::<1, 4, 6>();
            }
            if PANELS > 2 {
                tiles.load::<7>(w[2].add(at), LINE);
                tiles.dot_bf16::<2, 4, 7>();
                tiles.load::<5>(w[3].add(at), LINE);
                tiles.dot_bf16::<3, 4, 5>();
            }
        }
        for w in w {
            prefetch(w, at + AHEAD);
        }
    }
    // SAFETY: tiles of sums.
    unsafe {
        put::<T, 0>(tiles, job, row, count, panel);
        if PANELS > 1 {
            put::<T, 1>(tiles, job, row, count, panel + 1);
        }
        if PANELS > 2 {
            put::<T, 2>(tiles, job, row, count, panel + 2);
            put::<T, 3>(tiles, job, row, count, panel + 3);
        }
    }
}

/// How the lines of a job make tiles: whole ones, or a single part of one.
#[derive(Clone, Copy)]
struct Steps {
    count: usize,
    lines: usize,
}

impl Steps {
    fn new(lines: usize) -> Steps {
        Steps { count: lines.div_ceil(TILE_LINES), lines: lines.min(TILE_LINES) }
    }

    /// Bytes of a row's activations in a step.
    fn row_bytes(self) -> usize {
        4 * self.lines
    }

    /// Shapes of the sums, the activations and the weights of `rows` rows.
    fn shapes(self, rows: usize) -> (Shape, Shape, Shape) {
        let (rows, lines) = (rows as u8, self.lines as u8);
        (
            Shape { rows, ..Shape::WHOLE },
            Shape { rows, bytes: self.row_bytes() as u8 },
            Shape { rows: lines, ..Shape::WHOLE },
        )
    }
}

/// Rows, panels and lines of one pass. The rows are whole pairs of tiles, or one incomplete pair.
struct Part<'a> {
    job: &'a Job<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
    /// From the first line of the job on.
    lines: Range<usize>,
    /// Whether the weights come from afar: these are the first rows that read them.
    fetch: bool,
}

impl Part<'_> {
    /// Tiles 0 to 3 sum rows × panels, 4 and 5 hold rows, 6 and 7 weights.
    unsafe fn run<T: Tiles>(&self, tiles: &mut T) {
        if self.rows.is_empty() {
            return;
        }
        let upper = self.rows.len().min(TILE_ROWS);
        let lower = self.rows.len().min(2 * TILE_ROWS) - upper;
        let steps = Steps::new(self.lines.len());
        let (upper_sums, upper_x, w) = steps.shapes(upper);
        let (lower_sums, lower_x, _) = steps.shapes(lower.max(1));
        tiles.configure([upper_sums, upper_sums, lower_sums, lower_sums, upper_x, lower_x, w, w]);
        for panels in blocks(self.panels.clone(), 2) {
            for row in self.rows.clone().step_by(2 * TILE_ROWS) {
                let pass = Pass { part: self, steps, row, rows: [upper, lower], panel: panels.start };
                // SAFETY: parts of the job, in the shapes that are configured.
                unsafe {
                    match (lower > 0, panels.len() > 1) {
                        (true, true) => pass.square::<T, true, true>(tiles),
                        (true, false) => pass.square::<T, true, false>(tiles),
                        (false, true) => pass.square::<T, false, true>(tiles),
                        (false, false) => pass.square::<T, false, false>(tiles),
                    }
                }
            }
        }
    }
}

/// Up to two tiles of rows and up to two panels.
struct Pass<'a> {
    part: &'a Part<'a>,
    steps: Steps,
    row: usize,
    rows: [usize; 2],
    panel: usize,
}

impl Pass<'_> {
    unsafe fn square<T: Tiles, const LOWER: bool, const RIGHT: bool>(&self, tiles: &mut T) {
        let Pass { part, steps, row, rows: [upper, lower], panel } = *self;
        let Part { job, ref lines, fetch, .. } = *part;
        let fetch = fetch && row == part.rows.start;
        let (below, right) = (row + TILE_ROWS, panel + 1);
        let x = [Rows::new(job, row, upper), Rows::new(job, if LOWER { below } else { row }, lower)];
        let w = [panel, if RIGHT { right } else { panel }].map(|panel| job.weights(panel).0);
        // SAFETY: rows, panels and lines of the job, in the shapes that are configured.
        unsafe {
            if lines.start == 0 {
                tiles.zero::<0>();
                tiles.zero::<1>();
                tiles.zero::<2>();
                tiles.zero::<3>();
            } else {
                take::<T, 0>(tiles, job, row, upper, panel);
                if RIGHT {
                    take::<T, 1>(tiles, job, row, upper, right);
                }
                if LOWER {
                    take::<T, 2>(tiles, job, below, lower, panel);
                }
                if LOWER && RIGHT {
                    take::<T, 3>(tiles, job, below, lower, right);
                }
            }
            for step in 0..steps.count {
                let line = lines.start + step * TILE_LINES;
                x[0].load::<T, 4>(tiles, 4 * line, steps.row_bytes());
                tiles.load::<6>(w[0].add(line * LINE), LINE);
                tiles.dot_bf16::<0, 4, 6>();
                if RIGHT {
                    tiles.load::<7>(w[1].add(line * LINE), LINE);
                    tiles.dot_bf16::<1, 4, 7>();
                }
                if LOWER {
                    x[1].load::<T, 5>(tiles, 4 * line, steps.row_bytes());
                    tiles.dot_bf16::<2, 5, 6>();
                }
                if LOWER && RIGHT {
                    tiles.dot_bf16::<3, 5, 7>();
                }
                if fetch {
                    prefetch(w[0], line * LINE + AHEAD_IN_PART);
                    if RIGHT {
                        prefetch(w[1], line * LINE + AHEAD_IN_PART);
                    }
                }
            }
            put::<T, 0>(tiles, job, row, upper, panel);
            if RIGHT {
                put::<T, 1>(tiles, job, row, upper, right);
            }
            if LOWER {
                put::<T, 2>(tiles, job, below, lower, panel);
            }
            if LOWER && RIGHT {
                put::<T, 3>(tiles, job, below, lower, right);
            }
        }
    }
}
