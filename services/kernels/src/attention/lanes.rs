//! 16 numbers side by side, in the registers of each instruction set: what one token's, or one dimension's, 16 products are
//! added up in. The same operations give the same bits in all of them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::LANES;

/// 16 f32. All is inlined into functions that have the instructions.
pub trait Lanes: Copy {
    /// Queries of one pass over keys and values, and vectors of one pass over the values: what fills the registers.
    const QUERIES: usize;
    const DIMS: usize;

    /// # Safety
    /// This and all others: the machine has the instructions; 16 elements at the pointer can be read or written.
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`, rounded once.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// 16 words as the bf16 in their low halves and those in their high halves.
    unsafe fn widen(from: *const u32) -> [Self; 2];
    /// Asks for the 64 bytes at an address, which need not exist, for the first and for the second level of the cache.
    unsafe fn prefetch<T>(at: *const T);
    unsafe fn prefetch_far<T>(at: *const T);
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    const QUERIES: usize = 8;
    const DIMS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: this and all below: the caller's promise.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn widen(from: *const u32) -> [Self; 2] {
        // SAFETY: as above.
        unsafe {
            let words = _mm512_loadu_si512(from.cast());
            let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)), _mm512_castsi512_ps(high)]
        }
    }

    #[inline(always)]
    unsafe fn prefetch<T>(at: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_far<T>(at: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// Two registers of AVX2.
#[cfg(target_arch = "x86_64")]
impl Lanes for [__m256; 2] {
    const QUERIES: usize = 4;
    const DIMS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: this and all below: the caller's promise.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to, self[0]);
            _mm256_storeu_ps(to.add(8), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], self[0]), _mm256_fmadd_ps(a[1], b[1], self[1])] }
    }

    #[inline(always)]
    unsafe fn widen(from: *const u32) -> [Self; 2] {
        // SAFETY: as above.
        unsafe {
            let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let [first, second] = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())];
            let low = [_mm256_slli_epi32::<16>(first), _mm256_slli_epi32::<16>(second)];
            let high = [_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)];
            [
                [_mm256_castsi256_ps(low[0]), _mm256_castsi256_ps(low[1])],
                [_mm256_castsi256_ps(high[0]), _mm256_castsi256_ps(high[1])],
            ]
        }
    }

    #[inline(always)]
    unsafe fn prefetch<T>(at: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_far<T>(at: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// Plain numbers, which the compiler puts into the registers there are.
impl Lanes for [f32; LANES] {
    const QUERIES: usize = 4;
    const DIMS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of f32 is aligned as its elements are.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { *to.cast() = self }
    }

    #[inline(always)]
    unsafe fn fma(mut self, a: Self, b: Self) -> Self {
        for i in 0..LANES {
            self[i] = a[i].mul_add(b[i], self[i]);
        }
        self
    }

    #[inline(always)]
    unsafe fn widen(from: *const u32) -> [Self; 2] {
        // SAFETY: as above.
        let words: [u32; LANES] = unsafe { *from.cast() };
        let mut wide = [[0.0; LANES]; 2];
        for i in 0..LANES {
            wide[0][i] = f32::from_bits(words[i] << 16);
            wide[1][i] = f32::from_bits(words[i] & 0xffff_0000);
        }
        wide
    }

    #[inline(always)]
    unsafe fn prefetch<T>(_: *const T) {}

    #[inline(always)]
    unsafe fn prefetch_far<T>(_: *const T) {}
}
