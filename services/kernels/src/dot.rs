//! The inner loop of every linear layer: a small tile of rows × outputs, each element one dot product.
//!
//! An element is summed over 16 lanes along the inputs, then over the lanes by a fixed tree. Tile sizes and registers
//! differ by machine; the order of additions of one element never does.

use pulp::{Simd, bytemuck};

use crate::LANES;
use crate::reduce::sum_lanes;

/// Outputs of one tile.
pub const TILE_OUTPUTS: usize = 4;
/// Rows of one tile.
pub const TILE_ROWS: usize = 4;

/// Elements of one step of the loop; rows are padded to whole steps.
pub const STEP_ELEMENTS: usize = 2 * LANES;

/// One padded row of weights, as it lies in memory.
pub trait WeightRow: Copy {
    /// The row as registers.
    type Registers<S: Simd>: Copy;

    fn registers<S: Simd>(self) -> Self::Registers<S>;

    /// The 32 elements of step `step`, widened and in order, `V` registers for 16 of them.
    fn load<S: Simd, const V: usize>(simd: S, row: Self::Registers<S>, step: usize) -> [[S::f32s; V]; 2];
}

impl<'a> WeightRow for &'a [f32] {
    type Registers<S: Simd> = &'a [S::f32s];

    #[inline(always)]
    fn registers<S: Simd>(self) -> &'a [S::f32s] {
        S::as_simd_f32s(self).0
    }

    #[inline(always)]
    fn load<S: Simd, const V: usize>(simd: S, row: &'a [S::f32s], step: usize) -> [[S::f32s; V]; 2] {
        let mut wide = [[simd.splat_f32s(0.0); V]; 2];
        for v in 0..V {
            wide[0][v] = row[2 * step * V + v];
            wide[1][v] = row[(2 * step + 1) * V + v];
        }
        wide
    }
}

impl<'a> WeightRow for &'a [u32] {
    type Registers<S: Simd> = &'a [S::u32s];

    #[inline(always)]
    fn registers<S: Simd>(self) -> &'a [S::u32s] {
        S::as_simd_u32s(self).0
    }

    #[inline(always)]
    fn load<S: Simd, const V: usize>(simd: S, row: &'a [S::u32s], step: usize) -> [[S::f32s; V]; 2] {
        let shift = simd.splat_u32s(16);
        let mask = simd.splat_u32s(0xffff_0000);
        let mut wide = [[simd.splat_f32s(0.0); V]; 2];
        for v in 0..V {
            let words = row[step * V + v];
            wide[0][v] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, shift));
            wide[1][v] = simd.transmute_f32s_u32s(simd.and_u32s(words, mask));
        }
        wide
    }
}

/// `out[r][o] = Σ x[r][i] · w[o][i]` for `R` rows and `O` outputs. All slices are padded to whole steps.
///
/// Plain loops only: a closure that is not inlined would lose the instruction set.
#[inline(always)]
pub fn tile<S: Simd, W: WeightRow, const V: usize, const R: usize, const O: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [W; O],
) -> [[f32; O]; R] {
    let steps = x[0].len() / (STEP_ELEMENTS);
    let mut inputs: [&[S::f32s]; R] = [&[]; R];
    for r in 0..R {
        inputs[r] = &S::as_simd_f32s(x[r]).0[..steps * 2 * V];
    }
    let mut weights = [w[0].registers::<S>(); O];
    for o in 0..O {
        weights[o] = w[o].registers::<S>();
    }
    let mut acc = [[[simd.splat_f32s(0.0); V]; O]; R];
    for step in 0..steps {
        let mut wide = [[[simd.splat_f32s(0.0); V]; 2]; O];
        for o in 0..O {
            wide[o] = W::load::<S, V>(simd, weights[o], step);
        }
        for part in 0..2 {
            for r in 0..R {
                for v in 0..V {
                    let input = inputs[r][(step * 2 + part) * V + v];
                    for o in 0..O {
                        acc[r][o][v] = simd.mul_add_f32s(input, wide[o][part][v], acc[r][o][v]);
                    }
                }
            }
        }
    }
    let mut out = [[0.0; O]; R];
    for r in 0..R {
        for o in 0..O {
            out[r][o] = sum_lanes(&spread::<S, V>(&acc[r][o]));
        }
    }
    out
}

/// The 16 lanes of `V` registers as numbers.
#[inline(always)]
pub fn spread<S: Simd, const V: usize>(registers: &[S::f32s; V]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(bytemuck::cast_slice(registers));
    lanes
}
