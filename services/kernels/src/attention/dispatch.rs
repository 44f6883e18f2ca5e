//! The kernel for a storage and an instruction set, compiled for its instructions.

use std::ops::Range;

use super::kernel::{Plain, Widened};
use super::part::Gathered;
use super::tile::{self, Context, Queries};
use crate::LANES;
use crate::isa::Isa;

pub fn attend_f32(
    isa: Isa,
    context: &Context<'_, f32>,
    queries: &Queries<'_>,
    parts: Range<usize>,
    gathered: &mut Gathered,
) {
    // SAFETY: an `Isa` in use is one that this machine has.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => x86::f32_avx512(context, queries, parts, gathered),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::f32_avx2(context, queries, parts, gathered),
            _ => tile::attend::<Plain<[f32; LANES]>>(context, queries, parts, gathered),
        }
    }
}

pub fn attend_bf16(
    isa: Isa,
    context: &Context<'_, u32>,
    queries: &Queries<'_>,
    parts: Range<usize>,
    gathered: &mut Gathered,
) {
    // SAFETY: an `Isa` in use is one that this machine has.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Amx => x86::bf16_products(context, queries, parts, gathered),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::bf16_avx512(context, queries, parts, gathered),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::bf16_avx2(context, queries, parts, gathered),
            _ => tile::attend::<Widened<[f32; LANES]>>(context, queries, parts, gathered),
        }
    }
}

/// Defines a function that runs [`tile::attend`] with a kernel on the instructions that it needs.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($name:ident, $word:ty, $features:literal, $kernel:ty) => {
        #[target_feature(enable = $features)]
        pub fn $name(
            context: &Context<'_, $word>,
            queries: &Queries<'_>,
            parts: Range<usize>,
            gathered: &mut Gathered,
        ) {
            // SAFETY: the instructions of the kernel are those of this function.
            unsafe { tile::attend::<$kernel>(context, queries, parts, gathered) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::super::kernel::{Plain, Products, Widened};
    use super::*;

    compiled!(f32_avx512, f32, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", Plain<__m512>);
    compiled!(bf16_avx512, u32, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", Widened<__m512>);
    compiled!(bf16_products, u32, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma", Products);
    compiled!(f32_avx2, f32, "avx2,fma", Plain<[__m256; 2]>);
    compiled!(bf16_avx2, u32, "avx2,fma", Widened<[__m256; 2]>);
}
