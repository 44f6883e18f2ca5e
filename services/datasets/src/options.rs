//! What the caller decides about a dataset: shape, columns, labels, groups, split, masking. All of it is part of a
//! version's digest.

use serde::{Deserialize, Serialize};

use crate::{mapping::Mapping, shape::ShapeName};

/// The choices of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// None: found from the first rows.
    pub shape: Option<ShapeName>,
    pub mapping: Mapping,
    /// The labels that label rows may have, none twice; none: whatever the rows have.
    pub labels: Option<Vec<String>>,
    /// Rows with the same value here stay on one side of the split; none: rows with the same question do.
    pub group: Option<String>,
    pub split: SplitOptions,
    /// Replace secrets and personal data by placeholders.
    pub mask: bool,
    /// Tokens of a conversation, template included.
    pub tokens_max: u64,
}

/// How rows are put on sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitOptions {
    pub seed: u64,
    /// Of a hundred groups; 0 with a held-out file, whose rows are the held-out side.
    pub held_out_percent: u8,
    /// Of a hundred groups.
    pub validation_percent: u8,
}

impl Default for SplitOptions {
    fn default() -> Self {
        SplitOptions { seed: 0, held_out_percent: 10, validation_percent: 5 }
    }
}

impl Options {
    /// # Errors
    /// Every choice that makes no sense.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        let SplitOptions { held_out_percent, validation_percent, .. } = self.split;
        if u32::from(held_out_percent) + u32::from(validation_percent) > 90 {
            faults.push("held-out and validation together may be at most 90 percent".to_owned());
        }
        if self.tokens_max == 0 {
            faults.push("tokens_max must be at least 1".to_owned());
        }
        if let Some(labels) = &self.labels {
            if labels.iter().any(|label| label.trim().is_empty()) || labels.is_empty() {
                faults.push("a label set has labels, and none of them is empty".to_owned());
            }
            if let Some(twice) = labels.iter().enumerate().find(|(at, label)| labels[..*at].contains(label)) {
                faults.push(format!("the label {:?} stands twice", twice.1));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}
