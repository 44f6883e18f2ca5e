//! What was asked, what should have come, and what came.

use serde::{Deserialize, Serialize};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    Candidate,
    /// What answers under the alias today.
    Current,
    /// The base without an adapter.
    Base,
}

/// Items that are judged together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    pub name: String,
    pub items: Vec<Item>,
}

/// One question with the answers of each system, in the order of [`System`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Where it stands in its data.
    pub id: String,
    pub expected: String,
    pub candidate: Observed,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Observed>,
    pub base: Observed,
}

/// What one system made of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The greedy answer.
    pub answer: String,
    /// Negative log-likelihood of the expected answer, in nats, over `tokens`.
    pub nll: f64,
    /// Of the expected answer, its end included.
    pub tokens: u32,
    /// Whether the answer has the form that was asked for; `None` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_form: Option<bool>,
}

impl Item {
    pub const fn of(&self, system: System) -> Option<&Observed> {
        match system {
            System::Candidate => Some(&self.candidate),
            System::Current => self.current.as_ref(),
            System::Base => Some(&self.base),
        }
    }

    /// Whether this answer is the expected one: letter by letter, white space around it left out.
    pub fn is_exact(&self, observed: &Observed) -> bool {
        observed.answer.trim() == self.expected.trim()
    }
}

impl System {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Current => "current",
            Self::Base => "base",
        }
    }
}
