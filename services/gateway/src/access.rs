//! Who may call what: one table, one rule for foreign tenants. An RPC that is not in the table is refused.

use domain::{Caller, Fault, ModelName, Reason, Role, Slug};

/// What a caller must be, and how long the call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub caller: Needs,
    pub time: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Any API key.
    ApiKey,
    /// The operator, or an administrator of the tenant that the call is about ([`sees`] checks which one that is).
    TenantAdmin,
    Operator,
}

/// Which setting bounds the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    Short,
    Generate,
    Upload,
}

const fn rule(caller: Needs) -> Rule {
    Rule { caller, time: Time::Short }
}

/// Every RPC by its path.
pub const RULES: &[(&str, Rule)] = &[
    ("/banyan.v1.InferenceService/Generate", Rule { caller: Needs::ApiKey, time: Time::Generate }),
    ("/banyan.v1.InferenceService/CountTokens", rule(Needs::ApiKey)),
    ("/banyan.v1.InferenceService/ListModels", rule(Needs::ApiKey)),
    ("/banyan.v1.InferenceService/GetModel", rule(Needs::ApiKey)),
    ("/banyan.v1.PlanService/CreatePlan", rule(Needs::Operator)),
    ("/banyan.v1.PlanService/GetPlan", rule(Needs::Operator)),
    ("/banyan.v1.PlanService/ListPlans", rule(Needs::Operator)),
    ("/banyan.v1.PlanService/UpdatePlan", rule(Needs::Operator)),
    ("/banyan.v1.PlanService/DeletePlan", rule(Needs::Operator)),
    ("/banyan.v1.LedgerService/SummarizeUsage", rule(Needs::TenantAdmin)),
    ("/banyan.v1.LedgerService/ListLedgerEntries", rule(Needs::TenantAdmin)),
    ("/banyan.v1.LedgerService/GetInvoice", rule(Needs::TenantAdmin)),
    ("/banyan.v1.LedgerService/Reconcile", rule(Needs::Operator)),
    ("/banyan.v1.PriceService/SetPrice", rule(Needs::Operator)),
    ("/banyan.v1.PriceService/ListPrices", rule(Needs::TenantAdmin)),
    ("/banyan.v1.TenantService/CreateTenant", rule(Needs::Operator)),
    ("/banyan.v1.TenantService/GetTenant", rule(Needs::TenantAdmin)),
    ("/banyan.v1.TenantService/ListTenants", rule(Needs::Operator)),
    ("/banyan.v1.TenantService/UpdateTenant", rule(Needs::Operator)),
    ("/banyan.v1.TenantService/DeleteTenant", rule(Needs::Operator)),
    ("/banyan.v1.ApiKeyService/CreateApiKey", rule(Needs::TenantAdmin)),
    ("/banyan.v1.ApiKeyService/GetApiKey", rule(Needs::TenantAdmin)),
    ("/banyan.v1.ApiKeyService/ListApiKeys", rule(Needs::TenantAdmin)),
    ("/banyan.v1.ApiKeyService/RevokeApiKey", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/CreateAdapter", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/GetAdapter", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/ListAdapters", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/DeleteAdapter", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/UploadAdapterVersion", Rule { caller: Needs::TenantAdmin, time: Time::Upload }),
    ("/banyan.v1.AdapterService/GetAdapterVersion", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/ListAdapterVersions", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/DeleteAdapterVersion", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/MoveAlias", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/RollbackAlias", rule(Needs::TenantAdmin)),
    ("/banyan.v1.AdapterService/DeleteAlias", rule(Needs::TenantAdmin)),
];

/// Every HTTP route, by method and path, and the RPC that it is another way to call: it has that one's rule.
pub const HTTP_ROUTES: &[(&str, &str, &str)] = &[
    ("POST", "/v1/chat/completions", "/banyan.v1.InferenceService/Generate"),
    ("POST", "/v1/completions", "/banyan.v1.InferenceService/Generate"),
    ("GET", "/v1/models", "/banyan.v1.InferenceService/ListModels"),
    ("GET", "/v1/models/{*model}", "/banyan.v1.InferenceService/GetModel"),
];

/// The RPC behind an HTTP route; none means that nobody may call it.
pub fn rpc_of(method: &str, route: &str) -> Option<&'static str> {
    HTTP_ROUTES.iter().find(|known| (known.0, known.1) == (method, route)).map(|known| known.2)
}

/// The rule of an RPC; none means that nobody may call it.
pub fn rule_of(path: &str) -> Result<Rule, Fault> {
    let known = RULES.iter().find(|(known, _)| *known == path).map(|(_, rule)| *rule);
    known.ok_or_else(|| Fault::new(Reason::Unimplemented, "there is no such method"))
}

/// Whether there is an RPC of this name, in whichever service.
pub fn is_method(name: &str) -> bool {
    RULES.iter().any(|(path, _)| method_of(path) == name)
}

/// Whether the key's scope has the RPC; `None` has all.
pub fn admit_method(path: &str, methods: Option<&[String]>) -> Result<(), Fault> {
    let method = method_of(path);
    match methods {
        Some(methods) if !methods.iter().any(|allowed| allowed == method) => {
            let words = format!("this key may call {} alone, not {method}", methods.join(", "));
            Err(Fault::new(Reason::PermissionDenied, words))
        }
        _ => Ok(()),
    }
}

/// Whether the key's scope has the model; `None` has all. `<tenant>/<adapter>` stands for all of its aliases and versions.
pub fn admit_model(name: &ModelName, models: Option<&[String]>) -> Result<(), Fault> {
    let Some(models) = models else { return Ok(()) };
    let (whole, adapter) = (name.to_string(), name.without_version());
    if models.iter().any(|allowed| *allowed == whole || *allowed == adapter) {
        return Ok(());
    }
    Err(Fault::new(Reason::PermissionDenied, format!("this key may not use `{name}`, only {}", models.join(", "))))
}

fn method_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, method)| method)
}

/// Whether a caller of this role may make the call at all.
pub fn admit(rule: Rule, caller: &Caller) -> Result<(), Fault> {
    let words = match (rule.caller, caller) {
        (Needs::ApiKey, Caller::Tenant { .. }) | (Needs::TenantAdmin | Needs::Operator, Caller::Operator) => {
            return Ok(());
        }
        (Needs::TenantAdmin, Caller::Tenant { role: Role::TenantAdmin, .. }) => return Ok(()),
        (Needs::ApiKey, Caller::Operator) => "this takes a tenant's API key, not the operator token",
        (Needs::TenantAdmin, Caller::Tenant { role: Role::Inference, .. }) => {
            "this takes an API key of role tenant_admin; this key's role is inference"
        }
        (Needs::Operator, Caller::Tenant { .. }) => "this takes the operator token",
    };
    Err(Fault::new(Reason::PermissionDenied, words))
}

/// Whether the caller may know of anything of this tenant's. If not, what was asked for is not found, in the words that
/// a caller of the tenant gets for what does not exist.
pub fn sees(caller: &Caller, tenant: &Slug, kind: &'static str, name: impl ToString) -> Result<(), Fault> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Tenant { slug, .. } if slug == tenant => Ok(()),
        Caller::Tenant { .. } => Err(Fault::not_found(kind, name.to_string())),
    }
}
