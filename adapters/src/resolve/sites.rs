//! The modules of the base under the names that the adapter uses for them. Usually they are the same; some files carry
//! the prefix of a multimodal wrapper, and some name a fused projection where the base has it split.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::base::{Base, LM_HEAD, ModuleKind};
use crate::plan::NoteCode;
use crate::refusal::Code;

use super::findings::Findings;

/// All modules that the adapter may touch, by the adapter's names.
pub(super) struct Sites {
    by_name: BTreeMap<String, Site>,
    /// Names of what holds modules, such as `model.layers.0.mlp`.
    pub containers: BTreeSet<String>,
    /// Parts of fused projections that the file uses, by name, and the fused name.
    fused_parts: BTreeMap<String, String>,
    layers: usize,
    style: Style,
}

/// A module as the adapter sees it.
pub(super) struct Site {
    pub kind: ModuleKind,
    /// The modules of the base that it is: one, or the parts of a fused projection in order of their rows.
    pub slices: Vec<Slice>,
}

/// A module of the base, and its rows within a fused projection.
pub(super) struct Slice {
    pub path: String,
    pub kind: ModuleKind,
    pub rows: Option<Range<usize>>,
}

/// Where the decoder stands in the model that the adapter was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Style {
    Plain,
    ModelLanguageModel,
    LanguageModel,
}

const FUSED: [(&str, &[&str]); 2] = [
    ("self_attn.qkv_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("mlp.gate_up_proj", &["mlp.gate_proj", "mlp.up_proj"]),
];

impl Sites {
    /// `named` are the module names that occur in the file.
    pub fn new(named: &BTreeSet<String>, base: &Base, findings: &mut Findings) -> Sites {
        let style = style_of(named, findings);
        let mut sites = Sites {
            by_name: BTreeMap::new(),
            containers: BTreeSet::new(),
            fused_parts: BTreeMap::new(),
            layers: base.layers(),
            style,
        };
        for (path, module) in base.modules() {
            let slice = Slice { path: path.clone(), kind: module.kind, rows: None };
            sites.by_name.insert(style.name(path), Site { kind: module.kind, slices: vec![slice] });
        }
        for layer in 0..base.layers() {
            for (fused, parts) in FUSED {
                let name = style.name(&format!("model.layers.{layer}.{fused}"));
                if named.contains(&name) {
                    sites.fuse(&name, layer, parts, findings);
                }
            }
        }
        for name in sites.by_name.keys() {
            let prefixes = name.match_indices('.').map(|(dot, _)| name.split_at(dot).0.to_owned());
            sites.containers.extend(prefixes);
        }
        sites
    }

    pub fn get(&self, name: &str) -> Option<&Site> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Site)> {
        self.by_name.iter().map(|(name, site)| (name.as_str(), site))
    }

    /// The adapter's name for a module of the base.
    pub fn name(&self, path: &str) -> String {
        self.style.name(path)
    }

    /// Says why `module` of the file is no module of the base.
    pub fn refuse_absent(&self, module: &str, findings: &mut Findings) {
        if let Some(fused) = self.fused_parts.get(module) {
            let message =
                format!("The file changes this module and also {fused}, of which it is a part. Keep one of the two.");
            return findings.refuse(Code::DuplicateTensor, module, message);
        }
        let layer = module.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
        let message = match layer {
            Some(layer) if layer >= self.layers => {
                format!("The base has {} layers, so there is no layer {layer}: the adapter was made for a larger base. Choose that base.", self.layers)
            }
            _ => "The base has no module of this name: the adapter was made for another model or renamed. Choose its base, or save it with PEFT's own names.".to_owned(),
        };
        findings.refuse(Code::BaseMismatch, module, message);
    }

    /// Replaces the parts of a fused projection by the fused name.
    fn fuse(&mut self, name: &str, layer: usize, parts: &[&str], findings: &mut Findings) {
        let mut slices = Vec::with_capacity(parts.len());
        let mut rows = 0;
        let (mut input, mut biased) = (0, true);
        for part in parts {
            let path = format!("model.layers.{layer}.{part}");
            let part_name = self.style.name(&path);
            let Some(Site { kind: kind @ ModuleKind::Linear { in_features, out_features, bias }, .. }) =
                self.by_name.remove(&part_name)
            else {
                return;
            };
            (input, biased) = (in_features, biased && bias);
            slices.push(Slice { path, kind, rows: Some(rows..rows + out_features) });
            rows += out_features;
            self.fused_parts.insert(part_name, name.to_owned());
        }
        let kind = ModuleKind::Linear { in_features: input, out_features: rows, bias: biased };
        self.by_name.insert(name.to_owned(), Site { kind, slices });
        findings.note(
            NoteCode::FusedSplit,
            name,
            "The file changes a fused projection; its rows are applied to the parts that the base has.",
        );
    }
}

impl Style {
    const ALL: [Style; 3] = [Style::ModelLanguageModel, Style::LanguageModel, Style::Plain];

    fn prefix(self) -> &'static str {
        match self {
            Style::Plain => "model.",
            Style::ModelLanguageModel => "model.language_model.",
            Style::LanguageModel => "language_model.model.",
        }
    }

    /// The name that a module of the base has in this style.
    fn name(self, path: &str) -> String {
        match (self, path.strip_prefix("model.")) {
            (_, Some(rest)) => format!("{}{rest}", self.prefix()),
            (Style::LanguageModel, None) => format!("language_model.{path}"),
            (_, None) => path.to_owned(),
        }
    }
}

/// The style that all names share. Names of one file come from one model, so a mixture is refused.
fn style_of(named: &BTreeSet<String>, findings: &mut Findings) -> Style {
    let style_of_name = |name: &String| Style::ALL.into_iter().find(|style| name.starts_with(style.prefix()));
    let styles: BTreeSet<Style> =
        named.iter().filter(|name| name.as_str() != LM_HEAD).filter_map(style_of_name).collect();
    let style = styles.first().copied().unwrap_or(Style::Plain);
    if styles.len() > 1 {
        findings.refuse(
            Code::BaseMismatch,
            "tensor names",
            "Some tensor names have the prefix of a multimodal model and some have not. Save the adapter with PEFT's own names.",
        );
    } else if style != Style::Plain {
        let message = format!("The prefix {} of a multimodal model was taken as `model.`.", style.prefix());
        findings.note(NoteCode::RenamedTensors, style.prefix(), message);
    }
    style
}
