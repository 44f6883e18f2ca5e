//! `banyan key …`.

use domain::{ApiKeyName, Slug, TenantName};
use proto::v1::{
    ApiKey, CreateApiKeyRequest, GetApiKeyRequest, KeyLimits, ListApiKeysRequest, RevokeApiKeyRequest, Role,
};
use serde_json::json;

use crate::{
    cli::{KeyArgs, KeyVerb, RoleArg},
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, last_segment, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn key(args: KeyArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let mut keys = admin.keys();
    match args.verb {
        KeyVerb::Create { tenant, role, display_name, model, method, limits } => {
            let role = match role {
                RoleArg::Inference => Role::Inference,
                RoleArg::TenantAdmin => Role::TenantAdmin,
            };
            let limits = KeyLimits {
                requests_per_minute: limits.requests_per_minute,
                input_tokens_per_minute: limits.input_tokens_per_minute,
                output_tokens_per_minute: limits.output_tokens_per_minute,
                concurrent_requests: limits.concurrent_requests,
                budget_day: limits.budget_day,
                budget_month: limits.budget_month,
            };
            let api_key = ApiKey {
                role: role.into(),
                display_name: display_name.unwrap_or_default(),
                limits: Some(limits),
                models: model,
                methods: method,
                ..ApiKey::default()
            };
            let request = CreateApiKeyRequest { parent: parent(tenant), api_key: Some(api_key) };
            let created = keys.create_api_key(request).await?.into_inner();
            if as_json {
                let described = created.api_key.as_ref().map(json::api_key);
                return Ok(output::print_json(&json!({ "key": created.key, "api_key": described }))?);
            }
            eprintln!("shown now and never again:");
            Ok(output::line(&created.key)?)
        }
        KeyVerb::List { tenant } => list(&admin, parent(tenant), as_json).await,
        KeyVerb::Show { id, tenant } => {
            let key = keys.get_api_key(GetApiKeyRequest { name: name(tenant, id) }).await?;
            show(&[key.into_inner()], as_json)
        }
        KeyVerb::Revoke { id, tenant } => {
            let key = keys.revoke_api_key(RevokeApiKeyRequest { name: name(tenant, id) }).await?;
            show(&[key.into_inner()], as_json)
        }
    }
}

fn parent(tenant: Slug) -> String {
    TenantName { tenant }.to_string()
}

fn name(tenant: Slug, public_id: String) -> String {
    ApiKeyName { tenant, public_id }.to_string()
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
    let mut table = Table::new(&["PUBLIC ID", "ROLE", "DISPLAY NAME", "CREATED", "REVOKED"]);
    for key in keys {
        table.row([
            last_segment(&key.name).to_owned(),
            json::role(key.role()).to_owned(),
            key.display_name.clone(),
            time_text(key.create_time.as_ref()),
            time_text(key.revoke_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}
