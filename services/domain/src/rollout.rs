//! What an alias means, and how that may change: pure rules, so that a change made now and one made on schedule are the
//! same.

use std::fmt;

use crate::Digest;

/// A part in hundredths of a percent: 0 to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BasisPoints(u16);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be 0 to 10000 basis points")]
pub struct BasisPointsError;

impl BasisPoints {
    pub const WHOLE: Self = Self(10_000);

    /// # Errors
    /// More than [`BasisPoints::WHOLE`].
    pub fn new(value: u32) -> Result<Self, BasisPointsError> {
        let value = u16::try_from(value).map_err(|_| BasisPointsError)?;
        if value > Self::WHOLE.0 { Err(BasisPointsError) } else { Ok(Self(value)) }
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for BasisPoints {
    /// As a percentage.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
    }
}

/// A version beside the one that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub digest: Digest,
    /// Of the requests.
    pub share: BasisPoints,
}

/// What an alias points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// What answers.
    pub stable: Digest,
    /// What answered before the last move.
    pub previous: Option<Digest>,
    /// Answers its share of the requests in place of the stable version.
    pub canary: Option<Part>,
    /// Answers its share of the requests besides; nobody sees those answers.
    pub shadow: Option<Part>,
}

/// A change of what an alias points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasChange {
    /// Another stable version; ends a canary. To where it points already it is none, and a canary goes on.
    Move(Digest),
    /// Begins a canary, or takes another one.
    Canary(Part),
    /// Of the canary that there is.
    Weight(BasisPoints),
    ClearCanary,
    /// The canary becomes stable.
    Promote,
    /// The version before becomes stable again, and a canary ends. Without a version before, the canary ends.
    Rollback,
    Shadow(Part),
    ClearShadow,
}

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    #[error("the alias has no canary")]
    NoCanary,
    #[error("the alias answers with this version already: a canary must be another one")]
    CanaryIsStable,
    #[error("the alias answers with this version already: a shadow must be another one")]
    ShadowIsStable,
    #[error("the alias has no shadow")]
    NoShadow,
    #[error("the alias has not moved yet, or the version that it pointed at before was deleted")]
    NoPreviousVersion,
}

impl Targets {
    /// A new alias.
    pub const fn of(stable: Digest) -> Self {
        Self { stable, previous: None, canary: None, shadow: None }
    }

    /// Those that answer.
    pub fn answering(&self) -> impl Iterator<Item = Digest> {
        [Some(self.stable), self.canary.map(|canary| canary.digest)].into_iter().flatten()
    }

    /// Those that may not go away; the previous one may.
    pub fn named(&self) -> impl Iterator<Item = Digest> {
        self.answering().chain(self.shadow.map(|shadow| shadow.digest))
    }

    /// # Errors
    /// What the alias lacks for this change.
    pub fn after(&self, change: AliasChange) -> Result<Self, RolloutError> {
        let same = *self;
        Ok(match change {
            AliasChange::Move(to) if to == self.stable => same,
            AliasChange::Move(to) => self.moved(to),
            AliasChange::Canary(canary) if canary.digest == self.stable => return Err(RolloutError::CanaryIsStable),
            AliasChange::Canary(canary) => Self { canary: Some(canary), ..same },
            AliasChange::Weight(share) => {
                let canary = self.canary.ok_or(RolloutError::NoCanary)?;
                Self { canary: Some(Part { share, ..canary }), ..same }
            }
            AliasChange::ClearCanary => {
                self.canary.ok_or(RolloutError::NoCanary)?;
                Self { canary: None, ..same }
            }
            AliasChange::Promote => self.moved(self.canary.ok_or(RolloutError::NoCanary)?.digest),
            AliasChange::Rollback => match (self.previous, self.canary) {
                (Some(previous), _) => self.moved(previous),
                (None, Some(_)) => Self { canary: None, ..same },
                (None, None) => return Err(RolloutError::NoPreviousVersion),
            },
            AliasChange::Shadow(shadow) if shadow.digest == self.stable => return Err(RolloutError::ShadowIsStable),
            AliasChange::Shadow(shadow) => Self { shadow: Some(shadow), ..same },
            AliasChange::ClearShadow => {
                self.shadow.ok_or(RolloutError::NoShadow)?;
                Self { shadow: None, ..same }
            }
        })
    }

    fn moved(&self, to: Digest) -> Self {
        // A version does not shadow itself.
        let shadow = self.shadow.filter(|shadow| shadow.digest != to);
        Self { stable: to, previous: Some(self.stable), canary: None, shadow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::new([byte; 32])
    }

    fn part(byte: u8, share: u32) -> Part {
        Part { digest: digest(byte), share: BasisPoints::new(share).expect("in range") }
    }

    #[test]
    fn a_canary_is_promoted_and_one_step_brings_everything_back() {
        let begun = Targets::of(digest(1)).after(AliasChange::Canary(part(2, 500))).expect("begins");
        let more = begun.after(AliasChange::Weight(BasisPoints::WHOLE)).expect("more of it");
        assert_eq!(more.canary, Some(part(2, 10_000)));
        let promoted = more.after(AliasChange::Promote).expect("promoted");
        assert_eq!(promoted, Targets { previous: Some(digest(1)), ..Targets::of(digest(2)) });
        let next = promoted.after(AliasChange::Canary(part(3, 1))).expect("the next one");
        let back = next.after(AliasChange::Rollback).expect("rolled back");
        assert_eq!(back, Targets { previous: Some(digest(2)), ..Targets::of(digest(1)) });
    }

    #[test]
    fn a_rollback_of_a_first_canary_ends_the_canary() {
        let begun = Targets::of(digest(1)).after(AliasChange::Canary(part(2, 500))).expect("begins");
        let back = begun.after(AliasChange::Rollback).expect("rolled back");
        assert_eq!(back, Targets::of(digest(1)));
        assert_eq!(back.after(AliasChange::Rollback), Err(RolloutError::NoPreviousVersion));
    }

    #[test]
    fn a_move_ends_a_canary_and_no_version_shadows_itself() {
        let alias = Targets { canary: Some(part(2, 500)), shadow: Some(part(3, 100)), ..Targets::of(digest(1)) };
        assert_eq!(alias.after(AliasChange::Move(digest(1))), Ok(alias), "it points there already");
        let moved = alias.after(AliasChange::Move(digest(3))).expect("moved");
        assert_eq!(moved, Targets { previous: Some(digest(1)), ..Targets::of(digest(3)) });
        let other = alias.after(AliasChange::Move(digest(4))).expect("moved");
        assert_eq!((other.canary, other.shadow), (None, Some(part(3, 100))));
    }

    #[test]
    fn what_an_alias_lacks_is_said() {
        let alias = Targets::of(digest(1));
        for (change, error) in [
            (AliasChange::Promote, RolloutError::NoCanary),
            (AliasChange::Weight(BasisPoints::WHOLE), RolloutError::NoCanary),
            (AliasChange::ClearCanary, RolloutError::NoCanary),
            (AliasChange::Canary(part(1, 1)), RolloutError::CanaryIsStable),
            (AliasChange::Shadow(part(1, 1)), RolloutError::ShadowIsStable),
            (AliasChange::ClearShadow, RolloutError::NoShadow),
            (AliasChange::Rollback, RolloutError::NoPreviousVersion),
        ] {
            assert_eq!(alias.after(change), Err(error));
        }
        assert_eq!(BasisPoints::new(10_001), Err(BasisPointsError));
        assert_eq!(part(1, 1_234).share.to_string(), "12.34%");
    }
}
