//! The files of an adapter as they arrive: from a folder on this machine, or uploaded by name. Only the two files of
//! PEFT are read; whatever shows that the user holds something else is refused with what to do instead.
//!
//! It does not unpack archives, follow links, or read pickles.

mod folder;

use bytes::Bytes;

use crate::base::Base;
use crate::container::Container;
use crate::limits::Limits;
use crate::plan::{Note, NoteCode, Plan};
use crate::refusal::{Code, Refusal, clip};
use crate::resolve::Resolved;

/// Name of the config file.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the weights file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// The two files that make an adapter.
#[derive(Clone, Debug)]
pub struct Files {
    pub config: Bytes,
    pub weights: Bytes,
    /// Other files that were there and were not read.
    pub notes: Vec<Note>,
}

impl Files {
    /// Reads an adapter from a folder, as `save_pretrained` writes it.
    pub fn read(dir: &std::path::Path, limits: &Limits) -> Result<Files, Vec<Refusal>> {
        folder::read(dir, limits)
    }

    /// Takes uploaded files by name. Names are compared whole: a path is never a name.
    pub fn from_upload(
        entries: impl IntoIterator<Item = (String, Bytes)>,
        limits: &Limits,
    ) -> Result<Files, Vec<Refusal>> {
        let mut found = Found::default();
        for (name, bytes) in entries {
            let slot = match name.as_str() {
                CONFIG => &mut found.config,
                WEIGHTS => &mut found.weights,
                _ => {
                    found.others.push(name);
                    continue;
                }
            };
            if slot.replace(bytes).is_some() {
                found.refusals.push(Refusal::new(Code::Files, &name, "The file was sent twice. Send it once."));
            }
        }
        // unlike a folder, an upload holds what its sender chose: a stranger is a mistake, not a leftover
        for name in &found.others {
            let known = found.weights.is_some() && is_pickle(name);
            if !known && diagnose(name).is_none() {
                let message = format!("Only {CONFIG} and {WEIGHTS} are taken, by these names and without a folder.");
                found.refusals.push(Refusal::new(Code::Files, name, message));
            }
        }
        found.finish(limits)
    }

    /// Judges the files against a base: [`Container::parse`], then [`crate::judge()`]. Notes about files are included.
    pub fn judge(&self, base: &Base, limits: &Limits) -> Result<Plan, Vec<Refusal>> {
        let mut plan = crate::judge(&self.config, &self.parse(limits)?, base, limits)?;
        plan.notes.extend(self.notes.iter().cloned());
        Ok(plan)
    }

    /// As [`Files::judge`], and measures the adapter, as [`crate::resolve()`].
    pub fn resolve(&self, base: &Base, limits: &Limits) -> Result<Resolved, Vec<Refusal>> {
        let mut resolved = crate::resolve(&self.config, &self.parse(limits)?, base, limits)?;
        resolved.plan.notes.extend(self.notes.iter().cloned());
        resolved.receipt.notes.extend(self.notes.iter().cloned());
        Ok(resolved)
    }

    /// With what is wrong with the config too, if the container is refused.
    fn parse(&self, limits: &Limits) -> Result<Container, Vec<Refusal>> {
        Container::parse(self.weights.clone(), limits).map_err(|refusal| {
            let mut refusals = crate::config::LoraConfig::read(&self.config, limits).refusals;
            refusals.push(refusal);
            refusals
        })
    }
}

/// What was found under which name.
#[derive(Default)]
struct Found {
    config: Option<Bytes>,
    weights: Option<Bytes>,
    others: Vec<String>,
    refusals: Vec<Refusal>,
}

impl Found {
    fn finish(mut self, limits: &Limits) -> Result<Files, Vec<Refusal>> {
        if self.weights.is_none() {
            let hints: Vec<Refusal> = self.others.iter().filter_map(|name| diagnose(name)).collect();
            let told = !hints.is_empty() || !self.refusals.is_empty();
            self.refusals.extend(hints);
            if !told {
                let message = format!(
                    "{WEIGHTS} is missing. Save the adapter with PEFT's `save_pretrained` and give that folder."
                );
                self.refusals.push(Refusal::new(Code::Files, WEIGHTS, message));
            }
        }
        if self.config.is_none() && self.weights.is_some() {
            let message = format!(
                "{CONFIG} is missing: without it neither rank nor scale are known. Add the one that PEFT wrote with the weights."
            );
            self.refusals.push(Refusal::new(Code::Files, CONFIG, message));
        }
        let sizes = [
            (CONFIG, &self.config, limits.config_bytes_max as u64),
            (WEIGHTS, &self.weights, limits.weights_bytes_max),
        ];
        for (name, bytes, limit) in sizes {
            let found = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            if found > limit {
                self.refusals.push(too_large(name, found, limit));
            }
        }
        self.refusals.sort_by(|left, right| (left.code, &left.subject).cmp(&(right.code, &right.subject)));
        self.refusals.dedup();
        match (self.config, self.weights, self.refusals.is_empty()) {
            (Some(config), Some(weights), true) => {
                let ignored = |name: &String| Note {
                    code: NoteCode::IgnoredFile,
                    subject: clip(name, 256),
                    message: format!("This file was not read; {WEIGHTS} holds the adapter."),
                };
                Ok(Files { config, weights, notes: self.others.iter().take(32).map(ignored).collect() })
            }
            _ => Err(self.refusals),
        }
    }
}

fn too_large(name: &str, found: u64, limit: u64) -> Refusal {
    let message = format!(
        "The file is {found} bytes long, {limit} are allowed. Make the adapter smaller or ask the operator for a higher limit."
    );
    Refusal::new(Code::Quota, name, message)
}

fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".pkl", ".ckpt"].iter().any(|extension| name.ends_with(extension))
}

/// What a file name says about what the user holds, if it is not an adapter as we take it.
fn diagnose(name: &str) -> Option<Refusal> {
    let refusal = |code, message: &str| Some(Refusal::new(code, name, message));
    if name.contains(['/', '\\']) || name.contains("..") {
        return refusal(Code::Files, "Names must be plain, without folders. Send the two files of the inner folder.");
    }
    if [".zip", ".tar", ".gz", ".tgz", ".7z"].iter().any(|extension| name.ends_with(extension)) {
        return refusal(Code::Files, "Archives are not unpacked. Unpack it and send the two files.");
    }
    if name.starts_with("adapt_model") {
        return refusal(
            Code::Files,
            "Rename adapt_model.safetensors to adapter_model.safetensors and its config to adapter_config.json.",
        );
    }
    let is_shard = name.contains("-of-") || name.starts_with("adapter_model-0");
    if name.starts_with("adapter_model") && is_shard {
        return refusal(
            Code::FullModel,
            "The adapter is split over several files. Save it as one: `save_pretrained(..., max_shard_size=\"100GB\")`, or merge the shards.",
        );
    }
    if name.starts_with("model") && name.ends_with(".safetensors") || name.starts_with("pytorch_model") {
        return refusal(
            Code::FullModel,
            "This is a whole model, not an adapter. Save the adapter alone with the PEFT model's `save_pretrained`, before merging.",
        );
    }
    if is_pickle(name) {
        return refusal(
            Code::Pickle,
            "Pickle files can run code when they are read. Save again with `save_pretrained(..., safe_serialization=True)`.",
        );
    }
    None
}
