//! The pairs A and B: complete, of the right sizes, of the declared rank, for the targeted modules and no others.

use std::collections::BTreeMap;

use crate::base::ModuleKind;
use crate::config::LoraConfig;
use crate::container::Container;
use crate::keys::Part;
use crate::limits::Limits;
use crate::plan::{ModulePlan, TensorRef};
use crate::refusal::Code;

use super::assign::Tensors;
use super::findings::Findings;
use super::sites::{Site, Sites};
use super::targeting::Targeting;

const LOW_RANK: [Part; 6] = [Part::A, Part::B, Part::EmbeddingA, Part::EmbeddingB, Part::BBias, Part::Magnitude];

/// Plans every low-rank change; complete only if nothing was refused.
pub(super) fn plan(
    config: &LoraConfig,
    weights: &Container,
    sites: &Sites,
    tensors: &Tensors,
    targeting: &Targeting,
    limits: &Limits,
    findings: &mut Findings,
) -> Vec<ModulePlan> {
    let mut plans = Vec::new();
    for (name, site) in sites.iter() {
        let parts = Parts::of(name, site, tensors, weights);
        let targeted = targeting.is_targeted(name);
        if !targeted && parts.any() && targeting.decided {
            findings.refuse(
                Code::Untargeted,
                name,
                "The file has tensors for this module, which the config does not target. Upload the config that was saved with these tensors.",
            );
        }
        let Some(pair) = parts.pair(targeted, findings) else { continue };
        if !targeted {
            continue;
        }
        if pair.rank > limits.rank_max {
            findings.refuse(
                Code::Quota,
                name,
                format!(
                    "Rank {} exceeds the limit of {}: train with a lower rank or ask the operator.",
                    pair.rank, limits.rank_max
                ),
            );
        }
        let rank = targeting.rank(name);
        if pair.rank != rank {
            findings.refuse(
                Code::RankConflict,
                name,
                format!("The tensors have rank {}, the config gives {rank}; the scale would be ambiguous. Upload the config that was saved with these tensors.", pair.rank),
            );
            continue;
        }
        let alpha = targeting.alpha(name, findings);
        let magnitude = parts.vector(Part::Magnitude, config.dora, "use_dora", findings);
        let lora_bias = parts.vector(Part::BBias, config.lora_bias, "lora_bias", findings);
        if config.lora_bias && matches!(site.kind, ModuleKind::Embedding { .. }) {
            findings.refuse(
                Code::Config,
                name,
                "PEFT has no `lora_bias` on embeddings: correct the field or drop this target.",
            );
        }
        let scale = scale(config, alpha, rank);
        plans.extend(site.slices.iter().map(|slice| {
            let rows = |name: &str| TensorRef { name: name.to_owned(), rows: slice.rows.clone() };
            ModulePlan {
                module: slice.path.clone(),
                kind: slice.kind,
                rank,
                alpha,
                scale,
                a: TensorRef::whole(pair.a),
                b: rows(pair.b),
                magnitude: magnitude.map(rows),
                lora_bias: lora_bias.map(rows),
            }
        }));
    }
    plans.sort_by(|left, right| left.module.cmp(&right.module));
    plans
}

/// What a change is multiplied by.
pub(super) fn scale(config: &LoraConfig, alpha: f64, rank: usize) -> f64 {
    if config.rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
}

/// Judges what holds whatever the config says: pairs and sizes.
pub(super) fn check_pairs(weights: &Container, sites: &Sites, tensors: &Tensors, findings: &mut Findings) {
    for (name, site) in sites.iter() {
        Parts::of(name, site, tensors, weights).pair(false, findings);
    }
}

/// The low-rank tensors of one module.
struct Parts<'a> {
    name: &'a str,
    site: &'a Site,
    weights: &'a Container,
    parts: BTreeMap<Part, &'a str>,
}

/// A pair that fits its module.
struct Pair<'a> {
    a: &'a str,
    b: &'a str,
    rank: usize,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str, site: &'a Site, tensors: &'a Tensors, weights: &'a Container) -> Self {
        let all = tensors.get(name).into_iter().flatten();
        let parts = all.filter(|(part, _)| LOW_RANK.contains(part)).map(|(part, tensor)| (*part, tensor.as_str()));
        Parts { name, site, weights, parts: parts.collect() }
    }

    fn any(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The pair, if it is complete and fits; otherwise the reason is refused (an absent pair only if it is `wanted`).
    fn pair(&self, wanted: bool, findings: &mut Findings) -> Option<Pair<'a>> {
        let (part_a, part_b, foreign, input, output) = match self.site.kind {
            ModuleKind::Linear { in_features, out_features, .. } => {
                (Part::A, Part::B, [Part::EmbeddingA, Part::EmbeddingB], in_features, out_features)
            }
            ModuleKind::Embedding { vocab, dim } => {
                (Part::EmbeddingA, Part::EmbeddingB, [Part::A, Part::B], vocab, dim)
            }
            ModuleKind::Norm { .. } => return None,
        };
        if let Some(tensor) = foreign.iter().find_map(|part| self.parts.get(part)) {
            let message = "A linear has `lora_A` and `lora_B`, an embedding `lora_embedding_A` and `lora_embedding_B`; here they are exchanged. Save the adapter with PEFT.";
            findings.refuse(Code::Shape, tensor, message);
            return None;
        }
        let (a, b) = match (self.parts.get(&part_a), self.parts.get(&part_b)) {
            (Some(a), Some(b)) => (*a, *b),
            (None, None) if self.any() => {
                findings.refuse(
                    Code::Unpaired,
                    self.name,
                    "The file has parts of this module, but neither A nor B. Upload the complete file.",
                );
                return None;
            }
            (None, None) => {
                if wanted {
                    findings.refuse(Code::Missing, self.name, "The config targets this module and the file has no tensor for it. Upload the complete file, or the config that was saved with it.");
                }
                return None;
            }
            (Some(one), None) | (None, Some(one)) => {
                findings.refuse(
                    Code::Unpaired,
                    *one,
                    "A and B come in pairs and the other one is missing. Upload the complete file.",
                );
                return None;
            }
        };
        let rank = self.rank(a, input, Axis::Input, findings);
        let rank_of_b = self.rank(b, output, Axis::Output, findings);
        let (rank, rank_of_b) = (rank?, rank_of_b?);
        if rank != rank_of_b {
            findings.refuse(
                Code::Shape,
                self.name,
                format!("A has rank {rank} and B has rank {rank_of_b}. Upload tensors of one training run."),
            );
            return None;
        }
        Some(Pair { a, b, rank })
    }

    /// The rank of A (`[rank, size]`) or B (`[size, rank]`).
    fn rank(&self, tensor: &str, size: usize, axis: Axis, findings: &mut Findings) -> Option<usize> {
        let view = self.weights.get(tensor)?;
        let (wanted, found) = match (axis, view.shape) {
            (Axis::Input, &[rank, found]) => (format!("[rank, {size}]"), Some((rank, found))),
            (Axis::Output, &[found, rank]) => (format!("[{size}, rank]"), Some((rank, found))),
            (Axis::Input, _) => (format!("[rank, {size}]"), None),
            (Axis::Output, _) => (format!("[{size}, rank]"), None),
        };
        match found {
            Some((rank, found)) if found == size => Some(rank),
            _ => {
                findings.refuse(
                    Code::Shape,
                    tensor,
                    format!("The tensor has shape {:?}; this base needs {wanted}. Choose the base that the adapter was made for.", view.shape),
                );
                None
            }
        }
    }

    /// A vector over the module's output that must be there exactly if the config declares it.
    fn vector(&self, part: Part, declared: bool, field: &str, findings: &mut Findings) -> Option<&'a str> {
        let output = match self.site.kind {
            ModuleKind::Linear { out_features, .. } => out_features,
            ModuleKind::Embedding { dim, .. } => dim,
            ModuleKind::Norm { .. } => return None,
        };
        match (self.parts.get(&part), declared) {
            (None, false) => None,
            (None, true) => {
                findings.refuse(Code::Missing, self.name, format!("The config sets `{field}` and the file lacks the tensor for this module. Upload the complete file."));
                None
            }
            (Some(tensor), false) => {
                findings.refuse(Code::Undeclared, *tensor, format!("The tensor has a meaning only with `{field}`, which the config does not set. Upload the config that was saved with it."));
                None
            }
            (Some(tensor), true) => {
                let view = self.weights.get(tensor)?;
                if view.shape != [output] {
                    findings.refuse(Code::Shape, *tensor, format!("The tensor has shape {:?}; this base needs [{output}]. Choose the base that the adapter was made for.", view.shape));
                    return None;
                }
                Some(tensor)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Axis {
    Input,
    Output,
}
