//! Does the config say that the adapter was made for this base? Names are weak evidence, so only a clear contradiction
//! is refused; the shapes are judged elsewhere.

use crate::base::Base;
use crate::config::LoraConfig;
use crate::plan::NoteCode;
use crate::refusal::{Code, clip};

use super::findings::Findings;

const FIELD: &str = "base_model_name_or_path";

pub(super) fn check(config: &LoraConfig, base: &Base, findings: &mut Findings) {
    let Some(stated) = &config.base_model else {
        return findings.note(
            NoteCode::BaseUnstated,
            FIELD,
            "The config names no base model; the tensors fit this one.",
        );
    };
    let shown = clip(stated, 128);
    let is_ours = |stated: &str| base.names().iter().any(|name| name.eq_ignore_ascii_case(stated));
    if is_ours(stated) || is_local_path(stated) && last_segment(stated).is_some_and(is_ours) {
        return;
    }
    if base.names().is_empty() || is_local_path(stated) {
        let message = format!(
            "The config names the base model {shown}, which cannot be compared with this one by name; the tensors fit."
        );
        return findings.note(NoteCode::BaseUnverified, FIELD, message);
    }
    findings.refuse(
        Code::BaseMismatch,
        FIELD,
        format!(
            "The adapter was made for {shown}; this base is {}. Choose that base, or ask the operator to declare {shown} as a name of this one.",
            base.names().join(", ")
        ),
    );
}

/// A folder on the machine of whoever trained, rather than a public name.
fn is_local_path(name: &str) -> bool {
    name.starts_with(['/', '.', '~']) || name.contains('\\') || name.matches('/').count() > 1
}

fn last_segment(path: &str) -> Option<&str> {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()
}
