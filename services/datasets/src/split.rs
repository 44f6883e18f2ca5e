//! Which side a row is on: decided by a hash of its group alone, so that a group is never torn apart and rows that are
//! added later move no earlier one.

use sha2::{Digest as _, Sha256};

use crate::{options::SplitOptions, row::Side};

/// The side of all rows of `group`.
pub fn side(group: &str, options: &SplitOptions) -> Side {
    let mut hasher = Sha256::new();
    hasher.update(options.seed.to_le_bytes());
    hasher.update(group.as_bytes());
    let hash = hasher.finalize();
    let part = u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
    // The hash as a fraction of its range, in hundredths: no rounding, the same on every machine.
    let percent = (u128::from(part) * 100) >> 64;
    let held_out = u128::from(options.held_out_percent);
    if percent < held_out {
        Side::HeldOut
    } else if percent < held_out + u128::from(options.validation_percent) {
        Side::Validation
    } else {
        Side::Train
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(options: &SplitOptions) -> Vec<Side> {
        (0..20_000).map(|n| side(&format!("group {n}"), options)).collect()
    }

    #[test]
    fn sides_have_about_their_shares_and_another_seed_draws_others() {
        let options = SplitOptions { seed: 7, held_out_percent: 10, validation_percent: 5 };
        let drawn = sides(&options);
        let share = |wanted| drawn.iter().filter(|side| **side == wanted).count() as f64 / 200.0;
        assert!((share(Side::HeldOut) - 10.0).abs() < 1.0, "{}", share(Side::HeldOut));
        assert!((share(Side::Validation) - 5.0).abs() < 0.7, "{}", share(Side::Validation));
        assert_ne!(drawn, sides(&SplitOptions { seed: 8, ..options }));
    }

    #[test]
    fn a_larger_held_out_share_keeps_what_was_held_out() {
        let of = |percent| sides(&SplitOptions { seed: 7, held_out_percent: percent, validation_percent: 0 });
        for (small, large) in of(10).into_iter().zip(of(20)) {
            assert!(small != Side::HeldOut || large == Side::HeldOut);
        }
    }

    #[test]
    fn a_group_is_where_it_is_for_ever() {
        let options = SplitOptions { seed: 1, held_out_percent: 30, validation_percent: 30 };
        let found: Vec<_> = ["a", "b", "c", "d"].iter().map(|group| side(group, &options).as_str()).collect();
        assert_eq!(found, ["train", "held_out", "train", "validation"]);
    }
}
