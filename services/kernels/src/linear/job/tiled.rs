//! What kernels on tiles ask of a job: rows that lie at equal distances, to be read or written sixteen at a time.

use std::ops::Range;

use super::{Job, Target};
use crate::matrix::PANEL;

impl Job<'_> {
    /// Panels, the first of the job's, whose sums replace what is in `y`: all 16 of them, rows one behind the other.
    #[inline(always)]
    pub fn panels_in_place(&self) -> Range<usize> {
        let Range { start, end } = self.panels;
        match self.target {
            Target { width, rows: None, add: None, .. } => start..(width / PANEL).clamp(start, end),
            _ => start..start,
        }
    }

    /// Where the sums of `rows` and of one of [`Job::panels_in_place`] lie, and values from a row to the next one.
    #[inline(always)]
    pub fn in_place(&self, rows: Range<usize>, panel: usize) -> (*mut f32, usize) {
        let Target { y, first, stride, .. } = self.target;
        let at = |row: usize| first + row * stride + panel * PANEL;
        (y.address(at(rows.start)..at(rows.end - 1) + PANEL), stride)
    }
}
