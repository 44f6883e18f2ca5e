//! The admin door's edges: plans, prices, tenants, API keys, adapters, roll-outs, limits, the audit trail. What they share:
//! whose rows a call may touch, and in whose name it writes.

mod adapters;
mod api_keys;
mod audit;
mod ledger;
mod limits;
mod mask;
mod plans;
mod prices;
mod rollouts;
mod tenants;

use domain::{Caller, Fault, Limits, Slug, TenantName};
use store::{Store, TenantScope};

pub use adapters::Adapters;
pub use api_keys::ApiKeys;
pub use audit::Audit;
pub use ledger::Ledgers;
pub use limits::{LimitQuestions, hypothetical, wire_explained};
pub use plans::Plans;
pub use prices::Prices;
pub use rollouts::Rollouts;
pub use tenants::Tenants;

use crate::{access, guard::Session, store_fault::StoreFault as _};

/// A tenant's rows for a caller who may touch them, and what the tenant may have.
pub struct Reach {
    pub rows: TenantScope,
    pub limits: Limits,
}

/// For anybody else than the operator and the tenant's own administrator, what was asked for (`kind`, `name`) does not
/// exist. `defaults` fill in a tenant's limits.
pub async fn reach(
    store: &Store,
    session: &Session,
    tenant: &Slug,
    kind: &'static str,
    name: impl ToString,
    defaults: Limits,
) -> Result<Reach, Fault> {
    let store = session.acting(store, name.to_string());
    access::sees(&session.identity.caller, tenant, kind, name)?;
    if let Caller::Tenant { tenant, .. } = session.identity.caller {
        return Ok(Reach {
            rows: store.tenant(tenant).by(&actor(&session.identity.caller)),
            limits: session.identity.limits,
        });
    }
    let found = store.platform().get_tenant_with_limits(tenant).await;
    let (found, limits) = found.map_err(|error| error.fault(TenantName { tenant: tenant.clone() }))?;
    Ok(Reach { rows: store.tenant(found.id).by(&actor(&session.identity.caller)), limits: defaults.with(limits) })
}

/// Who does it, as it is written down with what was done.
fn actor(caller: &Caller) -> String {
    match caller {
        Caller::Operator => "operator".to_owned(),
        Caller::Auditor => "auditor".to_owned(),
        Caller::Tenant { slug, public_id, .. } => format!("tenants/{slug}/apiKeys/{public_id}"),
    }
}
