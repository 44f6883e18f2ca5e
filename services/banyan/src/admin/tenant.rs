//! `banyan tenant …`.

use prost_types::FieldMask;
use proto::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, Tenant, UpdateTenantRequest,
};
use serde_json::json;

use super::limits;
use crate::{
    cli::{TenantArgs, TenantVerb},
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
        TenantVerb::Create { tenant, display_name, plan, limits } => {
            let body = Tenant {
                display_name: display_name.unwrap_or_default(),
                limits: Some(limits::wire(&limits)),
                plan: plan_name(plan),
                ..Tenant::default()
            };
            let request = CreateTenantRequest { tenant_id: tenant.to_string(), tenant: Some(body) };
            tenants.create_tenant(request).await?
        }
        TenantVerb::Update { tenant, display_name, plan, limits } => {
            let given = [("display_name", display_name.is_some()), ("plan", plan.is_some())];
            let paths = [limits::paths(&given), limits::changed(&limits)].concat();
            if paths.is_empty() {
                return Err(Failure::Usage("say what to change: --display-name, --plan or a limit".to_owned()));
            }
            let body = Tenant {
                name: name(tenant),
                display_name: display_name.unwrap_or_default(),
                limits: Some(limits::wire(&limits)),
                plan: plan_name(plan),
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

fn plan_name(plan: Option<domain::Slug>) -> String {
    plan.map(|plan| domain::PlanName { plan }.to_string()).unwrap_or_default()
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
    let mut table = Table::new(&["TENANT", "DISPLAY NAME", "PLAN", "CREATED"]);
    for tenant in &tenants {
        table.row([
            last_segment(&tenant.name).to_owned(),
            tenant.display_name.clone(),
            last_segment(&tenant.plan).to_owned(),
            time_text(tenant.create_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}

fn show(tenant: &Tenant, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&json::tenant(tenant))?);
    }
    let mut table = Table::new(&["TENANT", last_segment(&tenant.name)]);
    table.row(["display name".into(), tenant.display_name.clone()]);
    table.row(["plan".into(), last_segment(&tenant.plan).to_owned()]);
    limits::rows(&mut table, tenant.limits.unwrap_or_default(), "as its plan");
    table.row(["created".into(), time_text(tenant.create_time.as_ref())]);
    Ok(table.print()?)
}
