//! From two files and a base to a plan, or every reason against it. Tensor-first and total: every tensor of the file is
//! taken by exactly one rule, every targeted module is complete, and nothing is guessed.

mod assign;
mod base_name;
mod change;
pub(crate) mod findings;
mod low_rank;
mod outline;
mod sites;
mod targeting;
mod values;
mod whole;

use std::ops::Deref;

use crate::base::Base;
use crate::config::LoraConfig;
use crate::container::Container;
use crate::digest;
use crate::limits::Limits;
use crate::plan::Plan;
use crate::receipt::Receipt;
use crate::refusal::Refusal;

use change::Values;
use findings::Findings;
pub use outline::{ModuleOutline, outline};
use whole::Whole;

/// What [`resolve`] gives: the plan, and what was measured on the way. It is used as the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub plan: Plan,
    pub receipt: Receipt,
}

impl Deref for Resolved {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.plan
    }
}

/// Judges an adapter against a base and measures it, for the record of a version: [`judge`], and the norm of every
/// change, which takes several times as long.
///
/// # Errors
/// As [`judge`].
pub fn resolve(config: &[u8], weights: &Container, base: &Base, limits: &Limits) -> Result<Resolved, Vec<Refusal>> {
    let (plan, config) = judge_and_read(config, weights, base, limits)?;
    let receipt = Receipt::new(&plan, &config, weights);
    Ok(Resolved { plan, receipt })
}

/// Judges an adapter against a base: all that serving it needs, in little more than the time of hashing its bytes.
///
/// `config` is the text of `adapter_config.json`, `weights` the parsed `adapter_model.safetensors`.
///
/// # Errors
/// Every refusal that can be stated together, at most a hundred; never empty.
pub fn judge(config: &[u8], weights: &Container, base: &Base, limits: &Limits) -> Result<Plan, Vec<Refusal>> {
    judge_and_read(config, weights, base, limits).map(|(plan, _)| plan)
}

fn judge_and_read(
    config: &[u8],
    weights: &Container,
    base: &Base,
    limits: &Limits,
) -> Result<(Plan, LoraConfig), Vec<Refusal>> {
    let mut findings = Findings::default();
    let reading = LoraConfig::read(config, limits);
    let sound = reading.refusals.is_empty();
    findings.take(reading.refusals, reading.notes);
    let Some(config) = reading.config else { return Err(findings.into_refusals()) };

    base_name::check(&config, base, &mut findings);
    let magnitudes = values::check(weights, &mut findings);
    let (sites, tensors) = assign::assign(weights, base, &mut findings);
    if !sound {
        // what the config means is open, so only what holds for any config is judged
        low_rank::check_pairs(weights, &sites, &tensors, &mut findings);
        return Err(findings.into_refusals());
    }
    let targeting = targeting::Targeting::new(&config, &sites, limits, &mut findings);
    let modules = low_rank::plan(&config, weights, &sites, &tensors, &targeting, limits, &mut findings);
    let whole = whole::plan(&config, weights, base, &sites, &tensors, &targeting, limits, &mut findings);
    if findings.refused() {
        return Err(findings.into_refusals());
    }

    change::judge(&modules, &whole, &Values { weights, magnitudes: &magnitudes }, &mut findings);
    if findings.refused() {
        return Err(findings.into_refusals());
    }
    let digest = digest::version(&config, weights, base);
    let Whole { private, biases } = whole;
    let notes = findings.into_notes();
    let mut plan = Plan { digest, base_digest: base.digest(), modules, private, biases, notes, bytes: 0 };
    plan.bytes = plan.tensors().iter().filter_map(|name| weights.get(name)).map(|view| view.data.len() as u64).sum();
    Ok((plan, config))
}
