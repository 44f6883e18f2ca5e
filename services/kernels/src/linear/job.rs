//! What one task of a product is: some rows of an input, some panels of a matrix, and where the results go.

#[cfg(target_arch = "x86_64")]
mod tiled;

use std::ops::Range;

use crate::input::FormRows;
use crate::matrix::{GROUP, LINE, Layout, Matrix, PANEL, Storage};
use crate::split::Split;

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

    /// The activation of `row` that the first line of the job begins with; a line is so many bytes of it.
    #[inline(always)]
    pub fn activations(&self, row: usize, line_bytes: usize) -> *const u8 {
        // SAFETY: `new`'s caller has promised the row.
        unsafe { self.x.data.add(self.x_row(row) * self.x.stride + self.lines.start * line_bytes) }
    }

    /// Scale and start of the groups of `row`.
    #[inline(always)]
    pub fn activation_groups(&self, row: usize) -> *const crate::input::Group {
        let of_row = self.layout.depth / GROUP;
        // SAFETY: as above.
        unsafe { self.x.groups.as_ptr().add(self.x_row(row) * of_row + self.groups().start) }
    }

    /// Groups of an int8 job.
    #[inline(always)]
    pub fn groups(&self) -> Range<usize> {
        const LINES: usize = GROUP / 4;
        self.lines.start / LINES..self.lines.end / LINES
    }

    /// Hands over the sums of `R` rows and `P` panels.
    #[inline(always)]
    pub fn put<const R: usize, const P: usize>(&self, row: usize, panel: usize, sums: [[[f32; PANEL]; P]; R]) {
        let Target { y, first, stride, width, rows, add } = self.target;
        let output = panel * PANEL;
        let end = (output + P * PANEL).min(width);
        let mut at: [*mut f32; R] = [std::ptr::null_mut(); R];
        for r in 0..R {
            let row = first + rows.map_or(row + r, |rows| rows[row + r]) * stride;
            at[r] = y.address(row + output..row + end);
        }
        if end < output + P * PANEL {
            for r in 0..R {
                for p in 0..P {
                    let (sums, count) = (sums[r][p], (end - output).saturating_sub(p * PANEL).min(PANEL));
                    // SAFETY: as below, for the elements that there are.
                    let y = unsafe { std::slice::from_raw_parts_mut(at[r].wrapping_add(p * PANEL), count) };
                    put_part(y, &sums, add);
                }
            }
            return;
        }
        // Apart from each other, so that sums go from registers to memory without a look at each.
        match add {
            None => {
                for r in 0..R {
                    // SAFETY: `P` panels of the row are inside of `y`, and this job's alone, by the promise of `new`'s caller.
                    unsafe { *at[r].cast() = sums[r] };
                }
            }
            Some(scale) => {
                for r in 0..R {
                    // SAFETY: as above.
                    let y = unsafe { &mut *at[r].cast::<[[f32; PANEL]; P]>() };
                    for p in 0..P {
                        add_scaled(&mut y[p], &sums[r][p], scale);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn x_row(&self, row: usize) -> usize {
        self.x_rows.map_or(row, |rows| rows[row])
    }
}

/// The last panel, if it is not full.
#[cold]
#[inline(never)]
fn put_part(y: &mut [f32], sums: &[f32; PANEL], add: Option<f32>) {
    match add {
        None => y.copy_from_slice(&sums[..y.len()]),
        Some(scale) => add_scaled(y, sums, scale),
    }
}

/// Two roundings on every machine: the result does not depend on whether there is an FMA.
#[inline(always)]
fn add_scaled(y: &mut [f32], sums: &[f32; PANEL], scale: f32) {
    for (y, sum) in y.iter_mut().zip(sums) {
        *y += scale * sum;
    }
}
