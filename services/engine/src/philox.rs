//! Philox-2x64-10, a counter-based random number generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy
//! as 1, 2, 3" (SC 2011). No state: the key and the counter are the number's address.

const MULTIPLIER: u64 = 0xd2b7_4407_b1ce_6e93;
const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number in 0..1 (53 bits) for this seed and position.
pub(crate) fn uniform(seed: u64, position: u64) -> f64 {
    uniform_of(seed, 0, position)
}

/// As [`uniform`], of one of many streams.
pub(crate) fn uniform_of(seed: u64, stream: u64, position: u64) -> f64 {
    (philox([position, stream], seed)[0] >> 11) as f64 / (1u64 << 53) as f64
}

fn philox(counter: [u64; 2], mut key: u64) -> [u64; 2] {
    let [mut a, mut b] = counter;
    for _ in 0..10 {
        let product = u128::from(MULTIPLIER) * u128::from(a);
        (a, b) = ((product >> 64) as u64 ^ key ^ b, product as u64);
        key = key.wrapping_add(WEYL);
    }
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_answers_come_out() {
        assert_eq!(philox([0, 0], 0), [0xca00_a045_9843_d731, 0x66c2_4222_c9a8_45b5]);
        assert_eq!(philox([u64::MAX; 2], u64::MAX), [0x65b0_21d6_0cd8_310f, 0x4d02_f322_2f86_df20]);
        let pi = philox([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344], 0xa409_3822_299f_31d0);
        assert_eq!(pi, [0x0a5e_742c_2997_341c, 0xb0f8_83d3_8000_de5d]);
    }
}
