//! What one task of a product is: some rows of an input, some panels of a matrix, and where the results go.
#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

#[cfg(target_arch = "x86_64")]
mod tiled;

use std::ops::Range;

use super::tile::Registers;
use crate::input::FormRows;
use crate::matrix::{GROUP, LINE, Layout, Matrix, PANEL, Storage};
use crate::split::Split;

/// Rows of a tile at most, if they do not follow one another in the input.
pub const LISTED_ROWS: usize = 8;

/// Rows × panels × lines of one product. Every kernel takes one.
#[derive(Clone)]
pub struct Job<'a> {
    x: FormRows<'a>,
    /// The `i`-th row of the job is row `x_rows[i]` of the input; without it, row `i` is meant.
    x_rows: Option<&'a [usize]>,
    layout: &'a Layout,
    values: &'a [u8],
    scales: &'a [u8],
    /// Rows of the job.
    pub rows: Range<usize>,
    /// Panels of the matrix.
    pub panels: Range<usize>,
    /// Lines of each panel: all, or a part of the inputs.
    pub lines: Range<usize>,
    target: Target<'a>,
}

/// What is fetched while a tile passes over its lines: for line `i` of panel `p` of the tile, the line at
/// `first + i · 64 + p · stride`.
#[derive(Clone, Copy)]
pub struct Ahead {
    pub first: *const u8,
    pub stride: usize,
}

/// Where results go: `y[row][o] = sum`, or `y[row][o] += scale · sum`.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub y: &'a Split<'a, f32>,
    /// Where in `y` the first row begins.
    pub first: usize,
    /// Values from a row of `y` to the next one.
    pub stride: usize,
    /// Values of a row that there are; the last panel may have more.
    pub width: usize,
    /// The `i`-th row of the job is row `rows[i]` of `y`; without it, row `i` is meant.
    pub rows: Option<&'a [usize]>,
    /// Multiplies what is added; without it, the result replaces what is there.
    pub add: Option<f32>,
}

impl<'a> Job<'a> {
    /// All inputs; the caller narrows the ranges.
    ///
    /// # Safety
    /// `x` has a row for each that the job names, of the matrix' depth. The elements of `y` that the job names are inside of
    /// it, and of no other job that runs meanwhile.
    pub unsafe fn new(
        x: FormRows<'a>,
        x_rows: Option<&'a [usize]>,
        matrix: &'a Matrix,
        rows: Range<usize>,
        panels: Range<usize>,
        target: Target<'a>,
    ) -> Job<'a> {
        let layout = matrix.layout();
        let (values, scales) = matrix.packed().split_at(layout.values_bytes());
        assert!(panels.end <= layout.panels, "panels of the matrix");
        assert!(x_rows.is_none_or(|list| rows.end <= list.len()), "rows of the input");
        Job { x, x_rows, layout, values, scales, rows, panels, lines: 0..layout.lines(), target }
    }

    /// Its int8 weights have one group of inputs, which is not whole ([`super::short`]).
    pub fn is_short(&self) -> bool {
        self.layout.is_short()
    }

    pub fn storage(&self) -> Storage {
        self.layout.storage
    }

    /// The first line of the job in `panel`, and bytes from a panel to the next one.
    #[inline(always)]
    pub fn weights(&self, panel: usize) -> (*const u8, usize) {
        let stride = self.layout.panel_bytes();
        debug_assert!(panel < self.layout.panels && self.lines.end * LINE <= stride);
        // SAFETY: the panel and its lines are inside of the matrix.
        (unsafe { self.values.as_ptr().add(panel * stride + self.lines.start * LINE) }, stride)
    }

    /// The 16 f16 scales of the job's first group in `panel`, and bytes from a panel to the next one.
    #[inline(always)]
    pub fn weight_scales(&self, panel: usize) -> (*const u8, usize) {
        let stride = self.layout.panel_scale_bytes();
        debug_assert!(panel < self.layout.panels);
        // SAFETY: as above; lines of a job begin at a group.
        (unsafe { self.scales.as_ptr().add(panel * stride + self.groups().start * 2 * PANEL) }, stride)
    }

    /// The activations of `R` rows that the first line of the job begins with; a line is so many bytes of each.
    #[inline(always)]
    pub fn activations<const R: usize>(&self, row: usize, line_bytes: usize) -> [*const u8; R] {
        let first = self.lines.start * line_bytes;
        // SAFETY: `new`'s caller has promised the rows.
        self.each_row(row, |row| unsafe { self.x.data.add(row * self.x.stride + first) })
    }

    /// Scale and start of the groups of `R` rows.
    #[inline(always)]
    pub fn activation_groups<const R: usize>(&self, row: usize) -> [*const crate::input::Group; R] {
        let (of_row, first) = (self.layout.groups(), self.groups().start);
        // SAFETY: as above.
        self.each_row(row, |row| unsafe { self.x.groups.as_ptr().add(row * of_row + first) })
    }

    /// Bytes from each of `rows` to the next one, where they follow one another in the input.
    #[inline(always)]
    pub fn distance(&self, rows: Range<usize>) -> Option<usize> {
        let follow = self.x_rows.is_none_or(|list| list[rows].windows(2).all(|pair| pair[0] + 1 == pair[1]));
        follow.then_some(self.x.stride)
    }

    /// Groups of an int8 job.
    #[inline(always)]
    pub fn groups(&self) -> Range<usize> {
        const LINES: usize = GROUP / 4;
        self.lines.start / LINES..self.lines.end.div_ceil(LINES)
    }

    /// Hands over the sums of `R` rows and `P` panels.
    ///
    /// # Safety
    /// The machine has the instructions of `T`.
    #[inline(always)]
    pub unsafe fn put<T: Registers, const R: usize, const P: usize>(
        &self,
        row: usize,
        panel: usize,
        sums: [[T::Sums; P]; R],
    ) {
        let Target { y, first, stride, width, rows, add } = self.target;
        let output = panel * PANEL;
        let end = (output + P * PANEL).min(width);
        let mut at: [*mut f32; R] = [std::ptr::null_mut(); R];
        for r in 0..R {
            let row = first + rows.map_or(row + r, |rows| rows[row + r]) * stride;
            at[r] = y.address(row + output..row + end);
        }
        // Apart from each other, so that sums go from registers to memory without a look at each.
        // SAFETY: the outputs up to `end` are inside of `y`, and this job's alone, by the promise of `new`'s caller.
        unsafe {
            match add {
                _ if end < output + P * PANEL => put_part::<T, R, P>(&at, end - output, &sums, add),
                None => {
                    for r in 0..R {
                        for p in 0..P {
                            T::put(at[r].add(p * PANEL), sums[r][p]);
                        }
                    }
                }
                Some(scale) => {
                    for r in 0..R {
                        for p in 0..P {
                            T::add(at[r].add(p * PANEL), sums[r][p], scale);
                        }
                    }
                }
            }
        }
    }

    /// What belongs to `R` rows of the input. More than [`LISTED_ROWS`] follow one another: addresses at equal distances
    /// take two registers, others one each, of which there are no more.
    #[inline(always)]
    fn each_row<T, const R: usize>(&self, row: usize, of: impl Fn(usize) -> *const T) -> [*const T; R] {
        let mut all = [std::ptr::null(); R];
        let begin = self.x_rows.filter(|_| R > LISTED_ROWS).map_or(row, |rows| rows[row]);
        for r in 0..R {
            all[r] = match self.x_rows {
                Some(rows) if R <= LISTED_ROWS => of(rows[row + r]),
                _ => of(begin + r),
            };
        }
        all
    }
}

/// The last panel, if it is not full: `count` outputs of a row.
///
/// # Safety
/// The machine has the instructions of `T`, and they are inside of `y`.
#[cold]
#[inline(always)]
unsafe fn put_part<T: Registers, const R: usize, const P: usize>(
    at: &[*mut f32; R],
    count: usize,
    sums: &[[T::Sums; P]; R],
    add: Option<f32>,
) {
    for r in 0..R {
        let mut values = [0.0; PANEL];
        for p in 0..P {
            let count = count.saturating_sub(p * PANEL).min(PANEL);
            // SAFETY: the caller's promise.
            unsafe {
                T::put(values.as_mut_ptr(), sums[r][p]);
                let y = std::slice::from_raw_parts_mut(at[r].wrapping_add(p * PANEL), count);
                copy_or_add(y, &values, add);
            }
        }
    }
}

#[cold]
#[inline(never)]
fn copy_or_add(y: &mut [f32], sums: &[f32; PANEL], add: Option<f32>) {
    match add {
        None => y.copy_from_slice(&sums[..y.len()]),
        Some(scale) => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += scale * sum),
    }
}
