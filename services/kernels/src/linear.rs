//! `y = x Wᵀ`: one dense layer over a batch of rows. Outputs are cut over threads; each element is one dot product.

use std::borrow::Cow;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::LANES;
use crate::dot::{self, TILE_OUTPUTS, TILE_ROWS, WeightRow};
use crate::matrix::{Data, Matrix};

/// Outputs of one task: their weights stay in the second-level cache while all rows pass.
const TASK_OUTPUTS: usize = 32;
/// Below so many multiplications a task costs more to hand over than to do.
const SERIAL_PRODUCTS: usize = 1 << 16;

/// `y[r][o] = Σ x[r][i] · w[o][i]`, with `x` `[rows, inputs]` and `y` `[rows, outputs]`, row-major.
///
/// The bits of a row of `y` depend on that row of `x` and on `w` alone.
pub fn linear(x: &[f32], w: &Matrix, y: &mut [f32]) {
    let rows = rows_of(x, w, y);
    if rows == 0 {
        return;
    }
    let x = pad_rows(x, w.inputs(), w.stride());
    let products = rows * w.outputs() * w.stride();
    if rows == 1 {
        let task = |(i, y): (usize, &mut [f32])| block(&x, w, i * TASK_OUTPUTS, y);
        if products < SERIAL_PRODUCTS {
            y.chunks_mut(TASK_OUTPUTS).enumerate().for_each(task);
        } else {
            y.par_chunks_mut(TASK_OUTPUTS).enumerate().for_each(task);
        }
        return;
    }
    // Columns of y are no slices: each task fills a block of its own, [rows, TASK_OUTPUTS], and the blocks are laid side by side.
    let mut blocks = vec![0.0; rows * w.outputs()];
    let task = |(i, out): (usize, &mut [f32])| block(&x, w, i * TASK_OUTPUTS, out);
    if products < SERIAL_PRODUCTS {
        blocks.chunks_mut(rows * TASK_OUTPUTS).enumerate().for_each(task);
    } else {
        blocks.par_chunks_mut(rows * TASK_OUTPUTS).enumerate().for_each(task);
    }
    for (i, block) in blocks.chunks(rows * TASK_OUTPUTS).enumerate() {
        let width = block.len() / rows;
        for (row, part) in block.chunks_exact(width).enumerate() {
            y[row * w.outputs() + i * TASK_OUTPUTS..][..width].copy_from_slice(part);
        }
    }
}

/// Adds `bias` `[outputs]` to one row.
pub fn add_bias(row: &mut [f32], bias: &[f32]) {
    assert_eq!(row.len(), bias.len(), "a bias and its row");
    for (value, bias) in row.iter_mut().zip(bias) {
        *value += bias;
    }
}

/// Multiplies one row by `gain` `[outputs]`: the magnitude of DoRA.
pub fn scale_row(row: &mut [f32], gain: &[f32]) {
    assert_eq!(row.len(), gain.len(), "a gain and its row");
    for (value, gain) in row.iter_mut().zip(gain) {
        *value *= gain;
    }
}

/// As [`linear`], on the calling thread.
pub(crate) fn linear_serial(x: &[f32], w: &Matrix, y: &mut [f32]) {
    if rows_of(x, w, y) > 0 {
        block(&pad_rows(x, w.inputs(), w.stride()), w, 0, y);
    }
}

fn rows_of(x: &[f32], w: &Matrix, y: &[f32]) -> usize {
    let rows = x.len() / w.inputs();
    assert_eq!(x.len(), rows * w.inputs(), "x is [rows, inputs]");
    assert_eq!(y.len(), rows * w.outputs(), "y is [rows, outputs]");
    rows
}

fn pad_rows(x: &[f32], inputs: usize, stride: usize) -> Cow<'_, [f32]> {
    if inputs == stride {
        return Cow::Borrowed(x);
    }
    let mut padded = vec![0.0; x.len() / inputs * stride];
    for (out, row) in padded.chunks_exact_mut(stride).zip(x.chunks_exact(inputs)) {
        out[..inputs].copy_from_slice(row);
    }
    Cow::Owned(padded)
}

/// All rows of padded `x` times the outputs that begin at `first`: `out` is `[rows, width]`.
fn block(x: &[f32], w: &Matrix, first: usize, out: &mut [f32]) {
    let stride = w.stride();
    let width = out.len() / (x.len() / stride);
    match &w.data {
        Data::F32(data) => {
            Arch::new().dispatch(Block { x, stride, out, w: F32Rows { data: &data[first * stride..], stride }, width })
        }
        Data::Bf16(data) => {
            let words = stride / 2;
            let w = Bf16Rows { data: &data[first * words..], words };
            Arch::new().dispatch(Block { x, stride, out, w, width });
        }
    }
}

trait WeightRows: Copy {
    type Row: WeightRow;
    fn row(self, index: usize) -> Self::Row;
}

#[derive(Clone, Copy)]
struct F32Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> WeightRows for F32Rows<'a> {
    type Row = &'a [f32];
    #[inline(always)]
    fn row(self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.stride]
    }
}

#[derive(Clone, Copy)]
struct Bf16Rows<'a> {
    data: &'a [u32],
    words: usize,
}

impl<'a> WeightRows for Bf16Rows<'a> {
    type Row = &'a [u32];
    #[inline(always)]
    fn row(self, index: usize) -> &'a [u32] {
        &self.data[index * self.words..][..self.words]
    }
}

struct Block<'a, W> {
    x: &'a [f32],
    stride: usize,
    w: W,
    out: &'a mut [f32],
    width: usize,
}

impl<W: WeightRows> WithSimd for Block<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // 16 accumulators fill the registers of AVX-512 well; two registers an element leave room for 2 × 2 on AVX2.
        match S::F32_LANES {
            LANES => self.run::<S, 1, TILE_ROWS, TILE_OUTPUTS>(simd),
            8 => self.run::<S, 2, 2, 2>(simd),
            4 => self.run::<S, 4, 2, 2>(simd),
            _ => self.run::<S, LANES, 1, 1>(simd),
        }
    }
}

impl<W: WeightRows> Block<'_, W> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const R: usize, const O: usize>(self, simd: S) {
        let Block { x, stride, w, out, width } = self;
        let rows = x.len() / stride;
        let row = |r: usize| &x[r * stride..][..stride];
        let mut r = 0;
        while r + R <= rows {
            let mut tile = [row(r); R];
            for (i, tile) in tile.iter_mut().enumerate() {
                *tile = row(r + i);
            }
            rows_of_block::<S, W, V, R, O>(simd, tile, w, &mut out[r * width..][..R * width], width);
            r += R;
        }
        while r < rows {
            rows_of_block::<S, W, V, 1, O>(simd, [row(r)], w, &mut out[r * width..][..width], width);
            r += 1;
        }
    }
}

#[inline(always)]
fn rows_of_block<S: Simd, W: WeightRows, const V: usize, const R: usize, const O: usize>(
    simd: S,
    x: [&[f32]; R],
    w: W,
    out: &mut [f32],
    width: usize,
) {
    let mut o = 0;
    while o + O <= width {
        let mut weights = [w.row(o); O];
        for (i, weights) in weights.iter_mut().enumerate() {
            *weights = w.row(o + i);
        }
        let sums = dot::tile::<S, W::Row, V, R, O>(simd, x, weights);
        for r in 0..R {
            out[r * width + o..][..O].copy_from_slice(&sums[r]);
        }
        o += O;
    }
    while o < width {
        let sums = dot::tile::<S, W::Row, V, R, 1>(simd, x, [w.row(o)]);
        for r in 0..R {
            out[r * width + o] = sums[r][0];
        }
        o += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Storage;
    use crate::reference::{assert_close, assert_same_bits, values};

    fn reference(x: &[f32], w: &[f32], inputs: usize) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| dot(x, w))).collect()
    }

    /// Tolerance: inputs · 2⁻²⁴ relative to the largest possible sum, which is generous for 16 parallel lanes.
    #[test]
    fn f32_agrees_with_a_scalar_f64_product() {
        for (rows, inputs, outputs) in [(1, 1, 1), (1, 64, 37), (3, 33, 70), (4, 896, 100), (9, 130, 33), (17, 48, 5)] {
            let (x, w) = (values(rows * inputs, 1), values(outputs * inputs, 2));
            let mut y = vec![0.0; rows * outputs];
            linear(&x, &Matrix::from_values(outputs, inputs, Storage::F32, &w), &mut y);
            let tolerance = inputs as f64 * f64::from(f32::EPSILON) / 2.0;
            assert_close(&y, &reference(&x, &w, inputs), tolerance);
        }
    }

    #[test]
    fn bf16_weights_give_the_bits_of_the_same_weights_in_f32() {
        for (rows, inputs, outputs) in [(1, 16, 5), (2, 33, 40), (5, 100, 64), (8, 256, 33)] {
            let x = values(rows * inputs, 3);
            let w: Vec<f32> = values(outputs * inputs, 4).iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
            let (mut narrow, mut wide) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
            linear(&x, &Matrix::from_values(outputs, inputs, Storage::Bf16, &w), &mut narrow);
            linear(&x, &Matrix::from_values(outputs, inputs, Storage::F32, &w), &mut wide);
            assert_same_bits(&narrow, &wide);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_any_batch_and_with_any_threads() {
        let (inputs, outputs) = (200, 301);
        let x = values(37 * inputs, 5);
        for storage in [Storage::F32, Storage::Bf16] {
            let w = Matrix::from_values(outputs, inputs, storage, &values(outputs * inputs, 6));
            let mut alone = vec![0.0; 37 * outputs];
            for (x, y) in x.chunks(inputs).zip(alone.chunks_mut(outputs)) {
                linear(x, &w, y);
            }
            for rows in [2, 3, 4, 5, 6, 7, 8, 16, 37] {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut y = vec![0.0; rows * outputs];
                    pool.install(|| linear(&x[..rows * inputs], &w, &mut y));
                    assert_same_bits(&y, &alone[..rows * outputs]);
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (rows, inputs, outputs) = (5, 96, 23);
        let x = values(rows * inputs, 8);
        let w = values(outputs * inputs, 9);
        let mut best = vec![0.0; rows * outputs];
        linear(&x, &Matrix::from_values(outputs, inputs, Storage::F32, &w), &mut best);
        fn block<'a>(x: &'a [f32], w: &'a [f32], stride: usize, out: &'a mut [f32]) -> Block<'a, F32Rows<'a>> {
            Block { x, stride, w: F32Rows { data: w, stride }, width: w.len() / stride, out }
        }
        let mut other = vec![0.0; rows * outputs];
        block(&x, &w, inputs, &mut other).with_simd(pulp::Scalar);
        assert_same_bits(&best, &other);
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            other.fill(0.0);
            Simd::vectorize(avx2, block(&x, &w, inputs, &mut other));
            assert_same_bits(&best, &other);
        }
    }
}
