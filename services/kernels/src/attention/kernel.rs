//! Products of queries with keys and of weights with values, two neighbours at a time: dimensions of keys, tokens of
//! values. One kernel for each storage, and one with the product instruction of bf16.

#[cfg(target_arch = "x86_64")]
use pulp::bytemuck::Pod;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::lanes::Lanes;
use crate::LANES;

/// How one storage is multiplied on one instruction set. All is inlined into functions that have the instructions.
pub trait Kernel {
    type Lanes: Lanes;
    /// Element of the cache.
    type Word: Pod;
    /// Two neighbours of 16 lanes.
    type Pair: Copy;
    /// What the two neighbours are multiplied with.
    type Factor: Copy;
    /// Words between one pair and the next, in vectors of 16.
    const WORDS: usize;

    fn factor(even: f32, odd: f32) -> Self::Factor;

    /// What is left of a weight in a [`Kernel::Factor`].
    fn round(weight: f32) -> f32;

    /// Lays 16 weights, already rounded, out for [`Kernel::weight`], in place.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn pack(weights: &mut [f32; LANES]);

    /// The weights of two neighbours of packed ones.
    fn weight(packed: &[f32; LANES], pair: usize) -> Self::Factor;

    /// The vector at `from` and its neighbour, `stride` words further where neighbours are not in one word.
    ///
    /// # Safety
    /// This and all below: the machine has the instructions; what is read lies in the cache.
    unsafe fn load(from: *const Self::Word, stride: usize) -> Self::Pair;

    /// Zeros in place of one of the two.
    unsafe fn only(pair: Self::Pair, odd: bool) -> Self::Pair;

    unsafe fn add_product(sum: Self::Lanes, pair: Self::Pair, factor: Self::Factor) -> Self::Lanes;
}

/// f32 in the cache: all of it f32.
pub struct Plain<L>(PhantomData<L>);

impl<L: Lanes> Kernel for Plain<L> {
    type Lanes = L;
    type Word = f32;
    type Pair = [L; 2];
    type Factor = [f32; 2];
    const WORDS: usize = 2;

    #[inline(always)]
    fn factor(even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    fn round(weight: f32) -> f32 {
        weight
    }

    #[inline(always)]
    unsafe fn pack(_: &mut [f32; LANES]) {}

    #[inline(always)]
    fn weight(packed: &[f32; LANES], pair: usize) -> [f32; 2] {
        [packed[2 * pair], packed[2 * pair + 1]]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, stride: usize) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { [L::load(from), L::load(from.add(stride))] }
    }

    #[inline(always)]
    unsafe fn only(pair: [L; 2], odd: bool) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { if odd { [L::splat(0.0), pair[1]] } else { [pair[0], L::splat(0.0)] } }
    }

    #[inline(always)]
    unsafe fn add_product(sum: L, pair: [L; 2], factor: [f32; 2]) -> L {
        // SAFETY: the caller's promise.
        unsafe { sum.fma(pair[0], L::splat(factor[0])).fma(pair[1], L::splat(factor[1])) }
    }
}

/// bf16 in the cache, widened to f32.
pub struct Widened<L>(PhantomData<L>);

impl<L: Lanes> Kernel for Widened<L> {
    type Lanes = L;
    type Word = u32;
    type Pair = [L; 2];
    type Factor = [f32; 2];
    const WORDS: usize = 1;

    #[inline(always)]
    fn factor(even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    fn round(weight: f32) -> f32 {
        weight
    }

    #[inline(always)]
    unsafe fn pack(_: &mut [f32; LANES]) {}

    #[inline(always)]
    fn weight(packed: &[f32; LANES], pair: usize) -> [f32; 2] {
        [packed[2 * pair], packed[2 * pair + 1]]
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, _: usize) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { L::widen(from) }
    }

    #[inline(always)]
    unsafe fn only(pair: [L; 2], odd: bool) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe { if odd { [L::splat(0.0), pair[1]] } else { [pair[0], L::splat(0.0)] } }
    }

    #[inline(always)]
    unsafe fn add_product(sum: L, pair: [L; 2], factor: [f32; 2]) -> L {
        // SAFETY: the caller's promise.
        unsafe { sum.fma(pair[0], L::splat(factor[0])).fma(pair[1], L::splat(factor[1])) }
    }
}

/// bf16 in the cache; queries and weights rounded to bf16 too, and both neighbours multiplied by one instruction
/// (`vdpbf16ps`, which takes numbers below the normal range for zeros).
#[cfg(target_arch = "x86_64")]
pub struct Products;

#[cfg(target_arch = "x86_64")]
impl Kernel for Products {
    type Lanes = __m512;
    type Word = u32;
    type Pair = __m512i;
    type Factor = u32;
    const WORDS: usize = 1;

    #[inline(always)]
    fn factor(even: f32, odd: f32) -> u32 {
        round_to_bf16(even) >> 16 | round_to_bf16(odd)
    }

    #[inline(always)]
    fn round(weight: f32) -> f32 {
        f32::from_bits(round_to_bf16(weight))
    }

    /// 8 words of pairs, in the place of the first 8 weights.
    #[inline(always)]
    unsafe fn pack(weights: &mut [f32; LANES]) {
        // SAFETY: the caller's promise; 8 words are half of the 16.
        unsafe {
            let words = _mm512_castps_si512(_mm512_loadu_ps(weights.as_ptr()));
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(words));
            _mm256_storeu_si256(weights.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn weight(packed: &[f32; LANES], pair: usize) -> u32 {
        packed[pair].to_bits()
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, _: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn only(pair: __m512i, odd: bool) -> __m512i {
        let half: u32 = if odd { 0xffff_0000 } else { 0x0000_ffff };
        // SAFETY: the caller's promise.
        unsafe { _mm512_and_si512(pair, _mm512_set1_epi32(half.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m512, pair: __m512i, factor: u32) -> __m512 {
        // SAFETY: the caller's promise; both types are 512 bits.
        unsafe {
            let factor = _mm512_set1_epi32(factor.cast_signed());
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(factor),
                std::mem::transmute::<__m512i, __m512bh>(pair),
            )
        }
    }
}

/// The bits of a bf16 in the high half: to nearest even. NaN stays NaN.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn round_to_bf16(value: f32) -> u32 {
    const QUIET: u32 = 1 << 22;
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if value.is_nan() { bits | QUIET } else { rounded }) & 0xffff_0000
}
