//! Loops that do nothing but read, or multiply in registers.

use std::hint::black_box;

use crate::isa::Isa;
use crate::matrix::{PANEL, Storage};

/// Sums that run beside each other: more than an instruction takes cycles.
const CHAINS: usize = 12;
/// The same of the portable loop, which has no name for registers.
const PORTABLE_CHAINS: usize = 4;

/// The sum of all 8-byte words of `bytes`, a multiple of 512.
pub fn read(isa: Isa, bytes: &[u8]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instructions, or the `Cpu` would not have them.
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => unsafe { x86::read_avx512(bytes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::read_avx2(bytes) },
        _ => sum(bytes),
    }
}

/// Operations of one round of [`products`]: 2 for each multiplication.
pub fn operations(isa: Isa, storage: Storage) -> f64 {
    let multiplications = match (isa, storage) {
        (Isa::Portable, _) => PORTABLE_CHAINS * PANEL,
        (Isa::Avx2, Storage::F32 | Storage::Bf16) => CHAINS * 8,
        (Isa::Avx2, Storage::Int8) => CHAINS * 16,
        (_, Storage::F32) | (Isa::Avx512, Storage::Bf16) => CHAINS * 16,
        (_, Storage::Bf16) => CHAINS * 32,
        (_, Storage::Int8) => CHAINS * 64,
    };
    2.0 * multiplications as f64
}

/// Multiplies and adds in registers, `rounds` times.
pub fn products(isa: Isa, storage: Storage, rounds: usize) -> f32 {
    match (isa, storage) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instructions, or the `Cpu` would not have them.
        (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512, Storage::Int8) => unsafe { x86::vnni(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Amx | Isa::Avx512Bf16, Storage::Bf16) => unsafe { x86::bf16(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512, _) => unsafe { x86::fma_avx512(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx2, Storage::Int8) => unsafe { x86::madd_avx2(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx2, _) => unsafe { x86::fma_avx2(rounds) },
        _ => portable(rounds),
    }
}

#[inline(always)]
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 64];
    for part in bytes.as_chunks::<512>().0 {
        for (sum, word) in sums.iter_mut().zip(part.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

fn portable(rounds: usize) -> f32 {
    let (mut sums, factor) = ([[1.0f32; PANEL]; PORTABLE_CHAINS], black_box(0.5f32));
    for _ in 0..rounds {
        for sums in &mut sums {
            for sum in sums {
                *sum = *sum * factor + 1.0;
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, sum};

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(bytes: &[u8]) -> u64 {
        sum(bytes)
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(bytes: &[u8]) -> u64 {
        sum(bytes)
    }

    #[target_feature(enable = "avx512f")]
    pub fn fma_avx512(rounds: usize) -> f32 {
        let factor = _mm512_set1_ps(black_box(0.5));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm512_cvtss_f32(sum))
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16(rounds: usize) -> f32 {
        let words = _mm512_set1_epi32(black_box(0x3f00_3f00));
        // SAFETY: the bits of registers are numbers of any kind.
        let factor: __m512bh = unsafe { std::mem::transmute(words) };
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm512_cvtss_f32(sum))
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni(rounds: usize) -> f32 {
        let factor = _mm512_set1_epi32(black_box(0x0102_0304));
        let mut sums = [_mm512_set1_epi32(1); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm512_cvtsi512_si32(sum) as f32)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn fma_avx2(rounds: usize) -> f32 {
        let factor = _mm256_set1_ps(black_box(0.5));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm256_cvtss_f32(sum))
    }

    #[target_feature(enable = "avx2")]
    pub fn madd_avx2(rounds: usize) -> f32 {
        let factor = _mm256_set1_epi16(black_box(3));
        let mut sums = [_mm256_set1_epi32(1); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // The product depends on the sum, or it would be taken out of the loop.
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(factor, *sum));
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm256_cvtsi256_si32(sum) as f32)
    }
}
