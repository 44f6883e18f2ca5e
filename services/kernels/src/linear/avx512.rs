//! Products with AVX-512 and VNNI, and with `vdpbf16ps` where there is one: a line is one register of 16 outputs.

use std::arch::x86_64::*;

use super::blocking;
use super::job::{Ahead, Job};
use super::tile::{self, Chain, Grouped};
use crate::input::Group;
use crate::matrix::{PANEL, Storage};

/// Does `job`; bf16 weights are widened.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL, DQ and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub unsafe fn run(job: &Job<'_>) {
    // SAFETY: the instructions are those of this function.
    unsafe {
        match job.storage() {
            Storage::F32 => blocking::wide_chain::<F32>(job),
            Storage::Bf16 => blocking::wide_chain::<WidenedBf16>(job),
            Storage::Int8 => blocking::wide_grouped::<Int8>(job),
        }
    }
}

/// Does `job` of bf16 weights.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL, DQ and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
pub unsafe fn run_bf16(job: &Job<'_>) {
    // SAFETY: the instructions are those of this function.
    unsafe { blocking::wide_chain::<Bf16>(job) }
}

#[inline(always)]
fn prefetch(line: *const u8) {
    // SAFETY: a hint; no memory is accessed.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
}

#[inline(always)]
fn values(sums: __m512) -> [f32; PANEL] {
    // SAFETY: both are 16 f32.
    unsafe { std::mem::transmute(sums) }
}

#[inline(always)]
fn zero() -> __m512 {
    // SAFETY: zeros are numbers.
    unsafe { std::mem::zeroed() }
}

struct F32;

impl Chain for F32 {
    type Weights = __m512;
    type Sums = __m512;
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    fn zero() -> Self::Sums {
        zero()
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_loadu_ps(line.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, x: *const u8) -> Self::Sums {
        // SAFETY: one activation of the row.
        unsafe { _mm512_fmadd_ps(weights, _mm512_set1_ps(x.cast::<f32>().read_unaligned()), sums) }
    }

    #[inline(always)]
    fn values(sums: Self::Sums) -> [f32; PANEL] {
        values(sums)
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { chain_tile::<Self, R, P>(job, row, panel, ahead) }
    }
}

struct WidenedBf16;

impl Chain for WidenedBf16 {
    type Weights = [__m512; 2];
    type Sums = __m512;
    const LINE_BYTES: usize = 8;

    #[inline(always)]
    fn zero() -> Self::Sums {
        zero()
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe {
            let words = _mm512_loadu_si512(line.cast());
            let high = _mm512_set1_epi32(0xffff_0000u32 as i32);
            let (even, odd) = (_mm512_slli_epi32::<16>(words), _mm512_and_si512(words, high));
            [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, x: *const u8) -> Self::Sums {
        // SAFETY: two activations of the row.
        unsafe {
            let [even, odd] = x.cast::<[f32; 2]>().read_unaligned();
            let sums = _mm512_fmadd_ps(weights[0], _mm512_set1_ps(even), sums);
            _mm512_fmadd_ps(weights[1], _mm512_set1_ps(odd), sums)
        }
    }

    #[inline(always)]
    fn values(sums: Self::Sums) -> [f32; PANEL] {
        values(sums)
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { chain_tile::<Self, R, P>(job, row, panel, ahead) }
    }
}

struct Bf16;

impl Chain for Bf16 {
    type Weights = __m512i;
    type Sums = __m512;
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    fn zero() -> Self::Sums {
        zero()
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_loadu_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, x: *const u8) -> Self::Sums {
        // SAFETY: two activations of the row; the bits of registers are numbers of any kind.
        unsafe {
            let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
            let weights = std::mem::transmute::<__m512i, __m512bh>(weights);
            let x = std::mem::transmute::<__m512i, __m512bh>(x);
            _mm512_dpbf16_ps(sums, weights, x)
        }
    }

    #[inline(always)]
    fn values(sums: Self::Sums) -> [f32; PANEL] {
        values(sums)
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { bf16_tile::<Self, R, P>(job, row, panel, ahead) }
    }
}

struct Int8;

impl Grouped for Int8 {
    type Weights = __m512i;
    type Scales = __m512;
    type Partial = __m512i;
    type Sums = __m512;

    #[inline(always)]
    fn zero() -> Self::Sums {
        zero()
    }

    #[inline(always)]
    unsafe fn start(start: i32) -> Self::Partial {
        // SAFETY: registers only.
        unsafe { _mm512_set1_epi32(start) }
    }

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_loadu_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn load_scales(scales: *const u8) -> Self::Scales {
        // SAFETY: 16 scales of a group.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(scales.cast())) }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Partial, weights: Self::Weights, x: *const u8) -> Self::Partial {
        // SAFETY: four activations of the row.
        unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn combine(sums: Self::Sums, partial: Self::Partial, scales: Self::Scales, group: Group) -> Self::Sums {
        // SAFETY: registers only.
        unsafe {
            let factor = _mm512_mul_ps(scales, _mm512_set1_ps(group.scale));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(partial), factor, sums)
        }
    }

    #[inline(always)]
    fn values(sums: Self::Sums) -> [f32; PANEL] {
        values(sums)
    }

    #[inline(always)]
    fn prefetch(line: *const u8) {
        prefetch(line);
    }

    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
        // SAFETY: the caller's promise.
        unsafe { grouped_tile::<Self, R, P>(job, row, panel, ahead) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
#[inline(never)]
unsafe fn chain_tile<C: Chain, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
    // SAFETY: the caller's promise.
    unsafe { tile::chain::<C, R, P>(job, row, panel, ahead) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
#[inline(never)]
unsafe fn grouped_tile<G: Grouped, const R: usize, const P: usize>(
    job: &Job<'_>,
    row: usize,
    panel: usize,
    ahead: Ahead,
) {
    // SAFETY: the caller's promise.
    unsafe { tile::grouped::<G, R, P>(job, row, panel, ahead) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
#[inline(never)]
unsafe fn bf16_tile<C: Chain, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead) {
    // SAFETY: the caller's promise.
    unsafe { tile::chain::<C, R, P>(job, row, panel, ahead) }
}
