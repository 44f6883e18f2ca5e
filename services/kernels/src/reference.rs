//! What the tests of this crate share: seeded values and a comparison with a stated tolerance.

use crate::{Cpu, CpuConfig, Isa};

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

/// `[rows, outputs]` products in f64 of row-major `x` `[rows, inputs]` and `w` `[outputs, inputs]`.
pub fn product(x: &[f32], w: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| dot(x, w))).collect()
}

/// One thread or several with each instruction set of this machine, and with emulated tiles where it has none.
pub fn cpus(threads: usize) -> Vec<Cpu> {
    let cpu = |isa| Cpu::new(&CpuConfig { threads, isa: Some(isa), ..CpuConfig::default() }).unwrap();
    let emulated = Cpu::with_tiles(threads).filter(|_| Isa::best() < Isa::Amx);
    Isa::available().into_iter().map(cpu).chain(emulated).collect()
}

/// Calls `test` with each instruction set of this machine, on one thread and on three.
pub fn each_cpu(test: impl FnMut(&Cpu)) {
    cpus(1).iter().chain(&cpus(3)).for_each(test);
}

/// Rounded to bf16.
pub fn to_bf16(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}

/// Quantised as the kernels quantise activations, by the formula: groups of 64 of each row of `width`.
pub fn to_int8(values: &[f32], width: usize) -> Vec<f32> {
    let group = |group: &[f32]| {
        let scale = group.iter().fold(0.0, |largest: f32, value| largest.max(value.abs())) / 127.0;
        let step = |value: &f32| if scale > 0.0 { (value / scale).round() * scale } else { 0.0 };
        group.iter().map(step).collect::<Vec<_>>()
    };
    values.chunks(width).flat_map(|row| row.chunks(64).flat_map(group)).collect()
}

/// The gradient of `f` at `x` by central differences in f64.
pub fn differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut at: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
    (0..x.len())
        .map(|i| {
            let here = at[i];
            at[i] = here + STEP;
            let above = f(&at);
            at[i] = here - STEP;
            let below = f(&at);
            at[i] = here;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}
