//! Sums of rows with factors: the inner loop of every gradient that is no product with a packed matrix.

use crate::LANES;
use crate::vectorized::vectorized;

/// Rows of one call at most.
pub const ROWS: usize = 16;
/// Columns whose sums stay in registers.
const COLUMNS: usize = 64;

vectorized! {
    /// `out += Σ factors[i] · rows[i]` for as many rows as there are, up to 16; row `i` begins at `i · stride`. A sum runs
    /// over the rows in order.
    pub fn add_rows(factors: &[f32; ROWS], rows: &[f32], stride: usize, out: &mut [f32]) {
        let width = out.len();
        let row = |i: usize| rows.get(i * stride..).and_then(|row| row.get(..width));
        let (blocks, rest) = out.as_chunks_mut::<COLUMNS>();
        let mut first = 0;
        for block in blocks {
            add_block(block, factors, (0..).map_while(row).map(|row| &row[first..]));
            first += COLUMNS;
        }
        let (blocks, rest) = rest.as_chunks_mut::<{ COLUMNS / 2 }>();
        for block in blocks {
            add_block(block, factors, (0..).map_while(row).map(|row| &row[first..]));
            first += COLUMNS / 2;
        }
        let (blocks, rest) = rest.as_chunks_mut::<LANES>();
        for block in blocks {
            add_block(block, factors, (0..).map_while(row).map(|row| &row[first..]));
            first += LANES;
        }
        for sum in rest {
            for (factor, row) in factors.iter().zip((0..).map_while(row)) {
                *sum = factor.mul_add(row[first], *sum);
            }
            first += 1;
        }
    }
}

#[inline(always)]
fn add_block<'a, const N: usize>(block: &mut [f32; N], factors: &[f32; ROWS], rows: impl Iterator<Item = &'a [f32]>) {
    let mut sums = *block;
    for (factor, row) in factors.iter().zip(rows) {
        for (sum, value) in sums.iter_mut().zip(&row[..N]) {
            *sum = factor.mul_add(*value, *sum);
        }
    }
    *block = sums;
}

/// `out += Σ factors[i] · rows[i]` for any number of rows.
pub fn add_all_rows(isa: crate::Isa, factors: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    for (chunk, first) in factors.chunks(ROWS).zip((0..).step_by(ROWS)) {
        let mut padded = [0.0; ROWS];
        padded[..chunk.len()].copy_from_slice(chunk);
        let end = rows.len().min((first + chunk.len()) * stride);
        add_rows(isa, &padded, &rows[first * stride..end], stride, out);
    }
}
