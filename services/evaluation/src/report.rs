//! What a gate has found: serialised as JSON it is the record that stands with a version; as text and as a page it is for
//! people. It has the answers themselves, so it is as confidential as the held-out data.

mod page;
mod text;

use serde::{Deserialize, Serialize};

use crate::{
    comparison::Comparison,
    gate::{Decision, Gate, Rule},
    leaks::Leak,
    observed::{Item, Suite, System},
};

pub use page::page;
pub use text::text;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub decision: Decision,
    pub rules: Vec<Rule>,
    pub gate: Gate,
    pub comparisons: Vec<Comparison>,
    pub leaks: Vec<Leak>,
    pub suites: Vec<Suite>,
}

impl Report {
    /// Items that the candidate does not answer exactly, those first that the other systems do.
    pub fn wrong(&self, suite: &Suite) -> Vec<Item> {
        let mut wrong: Vec<_> = suite.items.iter().filter(|item| !item.is_exact(&item.candidate)).cloned().collect();
        let known = |item: &Item| {
            let others = [System::Current, System::Base].map(|system| item.of(system));
            others.into_iter().flatten().any(|seen| item.is_exact(seen))
        };
        wrong.sort_by_key(|item| !known(item));
        wrong
    }
}

impl Decision {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Refuse => "refuse",
        }
    }
}
