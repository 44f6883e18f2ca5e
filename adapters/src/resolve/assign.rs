//! Each tensor of the file to its place: a module and a part of it. A tensor without a place is refused here.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Base;
use crate::container::Container;
use crate::keys::{Key, Part};
use crate::plan::NoteCode;
use crate::refusal::Code;

use super::findings::Findings;
use super::sites::Sites;

/// Tensor names by the adapter's module name and part.
pub(super) type Tensors = BTreeMap<String, BTreeMap<Part, String>>;

pub(super) fn assign(weights: &Container, base: &Base, findings: &mut Findings) -> (Sites, Tensors) {
    let mut keys: Vec<(&str, Key)> = Vec::new();
    for name in weights.names() {
        match Key::parse(name) {
            Ok(key) => keys.push((name, key)),
            Err(refusal) => findings.push(refusal),
        }
    }
    one_adapter(&keys, findings);
    note_renames(&keys, findings);

    let named: BTreeSet<String> = keys.iter().map(|(_, key)| key.module.clone()).collect();
    let sites = Sites::new(&named, base, findings);
    let mut tensors = Tensors::new();
    for (name, key) in keys {
        if sites.get(&key.module).is_none() {
            sites.refuse_absent(&key.module, findings);
            continue;
        }
        let parts = tensors.entry(key.module).or_default();
        if let Some(other) = parts.insert(key.part, name.to_owned()) {
            findings.refuse(
                Code::DuplicateTensor,
                name,
                format!("It is the same tensor as {other} under another name. Keep one of the two."),
            );
        }
    }
    (sites, tensors)
}

/// A raw dump of a training run may hold several adapters; which one is meant cannot be told.
fn one_adapter(keys: &[(&str, Key)], findings: &mut Findings) {
    let names: BTreeSet<&str> = keys.iter().filter_map(|(_, key)| key.adapter.as_deref()).collect();
    if names.len() > 1 {
        let listed = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        findings.refuse(
            Code::UnknownTensor,
            "tensor names",
            format!("The file holds the adapters {}. Save one of them with `save_pretrained(..., selected_adapters=[...])`.", crate::refusal::clip(&listed, 256)),
        );
    } else if let Some(name) = names.first() {
        findings.note(NoteCode::RenamedTensors, name, "The adapter name inside the tensor names was left out.");
    }
}

fn note_renames(keys: &[(&str, Key)], findings: &mut Findings) {
    if let Some((name, _)) = keys.iter().find(|(_, key)| !key.prefixed) {
        findings.note(
            NoteCode::RenamedTensors,
            name,
            "Tensor names without `base_model.model.` were taken as if they had it.",
        );
    }
    if let Some((name, _)) = keys.iter().find(|(_, key)| key.unwrapped) {
        findings.note(
            NoteCode::RenamedTensors,
            name,
            "Segments of torch.compile or FSDP in tensor names were left out.",
        );
    }
}
