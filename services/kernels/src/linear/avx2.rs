//! Products with AVX2, FMA and F16C: a line is two registers of 8 outputs.
#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use std::arch::x86_64::*;

use super::blocking;
use super::job::{Ahead, Job};
use super::short;
use super::tile::{self, Chain, Grouped, Registers};
use crate::input::Group;
use crate::matrix::Storage;

/// Does `job`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run(job: &Job<'_>) {
    // SAFETY: the instructions are those of this function.
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
    type Registers = Avx2;
    type Weights = [__m256; 2];
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { [_mm256_loadu_ps(line.cast()), _mm256_loadu_ps(line.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn add(sums: [__m256; 2], weights: Self::Weights, x: *const u8) -> [__m256; 2] {
        // SAFETY: one activation of the row.
        unsafe {
            let x = _mm256_broadcast_ss(&*x.cast());
            [_mm256_fmadd_ps(weights[0], x, sums[0]), _mm256_fmadd_ps(weights[1], x, sums[1])]
        }
    }
}

struct Bf16;

impl Chain for Bf16 {
    type Registers = Avx2;
    type Weights = [__m256i; 2];
    const LINE_BYTES: usize = 8;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { [_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn add(mut sums: [__m256; 2], weights: Self::Weights, x: *const u8) -> [__m256; 2] {
        // SAFETY: two activations of the row.
        unsafe {
            let (even, odd) = (_mm256_broadcast_ss(&*x.cast()), _mm256_broadcast_ss(&*x.add(4).cast()));
            let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
            for half in 0..2 {
                let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(weights[half]));
                let second = _mm256_castsi256_ps(_mm256_and_si256(weights[half], high));
                sums[half] = _mm256_fmadd_ps(first, even, sums[half]);
                sums[half] = _mm256_fmadd_ps(second, odd, sums[half]);
            }
        }
        sums
    }
}

struct Int8;

impl Grouped for Int8 {
    type Registers = Avx2;
    type Weights = [__m128i; 4];
    type Scales = [__m256; 2];
    /// Two sums of each output side by side, four outputs a register.
    type Partial = ([__m256i; 4], i32);

    #[inline(always)]
    unsafe fn start(start: i32) -> Self::Partial {
        // SAFETY: zeros are numbers.
        (unsafe { std::mem::zeroed() }, start)
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe {
            let mut weights = [_mm_setzero_si128(); 4];
            for i in 0..4 {
                weights[i] = _mm_loadu_si128(line.add(16 * i).cast());
            }
            weights
        }
    }

    #[inline(always)]
    unsafe fn load_scales(scales: *const u8) -> Self::Scales {
        // SAFETY: 16 scales of a group.
        unsafe {
            let (low, high) = (_mm_loadu_si128(scales.cast()), _mm_loadu_si128(scales.add(16).cast()));
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }

    /// Widened to 16 bits: products of bytes (`vpmaddubsw`) would saturate.
    #[inline(always)]
    unsafe fn add(mut sums: Self::Partial, weights: Self::Weights, x: *const u8) -> Self::Partial {
        // SAFETY: four activations of the row.
        unsafe {
            let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(x.cast::<i32>().read_unaligned()));
            for i in 0..4 {
                let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(weights[i]), x);
                sums.0[i] = _mm256_add_epi32(sums.0[i], products);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn combine(
        mut sums: [__m256; 2],
        partial: Self::Partial,
        scales: Self::Scales,
        group: Group,
    ) -> [__m256; 2] {
        // SAFETY: registers only.
        unsafe {
            let (pairs, start) = partial;
            let (start, scale) = (_mm256_set1_epi32(start), _mm256_set1_ps(group.scale));
            for half in 0..2 {
                let crossed = _mm256_hadd_epi32(pairs[2 * half], pairs[2 * half + 1]);
                let total = _mm256_add_epi32(_mm256_permute4x64_epi64::<0b11_01_10_00>(crossed), start);
                let factor = _mm256_mul_ps(scales[half], scale);
                sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), factor, sums[half]);
            }
        }
        sums
    }
}

/// 16 registers of 8 f32; sums of 16 outputs take two.
struct Avx2;

impl Registers for Avx2 {
    type Sums = [__m256; 2];

    #[inline(always)]
    fn zero() -> [__m256; 2] {
        // SAFETY: zeros are numbers.
        unsafe { std::mem::zeroed() }
    }

    #[inline(always)]
    unsafe fn put(y: *mut f32, sums: [__m256; 2]) {
        for half in 0..2 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(y.add(8 * half), sums[half]) }
        }
    }

    #[inline(always)]
    unsafe fn add(y: *mut f32, sums: [__m256; 2], scale: f32) {
        for half in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                let y = y.add(8 * half);
                let change = _mm256_mul_ps(_mm256_set1_ps(scale), sums[half]);
                _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), change));
            }
        }
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        // SAFETY: a hint; no memory is accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline(never)]
    unsafe fn chain<C, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        C: Chain<Registers = Self>,
    {
        // SAFETY: the caller's promise.
        unsafe { tile::chain::<C, R, P>(job, row, panel, ahead) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline(never)]
    unsafe fn grouped<G, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
    where
        G: Grouped<Registers = Self>,
    {
        // SAFETY: the caller's promise.
        unsafe { tile::grouped::<G, R, P>(job, row, panel, ahead) }
    }
}
