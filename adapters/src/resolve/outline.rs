//! What a config means for a base before there are tensors: the modules that an adapter to be trained will change.

use std::collections::BTreeSet;

use crate::base::{Base, ModuleKind};
use crate::config::LoraConfig;
use crate::limits::Limits;
use crate::refusal::{Code, Refusal};

use super::findings::Findings;
use super::low_rank::scale;
use super::sites::Sites;
use super::targeting::Targeting;

/// A low-rank change that a config asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleOutline {
    /// Path in the base, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    pub kind: ModuleKind,
    pub rank: usize,
    pub alpha: f64,
    /// `alpha / rank`, or `alpha / √rank` with rsLoRA.
    pub scale: f64,
}

/// The modules of `base` that `config` targets, each with its rank and scale, ordered by path; never empty.
///
/// # Errors
/// What [`super::judge`] would refuse about targets, ranks and alphas.
pub fn outline(config: &LoraConfig, base: &Base, limits: &Limits) -> Result<Vec<ModuleOutline>, Vec<Refusal>> {
    let mut findings = Findings::default();
    let sites = Sites::new(&BTreeSet::new(), base, &mut findings);
    let targeting = Targeting::new(config, &sites, limits, &mut findings);
    let mut outlines = Vec::new();
    for (module, site) in sites.iter().filter(|(name, _)| targeting.is_targeted(name)) {
        let rank = targeting.rank(module);
        if rank > limits.rank_max {
            let message = format!("Rank {rank} exceeds the limit of {}: choose a lower one.", limits.rank_max);
            findings.refuse(Code::Quota, module, message);
        }
        let alpha = targeting.alpha(module, &mut findings);
        let scale = scale(config, alpha, rank);
        outlines.push(ModuleOutline { module: module.to_owned(), kind: site.kind, rank, alpha, scale });
    }
    if findings.refused() { Err(findings.into_refusals()) } else { Ok(outlines) }
}
