//! From two files and a base to a plan, or every reason against it. Tensor-first and total: every tensor of the file is
//! taken by exactly one rule, every targeted module is complete, and nothing is guessed.

mod assign;
mod base_name;
pub(crate) mod findings;
mod low_rank;
mod sites;
mod targeting;
mod values;
mod whole;

use crate::base::Base;
use crate::config::LoraConfig;
use crate::container::Container;
use crate::digest;
use crate::limits::Limits;
use crate::plan::Plan;
use crate::receipt;
use crate::refusal::Refusal;

use findings::Findings;

/// Judges an adapter against a base.
///
/// `config` is the text of `adapter_config.json`, `weights` the parsed `adapter_model.safetensors`.
///
/// # Errors
/// Every refusal that can be stated together, at most a hundred; never empty.
pub fn resolve(config: &[u8], weights: &Container, base: &Base, limits: &Limits) -> Result<Plan, Vec<Refusal>> {
    let mut findings = Findings::default();
    let reading = LoraConfig::read(config, limits);
    let sound = reading.refusals.is_empty();
    findings.take(reading.refusals, reading.notes);
    let Some(config) = reading.config else { return Err(findings.into_refusals()) };

    base_name::check(&config, base, &mut findings);
    values::check(weights, &mut findings);
    let (sites, tensors) = assign::assign(weights, base, &mut findings);
    if !sound {
        // what the config means is open, so only what holds for any config is judged
        low_rank::check_pairs(weights, &sites, &tensors, &mut findings);
        return Err(findings.into_refusals());
    }
    let targeting = targeting::Targeting::new(&config, &sites, limits, &mut findings);
    let mut modules = low_rank::plan(&config, weights, &sites, &tensors, &targeting, limits, &mut findings);
    let whole = whole::plan(&config, weights, base, &sites, &tensors, &targeting, limits, &mut findings);
    if findings.refused() {
        return Err(findings.into_refusals());
    }

    receipt::measure(&mut modules, weights);
    receipt::refuse_overflow(&modules, &mut findings);
    receipt::note_zero_changes(&modules, &whole.private, &whole.biases, weights, &mut findings);
    if findings.refused() {
        return Err(findings.into_refusals());
    }
    let digest = digest::version(&config, weights, base);
    let notes = findings.into_notes();
    Ok(receipt::complete(digest, base.digest(), &config, modules, whole.private, whole.biases, notes, weights))
}
