//! Registers as numbers.

use pulp::{Simd, bytemuck};

use crate::LANES;

/// The 16 lanes of `V` registers as numbers.
#[inline(always)]
pub fn spread<S: Simd, const V: usize>(registers: &[S::f32s; V]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(bytemuck::cast_slice(registers));
    lanes
}
