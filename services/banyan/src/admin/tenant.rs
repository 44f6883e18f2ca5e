//! `banyan tenant …`.

use prost_types::FieldMask;
use proto::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, Tenant, TenantLimits,
    UpdateTenantRequest,
};
use serde_json::json;

use crate::{
    cli::{LimitArgs, TenantArgs, TenantVerb},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, last_segment, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn tenant(args: TenantArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let mut tenants = admin.tenants();
    let tenant = match args.verb {
        TenantVerb::List => return list(&admin, as_json).await,
        TenantVerb::Delete { tenant, force } => {
            tenants.delete_tenant(DeleteTenantRequest { name: name(tenant), force }).await?;
            return Ok(());
        }
        TenantVerb::Show { tenant } => tenants.get_tenant(GetTenantRequest { name: name(tenant) }).await?,
        TenantVerb::Create { tenant, display_name, limits } => {
            let body = Tenant {
                display_name: display_name.unwrap_or_default(),
                limits: Some(wire(&limits)),
                ..Tenant::default()
            };
            let request = CreateTenantRequest { tenant_id: tenant.to_string(), tenant: Some(body) };
            tenants.create_tenant(request).await?
        }
        TenantVerb::Update { tenant, display_name, limits } => {
            let paths = changed(display_name.as_deref(), &limits);
            if paths.is_empty() {
                return Err(Failure::Usage("say what to change: --display-name or a limit".to_owned()));
            }
            let body = Tenant {
                name: name(tenant),
                display_name: display_name.unwrap_or_default(),
                limits: Some(wire(&limits)),
                ..Tenant::default()
            };
            let request = UpdateTenantRequest { tenant: Some(body), update_mask: Some(FieldMask { paths }) };
            tenants.update_tenant(request).await?
        }
    };
    show(tenant.get_ref(), as_json)
}

fn name(tenant: domain::Slug) -> String {
    domain::TenantName { tenant }.to_string()
}

fn wire(limits: &LimitArgs) -> TenantLimits {
    TenantLimits {
        requests_per_minute: limits.requests_per_minute.unwrap_or(0),
        tokens_per_minute: limits.tokens_per_minute.unwrap_or(0),
        concurrent_requests: limits.concurrent_requests.unwrap_or(0),
        adapters_max: limits.adapters_max.unwrap_or(0),
        adapter_bytes_max: limits.adapter_bytes_max.unwrap_or(0),
        adapter_rank_max: limits.adapter_rank_max.unwrap_or(0),
    }
}

fn changed(display_name: Option<&str>, limits: &LimitArgs) -> Vec<String> {
    let given = [
        ("display_name", display_name.is_some()),
        ("limits.requests_per_minute", limits.requests_per_minute.is_some()),
        ("limits.tokens_per_minute", limits.tokens_per_minute.is_some()),
        ("limits.concurrent_requests", limits.concurrent_requests.is_some()),
        ("limits.adapters_max", limits.adapters_max.is_some()),
        ("limits.adapter_bytes_max", limits.adapter_bytes_max.is_some()),
        ("limits.adapter_rank_max", limits.adapter_rank_max.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(path, _)| path.to_owned()).collect()
}

async fn list(admin: &Admin, as_json: bool) -> Outcome {
    let mut tenants = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = admin.tenants().list_tenants(ListTenantsRequest { page_size: 0, page_token }).await?.into_inner();
        tenants.extend(page.tenants);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let tenants: Vec<_> = tenants.iter().map(json::tenant).collect();
        return Ok(output::print_json(&json!({ "tenants": tenants }))?);
    }
    let mut table = Table::new(&["TENANT", "DISPLAY NAME", "CREATED"]);
    for tenant in &tenants {
        table.row([
            last_segment(&tenant.name).to_owned(),
            tenant.display_name.clone(),
            time_text(tenant.create_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}

fn show(tenant: &Tenant, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&json::tenant(tenant))?);
    }
    let limits = tenant.limits.unwrap_or_default();
    let number = |value: u64| if value == 0 { "default".to_owned() } else { value.to_string() };
    let mut table = Table::new(&["TENANT", last_segment(&tenant.name)]);
    table.row(["display name".into(), tenant.display_name.clone()]);
    table.row(["requests per minute".into(), number(limits.requests_per_minute.into())]);
    table.row(["tokens per minute".into(), number(limits.tokens_per_minute.into())]);
    table.row(["concurrent requests".into(), number(limits.concurrent_requests.into())]);
    table.row(["adapters".into(), number(limits.adapters_max.into())]);
    table.row(["adapter bytes".into(), number(limits.adapter_bytes_max)]);
    table.row(["adapter rank".into(), number(limits.adapter_rank_max.into())]);
    table.row(["created".into(), time_text(tenant.create_time.as_ref())]);
    Ok(table.print()?)
}
