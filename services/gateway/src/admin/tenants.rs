//! `banyan.v1.TenantService`. Only the operator changes tenants; an administrator may look at its own.

use domain::{Caller, Fault, PlanName, Slug, TenantName};
use proto::v1::{self, tenant_service_server::TenantService};
use store::{DeleteTenant, NewTenant, Store, Tenant, TenantFields};
use tonic::{Request, Response, Status};

use super::mask::{self, Field, fields};
use crate::{
    access,
    edge::answer,
    parse::{self, Violations, tenant_limits, wire_limits, wire_time},
    store_fault::StoreFault as _,
    sweeper::Sweeper,
};

pub struct Tenants {
    store: Store,
    sweeper: Sweeper,
}

impl Tenants {
    pub const fn new(store: Store, sweeper: Sweeper) -> Self {
        Self { store, sweeper }
    }
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(&self, request: Request<v1::CreateTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let slug = violations.parse::<Slug>("tenant_id", &message.tenant_id);
            let fields = read_fields(&mut violations, message.tenant.unwrap_or_default());
            let new = violations.check(slug.map(|slug| NewTenant { slug, fields }))?;
            let name = TenantName { tenant: new.slug.clone() };
            let store = session.acting(&self.store, &name);
            Ok(wire_tenant(store.platform().create_tenant(new).await.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn get_tenant(&self, request: Request<v1::GetTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        answer(request, |session, message| async move {
            let name: TenantName = parse::name("name", &message.name)?;
            access::sees(&session.identity.caller, &name.tenant, "tenant", &name)?;
            let found = match session.identity.caller {
                Caller::Operator | Caller::Auditor => self.store.platform().get_tenant(&name.tenant).await,
                Caller::Tenant { tenant, .. } => self.store.tenant(tenant).get().await,
            };
            Ok(wire_tenant(found.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        answer(request, |_, message| async move {
            let page = parse::page(message.page_size, message.page_token)?;
            let found = self.store.platform().list_tenants(&page).await.map_err(|error| error.fault("tenants"))?;
            let tenants = found.items.into_iter().map(wire_tenant).collect();
            Ok(v1::ListTenantsResponse { tenants, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn update_tenant(&self, request: Request<v1::UpdateTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        answer(request, |session, message| async move {
            let wire = message.tenant.ok_or_else(|| Fault::invalid("tenant", "must be set"))?;
            let mut violations = Violations::default();
            let of = (violations.parse::<TenantName>("tenant.name", &wire.name), wire.etag.clone());
            let from = read_fields(&mut violations, wire);
            let update = mask::update(violations, of, message.update_mask, FIELDS, from)?;
            let store = session.acting(&self.store, &update.name);
            let updated =
                store.platform().update_tenant(&update.name.tenant, update.etag(), |tenant| update.apply(tenant)).await;
            Ok(wire_tenant(updated.map_err(|error| error.fault(&update.name))?))
        })
        .await
    }

    async fn delete_tenant(&self, request: Request<v1::DeleteTenantRequest>) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move {
            let name: TenantName = parse::name("name", &message.name)?;
            let how = if message.force { DeleteTenant::WithAdapters } else { DeleteTenant::IfWithoutAdapters };
            let deleted = session.acting(&self.store, &name).platform().delete_tenant(&name.tenant, how).await;
            deleted.map_err(|error| error.fault(name))?;
            self.sweeper.nudge();
            Ok(())
        })
        .await
    }
}

/// What an update may change.
const FIELDS: &[Field<TenantFields>] = fields![
    display_name,
    plan,
    limits.requests_per_minute,
    limits.input_tokens_per_minute,
    limits.output_tokens_per_minute,
    limits.concurrent_requests,
    limits.budget_day,
    limits.budget_month,
    limits.adapters_max,
    limits.adapter_bytes_max,
    limits.adapter_rank_max,
];

/// Fields at `tenant.`, and the plan's default where it names none.
fn read_fields(violations: &mut Violations, wire: v1::Tenant) -> TenantFields {
    violations.display_name("tenant.display_name", &wire.display_name);
    let plan = violations.parse_optional::<PlanName>("tenant.plan", &wire.plan);
    TenantFields {
        display_name: wire.display_name,
        plan: plan.map_or_else(|| TenantFields::default().plan, |name| name.plan),
        limits: tenant_limits(violations, "tenant.limits", &wire.limits.unwrap_or_default()),
    }
}

fn wire_tenant(tenant: Tenant) -> v1::Tenant {
    let TenantFields { display_name, plan, limits } = tenant.fields;
    v1::Tenant {
        name: TenantName { tenant: tenant.slug }.to_string(),
        display_name,
        limits: Some(wire_limits(limits)),
        create_time: Some(wire_time(tenant.created_at)),
        update_time: Some(wire_time(tenant.updated_at)),
        plan: PlanName { plan }.to_string(),
        etag: tenant.etag,
    }
}
