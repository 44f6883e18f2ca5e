//! The second half of a low-rank product: a short vector times a wide matrix, added to a row.

use pulp::{Arch, Simd, WithSimd};

use crate::LANES;

/// `row[o] += scale · Σ h[i] · b[i][o]`, with `b` `[h.len(), row.len()]`. The sum runs over `i` in order.
pub fn expand(h: &[f32], b: &[f32], scale: f32, row: &mut [f32]) {
    assert_eq!(b.len(), h.len() * row.len(), "b is [rank, outputs]");
    Arch::new().dispatch(Expand { h, b, scale, row });
}

struct Expand<'a> {
    h: &'a [f32],
    b: &'a [f32],
    scale: f32,
    row: &'a mut [f32],
}

impl WithSimd for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            LANES => self.run::<S, 4>(simd),
            8 => self.run::<S, 8>(simd),
            4 => self.run::<S, 8>(simd),
            _ => self.run::<S, 4>(simd),
        }
    }
}

impl Expand<'_> {
    /// `N` registers of outputs at a time; what does not fill them is done one by one in the same order.
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let Expand { h, b, scale, row } = self;
        let outputs = row.len();
        let width = N * S::F32_LANES;
        let factor = simd.splat_f32s(scale);
        let mut first = 0;
        while first + width <= outputs {
            let mut acc = [simd.splat_f32s(0.0); N];
            for (i, h) in h.iter().enumerate() {
                let h = simd.splat_f32s(*h);
                let b = S::as_simd_f32s(&b[i * outputs + first..][..width]).0;
                for n in 0..N {
                    acc[n] = simd.mul_add_f32s(h, b[n], acc[n]);
                }
            }
            let out = S::as_mut_simd_f32s(&mut row[first..][..width]).0;
            for n in 0..N {
                out[n] = simd.mul_add_f32s(factor, acc[n], out[n]);
            }
            first += width;
        }
        for o in first..outputs {
            let sum = h.iter().enumerate().fold(0.0, |sum, (i, h)| h.mul_add(b[i * outputs + o], sum));
            row[o] = scale.mul_add(sum, row[o]);
        }
    }
}
