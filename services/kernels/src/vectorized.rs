//! One plain loop, compiled for each instruction set. The compiler neither fuses nor reorders what the loop says, so
//! every set gives the same bits.

/// Defines a function whose first parameter is the [`crate::Isa`] to use. The body is plain Rust; what it calls must be
/// `#[inline(always)]` to be compiled for that set too.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                if isa >= $crate::isa::Isa::Avx512 {
                    // SAFETY: an `Isa` in use is one that this machine has.
                    return unsafe { avx512($($arg),*) };
                }
                if isa == $crate::isa::Isa::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            body($($arg),*)
        }
    };
}

pub(crate) use vectorized;
