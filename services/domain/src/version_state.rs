//! The life of an adapter version.

use std::{fmt, str::FromStr};

/// Where a version stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionState {
    /// Its files are in the registry.
    Uploaded,
    /// Judged, loaded by a worker and probed: it may be pointed at.
    Checked,
    /// Somebody has put a report to it.
    Evaluated,
    /// An alias answers with it, always or as a canary.
    Live,
    /// For good: nothing may point at it, and it is not answered with. Running answers finish.
    Retired,
}

impl VersionState {
    pub const ALL: [Self; 5] = [Self::Uploaded, Self::Checked, Self::Evaluated, Self::Live, Self::Retired];

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Checked => "checked",
            Self::Evaluated => "evaluated",
            Self::Live => "live",
            Self::Retired => "retired",
        }
    }

    /// Whether this step is one that a version may take. From `live` it goes back to where it was when no alias answers
    /// with it any more; evaluating again is a step too.
    pub const fn may_become(self, next: Self) -> bool {
        use VersionState::{Checked, Evaluated, Live, Retired, Uploaded};
        matches!(
            (self, next),
            (Uploaded, Checked | Retired)
                | (Checked | Evaluated, Evaluated | Live | Retired)
                | (Live, Live | Checked | Evaluated)
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a state of a version")]
pub struct VersionStateError(String);

impl FromStr for VersionState {
    type Err = VersionStateError;

    fn from_str(text: &str) -> Result<Self, VersionStateError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| VersionStateError(text.to_owned()))
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_goes_forward_and_never_comes_back_from_retirement() {
        use VersionState::*;
        let legal = [
            (Uploaded, Checked),
            (Uploaded, Retired),
            (Checked, Evaluated),
            (Checked, Live),
            (Checked, Retired),
            (Evaluated, Evaluated),
            (Evaluated, Live),
            (Evaluated, Retired),
            (Live, Live),
            (Live, Checked),
            (Live, Evaluated),
        ];
        for from in VersionState::ALL {
            for to in VersionState::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from} to {to}");
            }
            assert_eq!(from.as_str().parse::<VersionState>().ok(), Some(from));
        }
    }
}
