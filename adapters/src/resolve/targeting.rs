//! Which modules the config targets, and with what rank and alpha.

use std::collections::BTreeSet;

use crate::base::{LM_HEAD, ModuleKind};
use crate::config::{LoraConfig, TargetModules};
use crate::limits::Limits;
use crate::patterns::{LayersPattern, Pattern, PatternError, PatternMap, Selector, Targets, Verdict};
use crate::plan::NoteCode;
use crate::refusal::Code;

use super::findings::Findings;
use super::sites::Sites;

/// What PEFT targets in every supported family if the config says nothing.
const DEFAULT_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// The config's choice of modules, by the adapter's names.
pub(super) struct Targeting {
    targeted: BTreeSet<String>,
    rank: usize,
    alpha: f64,
    ranks: PatternMap<usize>,
    alphas: PatternMap<f64>,
    /// Whether the config's patterns could be decided; if not, nothing that follows from them is judged.
    pub decided: bool,
}

impl Targeting {
    pub fn new(config: &LoraConfig, sites: &Sites, limits: &Limits, findings: &mut Findings) -> Targeting {
        match Targeting::decide(config, sites, limits, findings) {
            Ok(targeting) => targeting,
            Err(fault) => {
                findings.refuse(
                    Code::Pattern,
                    &fault.pattern,
                    format!(
                        "The pattern {}. Write it so that Python and Rust read it alike, or list the modules.",
                        fault.fault
                    ),
                );
                Targeting {
                    targeted: BTreeSet::new(),
                    rank: config.rank,
                    alpha: config.alpha,
                    ranks: PatternMap::none(),
                    alphas: PatternMap::none(),
                    decided: false,
                }
            }
        }
    }

    pub fn is_targeted(&self, name: &str) -> bool {
        self.targeted.contains(name)
    }

    /// The rank of a module: the first key that fits, else `r`.
    pub fn rank(&self, name: &str) -> usize {
        let matches = self.ranks.matches(name).unwrap_or_default();
        matches.first().map_or(self.rank, |(_, rank)| **rank)
    }

    /// The alpha of a module: the first key that fits, else `lora_alpha`. Keys that fit and disagree are refused: PEFT
    /// sorts them when it saves, so the order in training is lost, and no shape tells which was used.
    pub fn alpha(&self, name: &str, findings: &mut Findings) -> f64 {
        let matches = self.alphas.matches(name).unwrap_or_default();
        let Some((first_key, first)) = matches.first() else { return self.alpha };
        if let Some((other_key, other)) = matches.iter().find(|(_, other)| other != first) {
            findings.refuse(
                Code::PatternAmbiguous,
                name,
                format!(
                    "`alpha_pattern` gives {first} by the key {first_key:?} and {other} by {other_key:?}. PEFT sorts the keys when it saves, \
                     so the one used in training cannot be told. Keep the right one."
                ),
            );
        }
        **first
    }

    fn decide(
        config: &LoraConfig,
        sites: &Sites,
        limits: &Limits,
        findings: &mut Findings,
    ) -> Result<Targeting, PatternError> {
        few_hard_patterns(config, limits)?;
        let rules = rules(config, sites, limits)?;
        let mut targeted = BTreeSet::new();
        for (name, site) in sites.iter() {
            if rules.judge(name)? != Verdict::Targeted {
                continue;
            }
            match site.kind {
                ModuleKind::Norm { .. } => cannot_adapt(name, findings),
                _ => drop(targeted.insert(name.to_owned())),
            }
        }
        for name in &sites.containers {
            if rules.judge(name)? == Verdict::Targeted {
                cannot_adapt(name, findings);
            }
        }
        if targeted.is_empty() {
            findings.refuse(
                Code::NoTarget,
                "target_modules",
                "The config targets no module of this base. Check `target_modules`, `exclude_modules` and `layers_to_transform`, or choose the base that the adapter was made for.",
            );
        } else {
            note_absent_targets(config, sites, findings);
        }

        let ranks = PatternMap::compile(config.rank_pattern.iter().cloned(), limits)?;
        let alphas = PatternMap::compile(config.alpha_pattern.iter().cloned(), limits)?;
        let unused_ranks = unused(&ranks, &targeted)?;
        let unused_alphas = unused(&alphas, &targeted)?;
        for (field, keys) in [("rank_pattern", unused_ranks), ("alpha_pattern", unused_alphas)] {
            for key in keys {
                findings.note(NoteCode::PatternUnused, &key, format!("This key of `{field}` fits no targeted module."));
            }
        }
        Ok(Targeting { targeted, rank: config.rank, alpha: config.alpha, ranks, alphas, decided: true })
    }
}

/// Bounds the work of all matches together: each is bounded, and so is the number of patterns that cost more than a
/// single pass.
fn few_hard_patterns(config: &LoraConfig, limits: &Limits) -> Result<(), PatternError> {
    let selectors = [Some(&config.target_modules), config.exclude_modules.as_ref()];
    let strings = selectors.into_iter().flatten().filter_map(|target| match target {
        TargetModules::Pattern(text) => Some(text),
        _ => None,
    });
    let lists = config.modules_to_save.iter().chain(&config.layers_pattern);
    let ranks = config.rank_pattern.iter().map(|(key, _)| key);
    let alphas = config.alpha_pattern.iter().map(|(key, _)| key);
    let mut hard = strings.chain(lists).chain(ranks).chain(alphas).filter(|text| Pattern::may_backtrack(text));
    match hard.nth(limits.backtracking_patterns_max) {
        None => Ok(()),
        Some(text) => Err(PatternError {
            pattern: crate::refusal::clip(text, 128),
            fault: format!(
                "is one of more than {} with look-around or back references",
                limits.backtracking_patterns_max
            ),
        }),
    }
}

fn rules(config: &LoraConfig, sites: &Sites, limits: &Limits) -> Result<Targets, PatternError> {
    let selector = |target: &TargetModules| match target {
        TargetModules::Default => Ok(Selector::names(DEFAULT_TARGETS.map(str::to_owned))),
        TargetModules::AllLinear => Ok(Selector::names(all_linear(sites))),
        TargetModules::Pattern(text) => Pattern::full(text, limits).map(Selector::Pattern),
        TargetModules::Names(names) => Ok(Selector::names(names.iter().cloned())),
    };
    Ok(Targets {
        target: selector(&config.target_modules)?,
        exclude: config.exclude_modules.as_ref().map(selector).transpose()?,
        saved: config.modules_to_save.iter().map(|name| Pattern::saved(name, limits)).collect::<Result<_, _>>()?,
        layers: config.layers.clone(),
        layers_pattern: LayersPattern::compile(&config.layers_pattern, limits)?,
    })
}

/// Every linear module but the output layer.
fn all_linear(sites: &Sites) -> Vec<String> {
    let head = sites.name(LM_HEAD);
    let linear = sites.iter().filter(|(name, site)| matches!(site.kind, ModuleKind::Linear { .. }) && **name != *head);
    linear.map(|(name, _)| name.to_owned()).collect()
}

fn cannot_adapt(name: &str, findings: &mut Findings) {
    findings.refuse(
        Code::Unsupported,
        name,
        "The targets match this module, which is neither a linear nor an embedding; PEFT cannot adapt it either. Narrow `target_modules`.",
    );
}

fn note_absent_targets(config: &LoraConfig, sites: &Sites, findings: &mut Findings) {
    let TargetModules::Names(names) = &config.target_modules else { return };
    for target in names {
        let fits =
            |name: &str| name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !sites.iter().any(|(name, _)| fits(name)) {
            findings.note(NoteCode::TargetAbsent, target, "This target matches no module of the base; the others do.");
        }
    }
}

fn unused<T>(patterns: &PatternMap<T>, targeted: &BTreeSet<String>) -> Result<Vec<String>, PatternError> {
    let mut unused: BTreeSet<&str> = patterns.keys().collect();
    for name in targeted {
        for (key, _) in patterns.matches(name)? {
            unused.remove(key);
        }
    }
    Ok(unused.into_iter().map(str::to_owned).collect())
}
