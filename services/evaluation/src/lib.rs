//! Whether a candidate adapter may take the place of what answers today: the same held-out items answered by candidate,
//! current version and base, compared in pairs, and a gate that promotes only what is better and breaks nothing.
//!
//! It computes no answers and knows no model: whoever has an engine hands in [`Observed`] answers. The way of a report:
//! [`Suite`]s of items → [`compare`] in pairs, with bootstrap intervals → [`Gate::judge`] → [`Report`], as text, JSON or a page.

mod bootstrap;
mod comparison;
mod gate;
mod leaks;
mod observed;
mod report;
mod statistic;

pub use bootstrap::{Bootstrap, Interval};
pub use comparison::{Comparison, compare};
pub use gate::{Decision, Gate, GateError, Rule};
pub use leaks::{Leak, Secret, find_leaks};
pub use observed::{Item, Observed, Suite, System};
pub use report::{Report, page, text};
pub use statistic::{Statistic, StatisticError};
