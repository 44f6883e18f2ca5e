//! Wire messages as JSON. Field names are those of the contract; times are RFC 3339; absent times are null.

use prost_types::Timestamp;
use proto::v1::{
    Adapter, AdapterVersion, Alias, AliasPart, ApiKey, AuditEntry, Finish, FinishReason, LoadReceipt, Model, Outage,
    Plan, Role, Tenant, TenantLimits, Token, VersionState,
};
use serde_json::{Value, json};

use super::time_text;

pub fn plan(plan: &Plan) -> Value {
    let share = plan.share.unwrap_or_default();
    json!({
        "name": plan.name,
        "display_name": plan.display_name,
        "limits": limits(plan.limits.unwrap_or_default()),
        "share": {
            "weight": share.weight,
            "priority": share.priority,
            "kv_blocks_max": share.kv_blocks_max,
            "resident_adapters_max": share.resident_adapters_max,
            "waiting_requests_max": share.waiting_requests_max,
        },
        "outage": outage(plan.outage()),
        "create_time": moment(plan.create_time.as_ref()),
        "update_time": moment(plan.update_time.as_ref()),
        "etag": plan.etag,
    })
}

pub const fn outage(outage: Outage) -> &'static str {
    match outage {
        Outage::Unspecified | Outage::Closed => "closed",
        Outage::Leased => "leased",
        Outage::Open => "open",
    }
}

pub fn tenant(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name,
        "display_name": tenant.display_name,
        "plan": tenant.plan,
        "limits": limits(tenant.limits.unwrap_or_default()),
        "create_time": moment(tenant.create_time.as_ref()),
        "update_time": moment(tenant.update_time.as_ref()),
        "etag": tenant.etag,
    })
}

fn limits(limits: TenantLimits) -> Value {
    json!({
        "requests_per_minute": limits.requests_per_minute,
        "input_tokens_per_minute": limits.input_tokens_per_minute,
        "output_tokens_per_minute": limits.output_tokens_per_minute,
        "concurrent_requests": limits.concurrent_requests,
        "budget_day": limits.budget_day,
        "budget_month": limits.budget_month,
        "adapters_max": limits.adapters_max,
        "adapter_bytes_max": limits.adapter_bytes_max,
        "adapter_rank_max": limits.adapter_rank_max,
    })
}

pub fn api_key(key: &ApiKey) -> Value {
    let limits = key.limits.unwrap_or_default();
    json!({
        "name": key.name,
        "display_name": key.display_name,
        "role": role(key.role()),
        "limits": {
            "requests_per_minute": limits.requests_per_minute,
            "input_tokens_per_minute": limits.input_tokens_per_minute,
            "output_tokens_per_minute": limits.output_tokens_per_minute,
            "concurrent_requests": limits.concurrent_requests,
            "budget_day": limits.budget_day,
            "budget_month": limits.budget_month,
        },
        "models": key.models,
        "methods": key.methods,
        "create_time": moment(key.create_time.as_ref()),
        "expire_time": moment(key.expire_time.as_ref()),
        "revoke_time": moment(key.revoke_time.as_ref()),
        "last_use_time": moment(key.last_use_time.as_ref()),
        "previous_secret_expire_time": moment(key.previous_secret_expire_time.as_ref()),
        "etag": key.etag,
    })
}

pub fn audit_entry(entry: &AuditEntry) -> Value {
    let object = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    json!({
        "chain": entry.chain,
        "position": entry.position,
        "time": moment(entry.time.as_ref()),
        "actor": entry.actor,
        "actor_id": entry.actor_id,
        "actor_role": entry.actor_role,
        "method": entry.method,
        "resource": entry.resource,
        "action": entry.action,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "before": object(&entry.before),
        "after": object(&entry.after),
        "request_id": entry.request_id,
        "unrecorded": entry.unrecorded,
        "content": entry.content,
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    })
}

pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unspecified",
        Role::Inference => "inference",
        Role::TenantDeveloper => "tenant-developer",
        Role::TenantAdmin => "tenant-admin",
        Role::TenantAuditor => "tenant-auditor",
    }
}

pub fn adapter(adapter: &Adapter) -> Value {
    json!({
        "name": adapter.name,
        "display_name": adapter.display_name,
        "aliases": adapter.aliases.iter().map(alias).collect::<Vec<_>>(),
        "create_time": moment(adapter.create_time.as_ref()),
        "update_time": moment(adapter.update_time.as_ref()),
    })
}

pub fn alias(alias: &Alias) -> Value {
    json!({
        "name": alias.name,
        "digest": alias.digest,
        "previous_digest": alias.previous_digest,
        "update_time": moment(alias.update_time.as_ref()),
        "etag": alias.etag,
        "canary": alias.canary.as_ref().map(part),
        "shadow": alias.shadow.as_ref().map(part),
    })
}

pub fn part(part: &AliasPart) -> Value {
    json!({ "digest": part.digest, "basis_points": part.basis_points })
}

pub fn version(version: &AdapterVersion) -> Value {
    json!({
        "name": version.name,
        "digest": version.digest,
        "base_digest": version.base_digest,
        "size_bytes": version.size_bytes,
        "create_time": moment(version.create_time.as_ref()),
        "receipt": version.receipt.as_ref().map(receipt),
        "state": state(version.state()),
        "report": serde_json::from_str::<Value>(&version.report_json).ok(),
    })
}

fn receipt(receipt: &LoadReceipt) -> Value {
    let modules: Vec<_> = receipt
        .modules
        .iter()
        .map(|module| {
            json!({
                "module": module.module,
                "kind": module.kind,
                "rank": module.rank,
                "alpha": module.alpha,
                "scale": module.scale,
                "delta_norm": module.delta_norm,
                "dtype": module.dtype,
            })
        })
        .collect();
    let notes: Vec<_> =
        receipt.notes.iter().map(|note| json!({ "code": note.code, "message": note.message })).collect();
    json!({
        "parameters": receipt.parameters,
        "resident_bytes": receipt.resident_bytes,
        "probe_max_delta": receipt.probe_max_delta,
        "modules": modules,
        "notes": notes,
    })
}

pub const fn state(state: VersionState) -> &'static str {
    match state {
        VersionState::Unspecified => "",
        VersionState::Uploaded => "uploaded",
        VersionState::Checked => "checked",
        VersionState::Evaluated => "evaluated",
        VersionState::Live => "live",
        VersionState::Retired => "retired",
    }
}

pub fn model(model: &Model) -> Value {
    json!({
        "name": model.name,
        "display_name": model.display_name,
        "adapter_digest": model.adapter_digest,
        "base_digest": model.base_digest,
        "context_length": model.context_length,
        "update_time": moment(model.update_time.as_ref()),
    })
}

pub fn token(token: &Token) -> Value {
    let top: Vec<_> = token
        .top_logprobs
        .iter()
        .map(|top| json!({ "id": top.id, "text": top.text, "logprob": short(top.logprob) }))
        .collect();
    let mut value = json!({ "id": token.id });
    if let Some(logprob) = token.logprob {
        value["logprob"] = short(logprob);
        value["top_logprobs"] = top.into();
    }
    value
}

pub fn finish(finish: &Finish) -> Value {
    let usage = finish.usage.unwrap_or_default();
    let receipt = finish.receipt.clone().unwrap_or_default();
    json!({
        "finish_reason": finish_reason(finish.reason()),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_prompt_tokens": usage.cached_prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "receipt": {
            "base_digest": receipt.base_digest,
            "adapter_digest": receipt.adapter_digest,
            "worker": receipt.worker,
            "tokens": receipt.tokens,
            "request_id": receipt.request_id,
        },
        "seed": finish.seed,
        "limits": finish.limits,
    })
}

pub const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Unspecified => "unspecified",
        FinishReason::Eos => "eos",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Budget => "budget",
    }
}

/// The shortest text that reads back as the same f32.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

pub fn moment(timestamp: Option<&Timestamp>) -> Value {
    match timestamp {
        Some(_) => time_text(timestamp).into(),
        None => Value::Null,
    }
}
