//! Adapters and their versions as messages, and an upload's messages as chunks.

use adapters::{Receipt, receipt::Variant};
use domain::{AdapterName, AliasName, Fault, Part, Slug, VersionName, VersionState};
use proto::v1;
use serde_json::Value;
use store::{Adapter, AdapterVersion, Alias, VersionStep};

use crate::{
    parse::wire_time,
    uploads::{Chunk, PROBE_KEY},
};

pub fn read_message(message: v1::UploadAdapterVersionRequest) -> Result<Chunk, Fault> {
    use v1::upload_adapter_version_request::Message;
    match message.message {
        Some(Message::Chunk(chunk)) => Ok(Chunk { file: chunk.file, data: chunk.data }),
        Some(Message::Start(_)) => Err(Fault::invalid("start", "must be the first message only")),
        None => Err(Fault::invalid("message", "must be `start` or `chunk`")),
    }
}

pub fn wire_adapter(tenant: &Slug, adapter: Adapter) -> v1::Adapter {
    let name = AdapterName { tenant: tenant.clone(), adapter: adapter.slug };
    v1::Adapter {
        aliases: adapter.aliases.into_iter().map(|alias| wire_alias(&name, alias)).collect(),
        name: name.to_string(),
        display_name: adapter.display_name,
        create_time: Some(wire_time(adapter.created_at)),
        update_time: Some(wire_time(adapter.updated_at)),
    }
}

pub fn wire_alias(adapter: &AdapterName, alias: Alias) -> v1::Alias {
    let name = AliasName { tenant: adapter.tenant.clone(), adapter: adapter.adapter.clone(), alias: alias.name };
    v1::Alias {
        name: name.to_string(),
        digest: alias.targets.stable.to_string(),
        previous_digest: alias.targets.previous.map(|digest| digest.to_string()).unwrap_or_default(),
        update_time: Some(wire_time(alias.updated_at)),
        etag: alias.etag,
        canary: alias.targets.canary.map(wire_part),
        shadow: alias.targets.shadow.map(wire_part),
    }
}

pub fn wire_part(part: Part) -> v1::AliasPart {
    v1::AliasPart { digest: part.digest.to_string(), basis_points: part.share.get().into() }
}

pub fn wire_step(step: VersionStep) -> v1::AdapterVersionStep {
    let state = |state: Option<VersionState>| state.map_or(v1::VersionState::Unspecified, wire_state).into();
    v1::AdapterVersionStep {
        from: state(step.from),
        to: state(step.to),
        reason: step.reason,
        actor: step.actor,
        time: Some(wire_time(step.at)),
    }
}

const fn wire_state(state: VersionState) -> v1::VersionState {
    match state {
        VersionState::Uploaded => v1::VersionState::Uploaded,
        VersionState::Checked => v1::VersionState::Checked,
        VersionState::Evaluated => v1::VersionState::Evaluated,
        VersionState::Live => v1::VersionState::Live,
        VersionState::Retired => v1::VersionState::Retired,
    }
}

pub fn wire_version(adapter: &AdapterName, version: AdapterVersion) -> v1::AdapterVersion {
    let name = VersionName { tenant: adapter.tenant.clone(), adapter: adapter.adapter.clone(), digest: version.digest };
    v1::AdapterVersion {
        name: name.to_string(),
        digest: version.digest.to_string(),
        base_digest: version.base_digest.to_string(),
        size_bytes: version.size_bytes,
        receipt: read_receipt(version.receipt),
        create_time: Some(wire_time(version.created_at)),
        state: wire_state(version.state).into(),
        report_json: version.report.map(|report| report.to_string()).unwrap_or_default(),
    }
}

/// Lists keep the modules back. A receipt that this build cannot read is left out rather than guessed at.
fn read_receipt(mut json: Value) -> Option<v1::LoadReceipt> {
    let object = json.as_object_mut()?;
    let listed = !object.contains_key("modules");
    object.entry("modules").or_insert_with(|| Value::Array(Vec::new()));
    let probe_max_delta = object.remove(PROBE_KEY).and_then(|delta| delta.as_f64());
    let receipt: Receipt = serde_json::from_value(json)
        .map_err(|error| tracing::error!(%error, "a stored load receipt is not readable"))
        .ok()?;
    let modules = if listed { Vec::new() } else { wire_modules(&receipt) };
    let notes = receipt.notes.into_iter();
    Some(v1::LoadReceipt {
        parameters: receipt.parameters,
        resident_bytes: receipt.bytes,
        modules,
        notes: notes
            .map(|note| v1::LoadNote {
                code: note.code.as_str().to_owned(),
                message: format!("{}: {}", note.subject, note.message),
            })
            .collect(),
        probe_max_delta,
    })
}

fn wire_modules(receipt: &Receipt) -> Vec<v1::ModuleReceipt> {
    let lora = receipt.modules.iter().map(|module| v1::ModuleReceipt {
        module: module.module.clone(),
        kind: match module.variant {
            Variant::Lora => "lora",
            Variant::Dora => "dora",
        }
        .to_owned(),
        rank: u32::try_from(module.rank).unwrap_or(u32::MAX),
        alpha: module.alpha,
        scale: module.scale,
        delta_norm: module.delta_norm,
        dtype: module.dtype.name().to_owned(),
    });
    let private = receipt.private.iter().map(|module| v1::ModuleReceipt {
        module: module.module.clone(),
        kind: "private".to_owned(),
        dtype: module.dtype.name().to_owned(),
        ..v1::ModuleReceipt::default()
    });
    let biases = receipt.biases.iter().map(|module| v1::ModuleReceipt {
        module: module.clone(),
        kind: "bias".to_owned(),
        ..v1::ModuleReceipt::default()
    });
    lora.chain(private).chain(biases).collect()
}
