//! `banyan.v1.TenantService`. Only the operator changes tenants; an administrator may look at its own.

use domain::{Caller, Fault, Slug, TenantName};
use proto::v1::{self, tenant_service_server::TenantService};
use store::{DeleteTenant, NewTenant, Store, Tenant, TenantFields};
use tonic::{Request, Response, Status};

use crate::{
    access,
    edge::answer,
    parse::{self, Violations, tenant_limits, wire_time},
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
        answer(request, |_, message| async move {
            let mut violations = Violations::default();
            let slug = violations.parse::<Slug>("tenant_id", &message.tenant_id);
            let wire = message.tenant.unwrap_or_default();
            violations.display_name("tenant.display_name", &wire.display_name);
            let limits = tenant_limits(&wire.limits.unwrap_or_default());
            let fields = TenantFields { display_name: wire.display_name, limits };
            let new = violations.check(slug.map(|slug| NewTenant { slug, fields }))?;
            let name = TenantName { tenant: new.slug.clone() };
            Ok(wire_tenant(self.store.platform().create_tenant(new).await.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn get_tenant(&self, request: Request<v1::GetTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        answer(request, |session, message| async move {
            let name: TenantName = parse::name("name", &message.name)?;
            access::sees(&session.identity.caller, &name.tenant, "tenant", &name)?;
            let found = match session.identity.caller {
                Caller::Operator => self.store.platform().get_tenant(&name.tenant).await,
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
        answer(request, |_, message| async move {
            let wire = message.tenant.ok_or_else(|| Fault::invalid("tenant", "must be set"))?;
            let mut violations = Violations::default();
            let name = violations.parse::<TenantName>("tenant.name", &wire.name);
            violations.display_name("tenant.display_name", &wire.display_name);
            let paths = message.update_mask.map(|mask| mask.paths).unwrap_or_default();
            let changes = read_mask(&mut violations, &paths, &wire);
            let name = violations.check(name)?;
            let change = |fields: &mut TenantFields| changes.iter().for_each(|change| change.apply(fields, &wire));
            let updated = self.store.platform().update_tenant(&name.tenant, change).await;
            Ok(wire_tenant(updated.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn delete_tenant(&self, request: Request<v1::DeleteTenantRequest>) -> Result<Response<()>, Status> {
        answer(request, |_, message| async move {
            let name: TenantName = parse::name("name", &message.name)?;
            let how = if message.force { DeleteTenant::WithAdapters } else { DeleteTenant::IfWithoutAdapters };
            let deleted = self.store.platform().delete_tenant(&name.tenant, how).await;
            deleted.map_err(|error| error.fault(name))?;
            self.sweeper.nudge();
            Ok(())
        })
        .await
    }
}

/// One field that an update changes.
#[derive(Clone, Copy)]
enum Change {
    DisplayName,
    RequestsPerMinute,
    TokensPerMinute,
    ConcurrentRequests,
    AdaptersMax,
    AdapterBytesMax,
    AdapterRankMax,
}

impl Change {
    const LIMITS: [(&'static str, Self); 6] = [
        ("limits.requests_per_minute", Self::RequestsPerMinute),
        ("limits.tokens_per_minute", Self::TokensPerMinute),
        ("limits.concurrent_requests", Self::ConcurrentRequests),
        ("limits.adapters_max", Self::AdaptersMax),
        ("limits.adapter_bytes_max", Self::AdapterBytesMax),
        ("limits.adapter_rank_max", Self::AdapterRankMax),
    ];

    fn apply(self, fields: &mut TenantFields, wire: &v1::Tenant) {
        let limits = tenant_limits(&wire.limits.unwrap_or_default());
        let into = &mut fields.limits;
        match self {
            Self::DisplayName => fields.display_name.clone_from(&wire.display_name),
            Self::RequestsPerMinute => into.requests_per_minute = limits.requests_per_minute,
            Self::TokensPerMinute => into.tokens_per_minute = limits.tokens_per_minute,
            Self::ConcurrentRequests => into.concurrent_requests = limits.concurrent_requests,
            Self::AdaptersMax => into.adapters_max = limits.adapters_max,
            Self::AdapterBytesMax => into.adapter_bytes_max = limits.adapter_bytes_max,
            Self::AdapterRankMax => into.adapter_rank_max = limits.adapter_rank_max,
        }
    }

    /// Whether an update without a mask means it.
    fn is_set(self, wire: &v1::Tenant) -> bool {
        let limits = tenant_limits(&wire.limits.unwrap_or_default());
        match self {
            Self::DisplayName => !wire.display_name.is_empty(),
            Self::RequestsPerMinute => limits.requests_per_minute.is_some(),
            Self::TokensPerMinute => limits.tokens_per_minute.is_some(),
            Self::ConcurrentRequests => limits.concurrent_requests.is_some(),
            Self::AdaptersMax => limits.adapters_max.is_some(),
            Self::AdapterBytesMax => limits.adapter_bytes_max.is_some(),
            Self::AdapterRankMax => limits.adapter_rank_max.is_some(),
        }
    }
}

fn read_mask(violations: &mut Violations, paths: &[String], wire: &v1::Tenant) -> Vec<Change> {
    let all = || std::iter::once(Change::DisplayName).chain(Change::LIMITS.map(|(_, change)| change));
    if paths.is_empty() {
        return all().filter(|change| change.is_set(wire)).collect();
    }
    let mut changes = Vec::new();
    for path in paths {
        match path.as_str() {
            "*" => changes.extend(all()),
            "display_name" => changes.push(Change::DisplayName),
            "limits" => changes.extend(Change::LIMITS.map(|(_, change)| change)),
            other => match Change::LIMITS.iter().find(|(path, _)| *path == other) {
                Some((_, change)) => changes.push(*change),
                None => violations.add(
                    "update_mask",
                    format!("`{}` is not a field that can be changed", other.chars().take(64).collect::<String>()),
                ),
            },
        }
    }
    changes
}

fn wire_tenant(tenant: Tenant) -> v1::Tenant {
    let limits = tenant.fields.limits;
    v1::Tenant {
        name: TenantName { tenant: tenant.slug }.to_string(),
        display_name: tenant.fields.display_name,
        limits: Some(v1::TenantLimits {
            requests_per_minute: limits.requests_per_minute.unwrap_or_default(),
            tokens_per_minute: limits.tokens_per_minute.unwrap_or_default(),
            concurrent_requests: limits.concurrent_requests.unwrap_or_default(),
            adapters_max: limits.adapters_max.unwrap_or_default(),
            adapter_bytes_max: limits.adapter_bytes_max.unwrap_or_default(),
            adapter_rank_max: limits.adapter_rank_max.unwrap_or_default(),
        }),
        create_time: Some(wire_time(tenant.created_at)),
        update_time: Some(wire_time(tenant.updated_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(paths: &[&str], wire: &v1::Tenant) -> Result<TenantFields, Fault> {
        let mut violations = Violations::default();
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let changes = read_mask(&mut violations, &paths, wire);
        let mut fields = TenantFields { display_name: "old".to_owned(), ..TenantFields::default() };
        fields.limits.adapters_max = Some(5);
        changes.iter().for_each(|change| change.apply(&mut fields, wire));
        violations.check(Some(fields))
    }

    #[test]
    fn a_mask_says_what_changes_and_no_mask_means_what_is_set() {
        let limits = v1::TenantLimits { tokens_per_minute: 9, ..v1::TenantLimits::default() };
        let wire = v1::Tenant { display_name: "new".to_owned(), limits: Some(limits), ..v1::Tenant::default() };

        let set = apply(&[], &wire).expect("fine");
        assert_eq!(
            (set.display_name.as_str(), set.limits.tokens_per_minute, set.limits.adapters_max),
            ("new", Some(9), Some(5))
        );
        let name = apply(&["display_name"], &wire).expect("fine");
        assert_eq!((name.display_name.as_str(), name.limits.tokens_per_minute), ("new", None));
        let limits = apply(&["limits"], &wire).expect("fine");
        assert_eq!((limits.limits.tokens_per_minute, limits.limits.adapters_max), (Some(9), None), "0 is the default");
        assert!(apply(&["limits.adapters_max"], &wire).expect("fine").limits.adapters_max.is_none());
        assert!(apply(&["name"], &wire).is_err());
    }
}
