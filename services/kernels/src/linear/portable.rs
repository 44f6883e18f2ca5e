//! Products in plain Rust, which the compiler vectorises for whatever the target has.
use half::f16;

use super::blocking;
use super::job::{Ahead, Job};
use super::short;
use super::tile::{self, Chain, Grouped, Registers};
use crate::input::Group;
use crate::matrix::{LINE, PANEL, Storage};

/// Does `job`.
pub fn run(job: &Job<'_>) {
    // SAFETY: it takes no instructions that a target might lack.
    unsafe {
        match job.storage() {
            Storage::F32 => blocking::narrow_chain::<F32>(job),
            Storage::Bf16 => blocking::narrow_chain::<Bf16>(job),
            Storage::Int8 if job.is_short() => short::grouped::<Int8>(job),
            Storage::Int8 => blocking::narrow_grouped::<Int8>(job),
        }
    }
}

struct F32;

impl Chain for F32 {
    type Registers = Portable;
    type Weights = [f32; PANEL];
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { line.cast::<[f32; PANEL]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add(mut sums: [f32; PANEL], weights: Self::Weights, x: *const u8) -> [f32; PANEL] {
        // SAFETY: one activation of the row.
        let x = unsafe { x.cast::<f32>().read_unaligned() };
        for o in 0..PANEL {
            sums[o] += weights[o] * x;
        }
        sums
    }
}

struct Bf16;

impl Chain for Bf16 {
    type Registers = Portable;
    type Weights = [[f32; PANEL]; 2];
    const LINE_BYTES: usize = 8;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        let words = unsafe { line.cast::<[u32; PANEL]>().read_unaligned() };
        [words.map(|word| f32::from_bits(word << 16)), words.map(|word| f32::from_bits(word & 0xffff_0000))]
    }

    #[inline(always)]
    unsafe fn add(mut sums: [f32; PANEL], weights: Self::Weights, x: *const u8) -> [f32; PANEL] {
        // SAFETY: two activations of the row.
        let x = unsafe { x.cast::<[f32; 2]>().read_unaligned() };
        for (weights, x) in weights.iter().zip(x) {
            for o in 0..PANEL {
                sums[o] += weights[o] * x;
            }
        }
        sums
    }
}

struct Int8;

impl Grouped for Int8 {
    type Registers = Portable;
    type Weights = [u8; LINE];
    type Scales = [f32; PANEL];
    type Partial = [i32; PANEL];

    #[inline(always)]
    unsafe fn start(start: i32) -> Self::Partial {
        [start; PANEL]
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { line.cast::<[u8; LINE]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_scales(scales: *const u8) -> Self::Scales {
        // SAFETY: 16 scales of a group.
        unsafe { scales.cast::<[u16; PANEL]>().read_unaligned() }.map(|bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Partial, weights: Self::Weights, x: *const u8) -> Self::Partial {
        // SAFETY: four activations of the row.
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() };
        for o in 0..PANEL {
            for i in 0..4 {
                sums[o] += i32::from(weights[4 * o + i]) * i32::from(x[i]);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn combine(
        mut sums: [f32; PANEL],
        partial: Self::Partial,
        scales: Self::Scales,
        group: Group,
    ) -> [f32; PANEL] {
        for o in 0..PANEL {
            sums[o] = (partial[o] as f32).mul_add(scales[o] * group.scale, sums[o]);
        }
        sums
    }
}

/// 16 f32 in whatever registers there are.
pub struct Portable;

impl Registers for Portable {
    type Sums = [f32; PANEL];

    #[inline(always)]
    fn zero() -> [f32; PANEL] {
        [0.0; PANEL]
    }

    #[inline(always)]
    unsafe fn put(y: *mut f32, sums: [f32; PANEL]) {
        // SAFETY: the caller's promise.
        unsafe { y.cast::<[f32; PANEL]>().write_unaligned(sums) }
    }

    #[inline(always)]
    unsafe fn add(y: *mut f32, sums: [f32; PANEL], scale: f32) {
        // SAFETY: the caller's promise.
        let y = unsafe { &mut *y.cast::<[f32; PANEL]>() };
        for o in 0..PANEL {
            y[o] += scale * sums[o];
        }
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}

    #[inline(never)]
    unsafe fn chain<C, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        C: Chain<Registers = Self>,
    {
        // SAFETY: the caller's promise.
        unsafe { tile::chain::<C, R, P>(job, row, panel, ahead) }
    }

    #[inline(never)]
    unsafe fn grouped<G, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        G: Grouped<Registers = Self>,
    {
        // SAFETY: the caller's promise.
        unsafe { tile::grouped::<G, R, P>(job, row, panel, ahead) }
    }
}
