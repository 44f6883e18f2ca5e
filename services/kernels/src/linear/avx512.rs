//! Products with AVX-512 and VNNI, and with `vdpbf16ps` where there is one: a line is one register of 16 outputs.

use std::arch::x86_64::*;

use super::blocking;
use super::job::{Ahead, Job};
use super::short;
use super::tile::{self, Chain, Grouped, Registers};
use crate::input::Group;
use crate::matrix::Storage;

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
            Storage::Int8 if job.is_short() => short::grouped::<Int8>(job),
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

struct F32;

impl Chain for F32 {
    type Registers = Avx512;
    type Weights = __m512;
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_loadu_ps(line.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512, weights: Self::Weights, x: *const u8) -> __m512 {
        // SAFETY: one activation of the row.
        unsafe { _mm512_fmadd_ps(weights, _mm512_set1_ps(x.cast::<f32>().read_unaligned()), sums) }
    }
}

struct WidenedBf16;

impl Chain for WidenedBf16 {
    type Registers = Avx512;
    type Weights = [__m512; 2];
    const LINE_BYTES: usize = 8;

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
    unsafe fn add(sums: __m512, weights: Self::Weights, x: *const u8) -> __m512 {
        // SAFETY: two activations of the row.
        unsafe {
            let [even, odd] = x.cast::<[f32; 2]>().read_unaligned();
            let sums = _mm512_fmadd_ps(weights[0], _mm512_set1_ps(even), sums);
            _mm512_fmadd_ps(weights[1], _mm512_set1_ps(odd), sums)
        }
    }
}

struct Bf16;

impl Chain for Bf16 {
    type Registers = Avx512Bf16;
    type Weights = __m512i;
    const LINE_BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(line: *const u8) -> Self::Weights {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_loadu_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512, weights: Self::Weights, x: *const u8) -> __m512 {
        // SAFETY: two activations of the row; the bits of registers are numbers of any kind.
        unsafe {
            let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
            let weights = std::mem::transmute::<__m512i, __m512bh>(weights);
            let x = std::mem::transmute::<__m512i, __m512bh>(x);
            _mm512_dpbf16_ps(sums, weights, x)
        }
    }
}

struct Int8;

impl Grouped for Int8 {
    type Registers = Avx512;
    type Weights = __m512i;
    type Scales = __m512;
    type Partial = __m512i;

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
    unsafe fn combine(sums: __m512, partial: Self::Partial, scales: Self::Scales, group: Group) -> __m512 {
        // SAFETY: registers only.
        unsafe {
            let factor = _mm512_mul_ps(scales, _mm512_set1_ps(group.scale));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(partial), factor, sums)
        }
    }
}

/// The functions of tiles, compiled with `$features`.
macro_rules! registers {
    ($(#[$meta:meta])* $name:ident, $features:tt) => {
        $(#[$meta])*
        pub struct $name;

        impl Registers for $name {
            type Sums = __m512;

            #[inline(always)]
            fn zero() -> __m512 {
                // SAFETY: zeros are numbers.
                unsafe { std::mem::zeroed() }
            }

            #[inline(always)]
            unsafe fn put(y: *mut f32, sums: __m512) {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_ps(y, sums) }
            }

            #[inline(always)]
            unsafe fn add(y: *mut f32, sums: __m512, scale: f32) {
                // SAFETY: the caller's promise.
                unsafe {
                    let change = _mm512_mul_ps(_mm512_set1_ps(scale), sums);
                    _mm512_storeu_ps(y, _mm512_add_ps(_mm512_loadu_ps(y), change));
                }
            }

            #[inline(always)]
            fn prefetch(line: *const u8) {
                // SAFETY: a hint; no memory is accessed.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
            }

            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn chain<C, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
            where
                C: Chain<Registers = Self>,
            {
                // SAFETY: the caller's promise.
                unsafe { tile::chain::<C, R, P>(job, row, panel, ahead) }
            }

            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn grouped<G, const R: usize, const P: usize>(job: &Job<'_>, row: usize, panel: usize, ahead: Ahead)
            where
                G: Grouped<Registers = Self>,
            {
                // SAFETY: the caller's promise.
                unsafe { tile::grouped::<G, R, P>(job, row, panel, ahead) }
            }
        }
    };
}

registers!(
    /// 32 registers of 16 f32, with VNNI.
    Avx512,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma"
);
registers!(
    /// As [`Avx512`], with products of bf16.
    Avx512Bf16,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma"
);
