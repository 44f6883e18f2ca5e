//! From two files and a base to a plan, or every reason against it.

use crate::base::Base;
use crate::container::Container;
use crate::limits::Limits;
use crate::plan::Plan;
use crate::refusal::{Code, Refusal};

/// Judges an adapter against a base.
pub fn resolve(config: &[u8], weights: &Container, base: &Base, limits: &Limits) -> Result<Plan, Vec<Refusal>> {
    let _ = (config, weights, base, limits);
    Err(vec![Refusal::new(Code::Unsupported, "adapter", "resolution is being written")])
}
