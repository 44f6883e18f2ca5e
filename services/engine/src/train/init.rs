//! The factors that a new adapter begins with, as PEFT begins: one factor random, the other zero, so that nothing changes
//! before the first step.
//!
//! Numbers come from [`crate::philox`]: key = the seed, stream = FNV-1a of the module's path, position = the element. What a
//! module begins with depends on its path, its shape and the seed alone, not on which others are trained.

use adapters::ModuleKind;

use super::factors::Site;
use crate::philox::uniform_of;

/// Fills A and B of `site`, which are zeros: A of a linear layer uniform in `±1/√inputs` (Kaiming with `a = √5`), B of an
/// embedding normal (Box and Muller).
pub(super) fn fill(site: &Site, module: &str, kind: ModuleKind, seed: u64, values: &mut [f32]) {
    let stream = fnv1a(module.as_bytes());
    let uniform = |position: usize| uniform_of(seed, stream, position as u64);
    if let ModuleKind::Embedding { .. } = kind {
        for (i, value) in values[site.b.clone()].iter_mut().enumerate() {
            let (radius, angle) =
                ((-2.0 * (1.0 - uniform(2 * i)).ln()).sqrt(), uniform(2 * i + 1) * std::f64::consts::TAU);
            *value = (radius * angle.cos()) as f32;
        }
    } else {
        let bound = 1.0 / (site.inputs as f64).sqrt();
        for (i, value) in values[site.a.clone()].iter_mut().enumerate() {
            *value = ((2.0 * uniform(i) - 1.0) * bound) as f32;
        }
    }
}

/// 64-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
