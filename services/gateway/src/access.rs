//! Who may call what: one table of every RPC and every standing, one rule for foreign tenants. An RPC that is not in the
//! table is refused, and so is a standing that its row does not name.

use std::fmt;

use domain::{Caller, Fault, ModelName, Reason, Role, Slug};

/// Who may call an RPC, what it does, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub callers: &'static [Standing],
    pub effect: Effect,
    pub time: Time,
}

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The operator token.
    Operator,
    /// The auditor token: reads what the operator reads.
    Auditor,
    /// An API key of this role. Everything that it reaches is its tenant's ([`sees`]).
    Key(Role),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Leaves what the platform manages as it was.
    Reads,
    /// Changes what the platform manages: such a call is audited, refused or not, and other gateways are told of it.
    Writes,
}

/// Which setting bounds the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    Short,
    Generate,
    Upload,
}

use Standing::{Auditor, Key, Operator};

const DEVELOPER: Standing = Key(Role::TenantDeveloper);
const ADMIN: Standing = Key(Role::TenantAdmin);
const TENANT_AUDITOR: Standing = Key(Role::TenantAuditor);

/// Answers of models.
const INFERENCE: &[Standing] = &[Key(Role::Inference), DEVELOPER, ADMIN];
/// Plans, tenants and what else is the platform's.
const PLATFORM_READS: &[Standing] = &[Operator, Auditor];
const PLATFORM_WRITES: &[Standing] = &[Operator];
/// A tenant itself, and what it pays.
const TENANT_READS: &[Standing] = &[Operator, Auditor, DEVELOPER, ADMIN, TENANT_AUDITOR];
/// A tenant's keys.
const KEY_READS: &[Standing] = &[Operator, Auditor, ADMIN, TENANT_AUDITOR];
const KEY_WRITES: &[Standing] = &[Operator, ADMIN];
/// What was changed and refused, of a tenant or of the platform.
const AUDIT_READS: &[Standing] = &[Operator, Auditor, ADMIN, TENANT_AUDITOR];
/// What a tenant has used, and what it costs.
const LEDGER_READS: &[Standing] = &[Operator, Auditor, ADMIN, TENANT_AUDITOR];
/// A tenant's adapters, versions and aliases.
const ADAPTER_READS: &[Standing] = &[Operator, Auditor, DEVELOPER, ADMIN, TENANT_AUDITOR];
const ADAPTER_WRITES: &[Standing] = &[Operator, DEVELOPER, ADMIN];

const fn reads(callers: &'static [Standing]) -> Rule {
    Rule { callers, effect: Effect::Reads, time: Time::Short }
}

const fn writes(callers: &'static [Standing]) -> Rule {
    Rule { callers, effect: Effect::Writes, time: Time::Short }
}

impl Rule {
    const fn taking(self, time: Time) -> Self {
        Self { time, ..self }
    }
}

/// Every RPC by its path.
pub const RULES: &[(&str, Rule)] = &[
    ("/banyan.v1.InferenceService/Generate", reads(INFERENCE).taking(Time::Generate)),
    ("/banyan.v1.InferenceService/CountTokens", reads(INFERENCE)),
    ("/banyan.v1.InferenceService/ListModels", reads(INFERENCE)),
    ("/banyan.v1.InferenceService/GetModel", reads(INFERENCE)),
    ("/banyan.v1.InferenceService/ExplainLimits", reads(INFERENCE)),
    ("/banyan.v1.LimitService/ExplainLimits", reads(KEY_READS)),
    ("/banyan.v1.LimitService/TryLimits", reads(KEY_READS)),
    ("/banyan.v1.PlanService/CreatePlan", writes(PLATFORM_WRITES)),
    ("/banyan.v1.PlanService/GetPlan", reads(PLATFORM_READS)),
    ("/banyan.v1.PlanService/ListPlans", reads(PLATFORM_READS)),
    ("/banyan.v1.PlanService/UpdatePlan", writes(PLATFORM_WRITES)),
    ("/banyan.v1.PlanService/DeletePlan", writes(PLATFORM_WRITES)),
    ("/banyan.v1.LedgerService/SummarizeUsage", reads(LEDGER_READS)),
    ("/banyan.v1.LedgerService/ListLedgerEntries", reads(LEDGER_READS)),
    ("/banyan.v1.LedgerService/GetInvoice", reads(LEDGER_READS)),
    ("/banyan.v1.LedgerService/Reconcile", reads(PLATFORM_READS)),
    ("/banyan.v1.PriceService/SetPrice", writes(PLATFORM_WRITES)),
    ("/banyan.v1.PriceService/ListPrices", reads(TENANT_READS)),
    ("/banyan.v1.TenantService/CreateTenant", writes(PLATFORM_WRITES)),
    ("/banyan.v1.TenantService/GetTenant", reads(TENANT_READS)),
    ("/banyan.v1.TenantService/ListTenants", reads(PLATFORM_READS)),
    ("/banyan.v1.TenantService/UpdateTenant", writes(PLATFORM_WRITES)),
    ("/banyan.v1.TenantService/DeleteTenant", writes(PLATFORM_WRITES)),
    ("/banyan.v1.ApiKeyService/CreateApiKey", writes(KEY_WRITES)),
    ("/banyan.v1.ApiKeyService/GetApiKey", reads(KEY_READS)),
    ("/banyan.v1.ApiKeyService/ListApiKeys", reads(KEY_READS)),
    ("/banyan.v1.ApiKeyService/UpdateApiKey", writes(KEY_WRITES)),
    ("/banyan.v1.ApiKeyService/RotateApiKey", writes(KEY_WRITES)),
    ("/banyan.v1.ApiKeyService/RevokeApiKey", writes(KEY_WRITES)),
    ("/banyan.v1.AuditService/ListAuditEntries", reads(AUDIT_READS)),
    ("/banyan.v1.AuditService/ExportAuditEntries", reads(AUDIT_READS).taking(Time::Upload)),
    ("/banyan.v1.AuditService/VerifyAuditEntries", reads(AUDIT_READS).taking(Time::Upload)),
    ("/banyan.v1.AdapterService/CreateAdapter", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/GetAdapter", reads(ADAPTER_READS)),
    ("/banyan.v1.AdapterService/ListAdapters", reads(ADAPTER_READS)),
    ("/banyan.v1.AdapterService/DeleteAdapter", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/UploadAdapterVersion", writes(ADAPTER_WRITES).taking(Time::Upload)),
    ("/banyan.v1.AdapterService/GetAdapterVersion", reads(ADAPTER_READS)),
    ("/banyan.v1.AdapterService/ListAdapterVersions", reads(ADAPTER_READS)),
    ("/banyan.v1.AdapterService/DeleteAdapterVersion", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/MoveAlias", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/RollbackAlias", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/DeleteAlias", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/EvaluateAdapterVersion", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/RetireAdapterVersion", writes(ADAPTER_WRITES)),
    ("/banyan.v1.AdapterService/ListAdapterVersionSteps", reads(ADAPTER_READS)),
    ("/banyan.v1.RolloutService/SetCanary", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/ClearCanary", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/PromoteCanary", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/SetShadow", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/ClearShadow", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/GetShadowReport", reads(ADAPTER_READS)),
    ("/banyan.v1.RolloutService/CreatePin", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/ListPins", reads(ADAPTER_READS)),
    ("/banyan.v1.RolloutService/DeletePin", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/CreateSchedule", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/ListSchedules", reads(ADAPTER_READS)),
    ("/banyan.v1.RolloutService/CancelSchedule", writes(ADAPTER_WRITES)),
    ("/banyan.v1.RolloutService/GetRollout", reads(ADAPTER_READS)),
];

/// A way over HTTP to call an RPC: it has that one's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    pub call: HttpCall,
    pub method: HttpMethod,
    pub path: &'static str,
    /// By its path.
    pub rpc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpCall {
    ChatCompletion,
    Completion,
    ListModels,
    GetModel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    Get,
    Post,
}

impl HttpMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

const fn route(call: HttpCall, method: HttpMethod, path: &'static str, rpc: &'static str) -> HttpRoute {
    HttpRoute { call, method, path, rpc }
}

/// Every HTTP route: the router is made of this list, so there is no other.
pub const HTTP_ROUTES: &[HttpRoute] = &[
    route(HttpCall::ChatCompletion, HttpMethod::Post, "/v1/chat/completions", "/banyan.v1.InferenceService/Generate"),
    route(HttpCall::Completion, HttpMethod::Post, "/v1/completions", "/banyan.v1.InferenceService/Generate"),
    route(HttpCall::ListModels, HttpMethod::Get, "/v1/models", "/banyan.v1.InferenceService/ListModels"),
    route(HttpCall::GetModel, HttpMethod::Get, "/v1/models/{*model}", "/banyan.v1.InferenceService/GetModel"),
];

/// The RPC behind an HTTP route; none means that nobody may call it.
pub fn rpc_of(method: &str, path: &str) -> Option<&'static str> {
    HTTP_ROUTES.iter().find(|known| (known.method.as_str(), known.path) == (method, path)).map(|known| known.rpc)
}

/// The RPC and its rule; none means that nobody may call it.
pub fn rule_of(path: &str) -> Result<(&'static str, Rule), Fault> {
    let known = RULES.iter().find(|(known, _)| *known == path).copied();
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

/// Whether a caller of this standing may make the call at all.
pub fn admit(rule: Rule, caller: &Caller) -> Result<(), Fault> {
    let standing = Standing::of(caller);
    if rule.callers.contains(&standing) {
        return Ok(());
    }
    let takers: Vec<_> = rule.callers.iter().map(ToString::to_string).collect();
    let words = format!("this takes {}; this is {standing}", takers.join(" or "));
    Err(Fault::new(Reason::PermissionDenied, words))
}

/// Whether the caller may know of anything of this tenant's. If not, what was asked for is not found, in the words that
/// a caller of the tenant gets for what does not exist.
pub fn sees(caller: &Caller, tenant: &Slug, kind: &'static str, name: impl ToString) -> Result<(), Fault> {
    match caller {
        Caller::Operator | Caller::Auditor => Ok(()),
        Caller::Tenant { slug, .. } if slug == tenant => Ok(()),
        Caller::Tenant { .. } => Err(Fault::not_found(kind, name.to_string())),
    }
}

impl Standing {
    pub const fn of(caller: &Caller) -> Self {
        match caller {
            Caller::Operator => Operator,
            Caller::Auditor => Auditor,
            Caller::Tenant { role, .. } => Key(*role),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator => f.write_str("the operator token"),
            Auditor => f.write_str("the auditor token"),
            Key(role) => write!(f, "an API key of role {role}"),
        }
    }
}
