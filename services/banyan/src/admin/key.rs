//! `banyan key …`.

use std::time::SystemTime;

use domain::{ApiKeyName, Slug, TenantName};
use prost_types::FieldMask;
use proto::v1::{
    ApiKey, CreateApiKeyRequest, GetApiKeyRequest, KeyLimits, ListApiKeysRequest, RevokeApiKeyRequest, Role,
    RotateApiKeyRequest, UpdateApiKeyRequest,
};
use serde_json::json;

use crate::{
    admin::limits,
    cli::{KeyArgs, KeyFieldArgs, KeyNameArgs, KeyVerb, RoleArg},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, last_segment, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn key(args: KeyArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let mut keys = admin.keys();
    match args.verb {
        KeyVerb::Create { tenant, role, fields } => {
            let role = match role {
                RoleArg::Inference => Role::Inference,
                RoleArg::TenantDeveloper => Role::TenantDeveloper,
                RoleArg::TenantAdmin => Role::TenantAdmin,
                RoleArg::TenantAuditor => Role::TenantAuditor,
            };
            let api_key = ApiKey { role: role.into(), ..wire(fields) };
            let request = CreateApiKeyRequest { parent: parent(tenant), api_key: Some(api_key) };
            let created = keys.create_api_key(request).await?.into_inner();
            show_secret(&created.key, created.api_key.as_ref(), as_json)
        }
        KeyVerb::List { tenant } => list(&admin, parent(tenant), as_json).await,
        KeyVerb::Show(key) => {
            let key = keys.get_api_key(GetApiKeyRequest { name: name(key) }).await?;
            show(&[key.into_inner()], as_json)
        }
        KeyVerb::Update { key, fields, all_models, all_methods, etag } => {
            let limits = &fields.limits;
            let paths = limits::paths(&[
                ("display_name", fields.display_name.is_some()),
                ("expire_time", fields.expires_in.is_some()),
                ("models", all_models || !fields.model.is_empty()),
                ("methods", all_methods || !fields.method.is_empty()),
                ("limits.requests_per_minute", limits.requests_per_minute.is_some()),
                ("limits.input_tokens_per_minute", limits.input_tokens_per_minute.is_some()),
                ("limits.output_tokens_per_minute", limits.output_tokens_per_minute.is_some()),
                ("limits.concurrent_requests", limits.concurrent_requests.is_some()),
                ("limits.budget_day", limits.budget_day.is_some()),
                ("limits.budget_month", limits.budget_month.is_some()),
            ]);
            if paths.is_empty() {
                return Err(Failure::Usage("say what to change, such as --display-name or a limit".to_owned()));
            }
            let api_key = ApiKey { name: name(key), etag: etag.unwrap_or_default(), ..wire(fields) };
            let request = UpdateApiKeyRequest { api_key: Some(api_key), update_mask: Some(FieldMask { paths }) };
            show(&[keys.update_api_key(request).await?.into_inner()], as_json)
        }
        KeyVerb::Rotate { key, overlap, etag } => {
            let overlap = prost_types::Duration::try_from(overlap.0).ok();
            let request = RotateApiKeyRequest { name: name(key), overlap, etag: etag.unwrap_or_default() };
            let rotated = keys.rotate_api_key(request).await?.into_inner();
            show_secret(&rotated.key, rotated.api_key.as_ref(), as_json)
        }
        KeyVerb::Revoke(key) => {
            let key = keys.revoke_api_key(RevokeApiKeyRequest { name: name(key) }).await?;
            show(&[key.into_inner()], as_json)
        }
    }
}

fn wire(fields: KeyFieldArgs) -> ApiKey {
    let limits = KeyLimits {
        requests_per_minute: fields.limits.requests_per_minute.unwrap_or(0),
        input_tokens_per_minute: fields.limits.input_tokens_per_minute.unwrap_or(0),
        output_tokens_per_minute: fields.limits.output_tokens_per_minute.unwrap_or(0),
        concurrent_requests: fields.limits.concurrent_requests.unwrap_or(0),
        budget_day: fields.limits.budget_day.unwrap_or(0),
        budget_month: fields.limits.budget_month.unwrap_or(0),
    };
    let expires_in = fields.expires_in.filter(|period| !period.0.is_zero());
    ApiKey {
        display_name: fields.display_name.unwrap_or_default(),
        limits: Some(limits),
        models: fields.model,
        methods: fields.method,
        expire_time: expires_in.map(|period| (SystemTime::now() + period.0).into()),
        ..ApiKey::default()
    }
}

fn show_secret(key: &str, api_key: Option<&ApiKey>, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&json!({ "key": key, "api_key": api_key.map(json::api_key) }))?);
    }
    eprintln!("shown now and never again:");
    Ok(output::line(key)?)
}

fn parent(tenant: Slug) -> String {
    TenantName { tenant }.to_string()
}

fn name(key: KeyNameArgs) -> String {
    ApiKeyName { tenant: key.tenant, public_id: key.id }.to_string()
}

async fn list(admin: &Admin, parent: String, as_json: bool) -> Outcome {
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListApiKeysRequest { parent: parent.clone(), page_size: 0, page_token };
        let page = admin.keys().list_api_keys(request).await?.into_inner();
        keys.extend(page.api_keys);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let keys: Vec<_> = keys.iter().map(json::api_key).collect();
        return Ok(output::print_json(&json!({ "api_keys": keys }))?);
    }
    show(&keys, false)
}

fn show(keys: &[ApiKey], as_json: bool) -> Outcome {
    if let (true, [key]) = (as_json, keys) {
        return Ok(output::print_json(&json::api_key(key))?);
    }
    let mut table = Table::new(&["PUBLIC ID", "ROLE", "DISPLAY NAME", "CREATED", "LAST USED", "EXPIRES", "REVOKED"]);
    for key in keys {
        table.row([
            last_segment(&key.name).to_owned(),
            json::role(key.role()).to_owned(),
            key.display_name.clone(),
            time_text(key.create_time.as_ref()),
            time_text(key.last_use_time.as_ref()),
            time_text(key.expire_time.as_ref()),
            time_text(key.revoke_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}
