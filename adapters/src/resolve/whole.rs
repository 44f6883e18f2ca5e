//! Whole tensors: private copies of the embedding and the output layer, trained biases, and copies of the base that
//! PEFT writes along and that change nothing.

use crate::base::{Base, EMBED_TOKENS, LM_HEAD, ModuleKind};
use crate::config::{Bias, LoraConfig};
use crate::container::{Container, TensorView};
use crate::digest;
use crate::keys::Part;
use crate::limits::Limits;
use crate::plan::{BiasReplacement, NoteCode, PrivateModule, TensorRef};
use crate::refusal::Code;

use super::assign::Tensors;
use super::findings::Findings;
use super::sites::{Site, Sites};
use super::targeting::Targeting;

/// What replaces parts of the base for this adapter.
#[derive(Default)]
pub(super) struct Whole {
    pub private: Vec<PrivateModule>,
    pub biases: Vec<BiasReplacement>,
}

#[allow(clippy::too_many_arguments)] // the whole of what is known so far; each is used by name
pub(super) fn plan(
    config: &LoraConfig,
    weights: &Container,
    base: &Base,
    sites: &Sites,
    tensors: &Tensors,
    targeting: &Targeting,
    limits: &Limits,
    findings: &mut Findings,
) -> Whole {
    let mut whole = Whole::default();
    let mut judge = Judge { config, weights, base, sites, tensors, targeting, findings };
    judge.weight_tying();
    for (name, site) in sites.iter() {
        judge.weight(name, site, &mut whole.private);
        judge.bias(name, site, &mut whole.biases);
    }
    judge.saved_containers();
    let bytes: u64 = whole.private.iter().map(|module| module.bytes).sum();
    if bytes > limits.private_bytes_max {
        findings.refuse(
            Code::Quota,
            "modules_to_save",
            format!("Private modules take {bytes} bytes, {} are allowed. Train without `modules_to_save`, or ask the operator.", limits.private_bytes_max),
        );
    }
    whole.private.sort_by(|left, right| left.module.cmp(&right.module));
    whole.biases.sort_by(|left, right| left.module.cmp(&right.module));
    whole
}

struct Judge<'a, 'f> {
    config: &'a LoraConfig,
    weights: &'a Container,
    base: &'a Base,
    sites: &'a Sites,
    tensors: &'a Tensors,
    targeting: &'a Targeting,
    findings: &'f mut Findings,
}

impl Judge<'_, '_> {
    /// PEFT takes each name of `modules_to_save` as the end of a module's name.
    fn is_saved(&self, name: &str) -> bool {
        self.config.modules_to_save.iter().any(|saved| name.ends_with(saved.as_str()))
    }

    fn tensor(&self, name: &str, part: Part) -> Option<(&str, TensorView<'_>)> {
        let tensor = self.tensors.get(name)?.get(&part)?;
        Some((tensor, self.weights.get(tensor)?))
    }

    fn weight_tying(&mut self) {
        if !self.config.ensure_weight_tying {
            return;
        }
        let vocabulary = [EMBED_TOKENS, LM_HEAD].map(|path| self.sites.name(path));
        let touched = vocabulary.iter().any(|name| self.is_saved(name) || self.targeting.is_targeted(name));
        if touched && self.base.tied_embeddings() {
            self.findings.refuse(
                Code::Unsupported,
                "ensure_weight_tying",
                "Adapters that tie the output layer to a changed embedding are not served. Train with `ensure_weight_tying` false, or without the embedding.",
            );
        } else {
            self.findings.note(
                NoteCode::IgnoredField,
                "ensure_weight_tying",
                "The adapter touches no tied module, so the field has no effect.",
            );
        }
    }

    fn weight(&mut self, name: &str, site: &Site, private: &mut Vec<PrivateModule>) {
        let path = site.slices.first().map_or(name, |slice| &slice.path).to_owned();
        let content = self.base.content(&path).cloned();
        let saved = self.is_saved(name);
        if saved && content.is_none() {
            return self.findings.refuse(
                Code::FullModule,
                name,
                "`modules_to_save` brings a full copy of this module; only `embed_tokens` and `lm_head` are kept privately. Train it with LoRA instead.",
            );
        }
        let mut trained = false;
        for part in [Part::Weight, Part::BaseWeight] {
            let Some((tensor, view)) = self.tensor(name, part) else { continue };
            let (tensor, shape, dtype, bytes) =
                (tensor.to_owned(), view.shape.to_vec(), view.dtype, view.data.len() as u64);
            let Some(content) = &content else {
                self.findings.refuse(Code::FullModule, &tensor, "This is a full weight of the base, not an adapter tensor. Save with PEFT's `save_pretrained`, which writes adapter tensors only.");
                continue;
            };
            let equal = shape == site.kind.weight_shape() && content.for_dtype(dtype) == Some(digest::content(&view));
            let is_private = saved && part == Part::Weight;
            trained |= is_private;
            if equal {
                self.findings.note(
                    NoteCode::EqualToBase,
                    &tensor,
                    "The tensor equals that of the base and is not kept.",
                );
            } else if is_private && shape == site.kind.weight_shape() {
                if self.base.tied_embeddings() {
                    self.findings.note(NoteCode::PrivateUntie, &path, "The base ties its output layer to its embedding; for this adapter only the module in the file is replaced, as PEFT does.");
                }
                private.push(PrivateModule {
                    module: path.clone(),
                    kind: site.kind,
                    weight: TensorRef::whole(tensor),
                    bytes,
                });
            } else {
                self.findings.refuse(
                    Code::VocabChanged,
                    &tensor,
                    format!(
                        "The tensor {shape:?} differs from that of the base {:?} and `modules_to_save` does not name it: the vocabulary or the embedding was changed in training. \
                         Serve it on the base with that vocabulary, or train with `modules_to_save`.",
                        site.kind.weight_shape()
                    ),
                );
            }
        }
        if saved && !trained {
            self.findings.refuse(
                Code::Missing,
                name,
                "`modules_to_save` names this module and the file has no weight for it. Upload the complete file.",
            );
        }
        if saved && self.targeting.is_targeted(name) {
            self.findings.refuse(
                Code::Unsupported,
                name,
                "The module is in `modules_to_save` and also a LoRA target. Keep one of the two.",
            );
        }
    }

    /// Names of `modules_to_save` that mean a group of modules, or nothing.
    fn saved_containers(&mut self) {
        for saved in &self.config.modules_to_save {
            let group = self.sites.containers.iter().find(|name| name.ends_with(saved.as_str()));
            if let Some(group) = group {
                self.findings.refuse(Code::FullModule, group, "`modules_to_save` brings a full copy of this part of the base; only `embed_tokens` and `lm_head` are kept privately. Train it with LoRA instead.");
            } else if !self.sites.iter().any(|(name, _)| name.ends_with(saved.as_str())) {
                self.findings.note(
                    NoteCode::TargetAbsent,
                    saved,
                    "`modules_to_save` names a module that the base has not; PEFT ignores it too.",
                );
            }
        }
    }

    fn bias(&mut self, name: &str, site: &Site, biases: &mut Vec<BiasReplacement>) {
        let (output, base_has_bias) = match site.kind {
            ModuleKind::Linear { out_features, bias, .. } => (out_features, bias),
            _ => (0, false),
        };
        let expected = base_has_bias
            && match self.config.bias {
                Bias::None => false,
                Bias::All => true,
                Bias::LoraOnly => self.targeting.is_targeted(name),
            };
        let Some((tensor, view)) = self.tensor(name, Part::Bias) else {
            if expected && self.targeting.decided {
                self.findings.refuse(
                    Code::Missing,
                    name,
                    "The config says that biases were trained and the file lacks the one of this module (some PEFT releases dropped them). Save again with a newer PEFT, or train with `bias` \"none\".",
                );
            }
            return;
        };
        let (tensor, shape) = (tensor.to_owned(), view.shape.to_vec());
        if !base_has_bias {
            self.findings.refuse(
                Code::Shape,
                &tensor,
                "The module of the base has no bias. Choose the base that the adapter was made for.",
            );
        } else if self.config.bias == Bias::None {
            self.findings.refuse(
                Code::Undeclared,
                &tensor,
                "The file has a bias and the config says `bias`: \"none\". Upload the config that was saved with it.",
            );
        } else if !expected {
            if self.targeting.decided {
                self.findings.refuse(Code::Untargeted, &tensor, "The config says that biases of targeted modules were trained, and this module is not one. Upload the config that was saved with it.");
            }
        } else if shape != [output] {
            self.findings.refuse(Code::Shape, &tensor, format!("The bias has shape {shape:?}; this base needs [{output}]. Choose the base that the adapter was made for."));
        } else {
            biases.extend(site.slices.iter().map(|slice| BiasReplacement {
                module: slice.path.clone(),
                bias: TensorRef { name: tensor.clone(), rows: slice.rows.clone() },
            }));
        }
    }
}
