//! What the tests of this crate share: seeded values and a comparison with a stated tolerance.

use crate::cpu::{Cpu, CpuConfig};
use crate::isa::Isa;

/// Calls `test` with each instruction set of this machine, on one thread and on three.
pub fn each_cpu(mut test: impl FnMut(&Cpu)) {
    for isa in Isa::available() {
        for threads in [1, 3] {
            test(&Cpu::new(&CpuConfig { threads, isa: Some(isa), spin_us: 0, pin: false }).unwrap());
        }
    }
}

/// `count` seeded values in `[-1, 1)`.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for _ in 0..8 {
        next();
    }
    (0..count).map(|_| next()).collect()
}

/// Fails unless every `|got - want| <= tolerance`.
pub fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(off <= tolerance, "element {i}: {got} is {off:e} away from {want}");
    }
}

/// Fails unless both have the same bits.
pub fn assert_same_bits(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "element {i}: {a} and {b}");
    }
}
