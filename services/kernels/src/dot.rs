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

/// One padded row of weights, as it lies in memory.
pub trait WeightRow: Copy {
    /// Hints how many vectors one [`WeightRow::load`] step covers: 1 for f32, 2 for packed bf16.
    const STEP: usize;

    /// Widened vectors of step `step`: elements `16 · STEP · step ..`, in order, `V` registers for 16 elements.
    fn load<S: Simd, const V: usize>(self, simd: S, step: usize) -> [[S::f32s; V]; 2];
}

impl WeightRow for &[f32] {
    const STEP: usize = 1;

    #[inline(always)]
    fn load<S: Simd, const V: usize>(self, simd: S, step: usize) -> [[S::f32s; V]; 2] {
        let first = load16::<S, V>(S::as_simd_f32s(self).0, step);
        [first, [simd.splat_f32s(0.0); V]]
    }
}

impl WeightRow for &[u32] {
    const STEP: usize = 2;

    #[inline(always)]
    fn load<S: Simd, const V: usize>(self, simd: S, step: usize) -> [[S::f32s; V]; 2] {
        let words = &S::as_simd_u32s(self).0[step * V..][..V];
        let shift = simd.splat_u32s(16);
        let mask = simd.splat_u32s(0xffff_0000);
        let mut wide = [[simd.splat_f32s(0.0); V]; 2];
        for v in 0..V {
            wide[0][v] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words[v], shift));
            wide[1][v] = simd.transmute_f32s_u32s(simd.and_u32s(words[v], mask));
        }
        wide
    }
}

/// `out[r][o] = Σ x[r][i] · w[o][i]` for `R` rows and `O` outputs. All slices are padded to whole steps.
#[inline(always)]
pub fn tile<S: Simd, W: WeightRow, const V: usize, const R: usize, const O: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [W; O],
) -> [[f32; O]; R] {
    let steps = x[0].len() / (LANES * W::STEP);
    let x = x.map(|row| S::as_simd_f32s(row).0);
    let mut acc = [[[simd.splat_f32s(0.0); V]; O]; R];
    for step in 0..steps {
        let weights = w.map(|row| row.load::<S, V>(simd, step));
        for part in 0..W::STEP {
            for r in 0..R {
                let input = load16::<S, V>(x[r], step * W::STEP + part);
                for o in 0..O {
                    for v in 0..V {
                        acc[r][o][v] = simd.mul_add_f32s(input[v], weights[o][part][v], acc[r][o][v]);
                    }
                }
            }
        }
    }
    acc.map(|row| row.map(|lanes| sum_lanes(&spread::<S, V>(&lanes))))
}

#[inline(always)]
fn load16<S: Simd, const V: usize>(row: &[S::f32s], index: usize) -> [S::f32s; V] {
    let mut out = [row[index * V]; V];
    out.copy_from_slice(&row[index * V..][..V]);
    out
}

/// The 16 lanes of `V` registers as numbers.
#[inline(always)]
pub fn spread<S: Simd, const V: usize>(registers: &[S::f32s; V]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(bytemuck::cast_slice(registers));
    lanes
}
