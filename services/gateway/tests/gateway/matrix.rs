//! Every RPC × every standing × its own, another and no tenant: who reaches what, from the descriptors and the table of
//! access. An RPC that is not in [`CALLS`] fails the test.

use std::collections::BTreeSet;

use domain::{ApiKeyText, Caller, Digest, Fault, Reason, Role, TenantId};
use gateway::{
    KeyHasher,
    access::{RULES, Rule, Standing},
};
use store::{ApiKeyFields, NewApiKey, NewTenant, NewVersion, Page, TenantFields};

use crate::{
    fake_worker::{Act, FakeWorker, base},
    platform::{AUDITOR, OPERATOR, Platform},
    raw::{call, methods},
};

/// What each call is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// Something of the platform's.
    Platform,
    /// Something of a tenant's, which the message names.
    Tenant,
    /// What the caller's own key reaches; the message names no tenant.
    Caller,
}

use About::{Caller as Own, Platform as Platforms, Tenant};

/// A message for each RPC that is good in every other respect. `T`, `A`, `K` and `D` in braces are a tenant, its adapter,
/// its key and a version's digest.
const CALLS: &[(&str, About, &str)] = &[
    ("InferenceService/Generate", Tenant, "model: '{T}/{A}' prompt: 'a' max_tokens: 4"),
    ("InferenceService/CountTokens", Tenant, "model: '{T}/{A}' prompt: 'a'"),
    ("InferenceService/ListModels", Own, ""),
    ("InferenceService/GetModel", Tenant, "name: '{T}/{A}'"),
    ("InferenceService/ExplainLimits", Own, "input_tokens: 1 max_tokens: 1"),
    ("LimitService/ExplainLimits", Tenant, "name: 'tenants/{T}' input_tokens: 1 max_tokens: 1"),
    ("LimitService/TryLimits", Tenant, "name: 'tenants/{T}' tenant { requests_per_minute: 1 }"),
    ("PlanService/CreatePlan", Platforms, "plan_id: '{A}'"),
    ("PlanService/GetPlan", Platforms, "name: 'plans/default'"),
    ("PlanService/ListPlans", Platforms, ""),
    ("PlanService/UpdatePlan", Platforms, "plan { name: 'plans/default' } update_mask { paths: 'display_name' }"),
    ("PlanService/DeletePlan", Platforms, "name: 'plans/default'"),
    ("LedgerService/SummarizeUsage", Tenant, "parent: 'tenants/{T}'"),
    ("LedgerService/ListLedgerEntries", Tenant, "parent: 'tenants/{T}'"),
    ("LedgerService/GetInvoice", Tenant, "parent: 'tenants/{T}' month: '2026-11'"),
    ("LedgerService/Reconcile", Platforms, ""),
    ("PriceService/SetPrice", Platforms, "price { model: 'base' input_micros: 1 }"),
    ("PriceService/ListPrices", Tenant, "parent: 'tenants/{T}'"),
    ("TenantService/CreateTenant", Platforms, "tenant_id: '{A}'"),
    ("TenantService/GetTenant", Tenant, "name: 'tenants/{T}'"),
    ("TenantService/ListTenants", Platforms, ""),
    ("TenantService/UpdateTenant", Tenant, "tenant { name: 'tenants/{T}' display_name: 'x' }"),
    ("TenantService/DeleteTenant", Tenant, "name: 'tenants/{T}' force: true"),
    ("ApiKeyService/CreateApiKey", Tenant, "parent: 'tenants/{T}' api_key { role: ROLE_INFERENCE }"),
    ("ApiKeyService/GetApiKey", Tenant, "name: 'tenants/{T}/apiKeys/{K}'"),
    ("ApiKeyService/ListApiKeys", Tenant, "parent: 'tenants/{T}'"),
    (
        "ApiKeyService/UpdateApiKey",
        Tenant,
        "api_key { name: 'tenants/{T}/apiKeys/{K}' display_name: 'x' } update_mask { paths: 'display_name' }",
    ),
    ("ApiKeyService/RotateApiKey", Tenant, "name: 'tenants/{T}/apiKeys/{K}'"),
    ("ApiKeyService/RevokeApiKey", Tenant, "name: 'tenants/{T}/apiKeys/{K}'"),
    ("AuditService/ListAuditEntries", Tenant, "parent: 'tenants/{T}'"),
    ("AuditService/ExportAuditEntries", Tenant, "parent: 'tenants/{T}'"),
    ("AuditService/VerifyAuditEntries", Tenant, "parent: 'tenants/{T}'"),
    ("AdapterService/CreateAdapter", Tenant, "parent: 'tenants/{T}' adapter_id: 'fresh'"),
    ("AdapterService/GetAdapter", Tenant, "name: 'tenants/{T}/adapters/{A}'"),
    ("AdapterService/ListAdapters", Tenant, "parent: 'tenants/{T}'"),
    ("AdapterService/DeleteAdapter", Tenant, "name: 'tenants/{T}/adapters/{A}'"),
    ("AdapterService/UploadAdapterVersion", Tenant, "start { parent: 'tenants/{T}/adapters/{A}' }"),
    ("AdapterService/GetAdapterVersion", Tenant, "name: 'tenants/{T}/adapters/{A}/versions/{D}'"),
    ("AdapterService/ListAdapterVersions", Tenant, "parent: 'tenants/{T}/adapters/{A}'"),
    ("AdapterService/DeleteAdapterVersion", Tenant, "name: 'tenants/{T}/adapters/{A}/versions/{D}'"),
    (
        "AdapterService/EvaluateAdapterVersion",
        Tenant,
        "name: 'tenants/{T}/adapters/{A}/versions/{D}' report_json: '{}'",
    ),
    ("AdapterService/RetireAdapterVersion", Tenant, "name: 'tenants/{T}/adapters/{A}/versions/{D}' reason: 'old'"),
    ("AdapterService/ListAdapterVersionSteps", Tenant, "parent: 'tenants/{T}/adapters/{A}/versions/{D}'"),
    (
        "RolloutService/SetCanary",
        Tenant,
        "name: 'tenants/{T}/adapters/{A}/aliases/live' digest: 'sha256:{D}' basis_points: 1",
    ),
    ("RolloutService/ClearCanary", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("RolloutService/PromoteCanary", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    (
        "RolloutService/SetShadow",
        Tenant,
        "name: 'tenants/{T}/adapters/{A}/aliases/live' digest: 'sha256:{D}' basis_points: 1",
    ),
    ("RolloutService/ClearShadow", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("RolloutService/GetShadowReport", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    (
        "RolloutService/CreatePin",
        Tenant,
        "parent: 'tenants/{T}/adapters/{A}/aliases/live' \
         pin { routing_key: 'ann' digest: 'sha256:{D}' expire_time { seconds: 4102444800 } }",
    ),
    ("RolloutService/ListPins", Tenant, "parent: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("RolloutService/DeletePin", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live/pins/{P}'"),
    (
        "RolloutService/CreateSchedule",
        Tenant,
        "parent: 'tenants/{T}/adapters/{A}/aliases/live' schedule { rollback {} due_time { seconds: 4102444800 } }",
    ),
    ("RolloutService/ListSchedules", Tenant, "parent: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("RolloutService/CancelSchedule", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live/schedules/{S}'"),
    ("RolloutService/GetRollout", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("AdapterService/MoveAlias", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live' digest: 'sha256:{D}'"),
    ("AdapterService/RollbackAlias", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
    ("AdapterService/DeleteAlias", Tenant, "name: 'tenants/{T}/adapters/{A}/aliases/live'"),
];

/// A tenant with one of everything.
pub struct House {
    pub id: TenantId,
    pub tenant: String,
    pub adapter: String,
    key: String,
    digest: String,
    pin: String,
    schedule: String,
}

impl House {
    /// Its adapter has two versions, and `live` was moved from the one to the other.
    pub async fn build(platform: &Platform, tenant: &str) -> Self {
        let slug = tenant.parse().expect("a slug");
        let new = NewTenant { slug, fields: TenantFields::default() };
        let id = platform.store.platform().create_tenant(new).await.expect("makes a tenant").id;
        let rows = platform.store.tenant(id);
        let adapter: domain::Slug = format!("{tenant}-model").parse().expect("a slug");
        rows.create_adapter(&adapter, "", 9).await.expect("makes an adapter");
        let base_digest: Digest = base().digest.parse().expect("a digest");
        let live = "live".parse().expect("a slug");
        for byte in [0x0a, 0x0b] {
            let digest = Digest::new([byte; 32]);
            let lease = std::time::Duration::from_secs(60);
            rows.reserve_blob(digest, 1, u64::MAX, lease).await.expect("reserves");
            let version = NewVersion { digest, base_digest, size_bytes: 1, receipt: serde_json::json!({}) };
            rows.insert_version(&adapter, version, Some(&live)).await.expect("inserts");
        }
        let key = platform_key(platform, id, Role::Inference).await;
        let later = time::OffsetDateTime::now_utc() + time::Duration::DAY;
        let (who, pinned) = (store::Pinned::RoutingKey("bob".into()), Digest::new([0x0b; 32]));
        let pin = store::NewPin { who, digest: pinned, reason: String::new(), expires_at: later };
        let pin = rows.create_pin(&adapter, &live, pin, 9, None).await.expect("pins").id.to_string();
        let plan = store::NewSchedule { change: domain::AliasChange::Rollback, due_at: later };
        let plan = rows.create_schedule(&adapter, &live, plan, 9, None).await.expect("plans");
        Self {
            id,
            tenant: tenant.to_owned(),
            adapter: adapter.to_string(),
            key: key[3..15].to_owned(),
            digest: "0a".repeat(32),
            pin,
            schedule: plan.id.to_string(),
        }
    }

    pub fn nowhere() -> Self {
        let id = TenantId::new(uuid::Uuid::now_v7());
        let (tenant, key, digest) = ("nowhere".to_owned(), "aaaaaaaaaaaa".to_owned(), "0a".repeat(32));
        let nothing = uuid::Uuid::nil().to_string();
        Self { id, adapter: format!("{tenant}-model"), tenant, key, digest, pin: nothing.clone(), schedule: nothing }
    }

    fn fill(&self, text: &str) -> String {
        let names = [
            ("{T}", &self.tenant),
            ("{A}", &self.adapter),
            ("{K}", &self.key),
            ("{D}", &self.digest),
            ("{P}", &self.pin),
            ("{S}", &self.schedule),
        ];
        names.iter().fold(text.to_owned(), |text, (hole, name)| text.replace(hole, name))
    }

    /// A fault without the names of this house.
    fn hide(&self, fault: &Fault) -> String {
        let names = [(&self.adapter, "{A}"), (&self.tenant, "{T}"), (&self.key, "{K}")];
        names.iter().fold(format!("{fault:?}"), |text, (name, hole)| text.replace(name.as_str(), hole))
    }
}

/// The text of a new key, made past the gateway.
pub async fn platform_key(platform: &Platform, tenant: TenantId, role: Role) -> String {
    let key = ApiKeyText::from_random(&std::array::from_fn(|_| rand::random()));
    let hash = KeyHasher::new(&chassis::config::Secret::new("pepper")).hash(key.secret());
    let new =
        NewApiKey { public_id: key.public_id().to_owned(), secret_hash: hash, role, fields: ApiKeyFields::default() };
    platform.store.tenant(tenant).create_api_key(new).await.expect("makes a key");
    key.reveal().to_owned()
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Let through; what then came of it is another matter.
    Allowed,
    Denied,
    NotFound,
}

fn outcome(result: &Result<(), Fault>) -> Outcome {
    match result {
        Err(Fault { reason: Reason::PermissionDenied | Reason::Unauthenticated, .. }) => Outcome::Denied,
        Err(Fault { reason: Reason::NotFound, .. }) => Outcome::NotFound,
        _ => Outcome::Allowed,
    }
}

/// Of the platform, and of every role.
pub fn standings() -> Vec<Standing> {
    [Standing::Operator, Standing::Auditor].into_iter().chain(Role::ALL.map(Standing::Key)).collect()
}

pub fn rule_of(path: &str) -> Rule {
    RULES.iter().find(|(known, _)| *known == path).unwrap_or_else(|| panic!("{path} is not in the table of access")).1
}

#[test]
fn the_matrix_has_every_rpc_and_no_other() {
    let called: BTreeSet<_> = CALLS.iter().map(|(name, ..)| format!("/banyan.v1.{name}")).collect();
    let all: BTreeSet<_> = methods().into_iter().map(|(path, _)| path).collect();
    assert_eq!(called, all);
    let ruled: BTreeSet<_> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(ruled, all);
}

#[tokio::test]
async fn every_standing_reaches_of_every_rpc_what_the_table_says_and_of_its_own_tenant_alone() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start_with(&[&worker], "[audit]\nrefusals_per_minute = 100000\n").await;
    let rival = House::build(&platform, "rival").await;
    let nowhere = House::nowhere();
    let before = contents(&platform, &rival).await;
    let mut houses = 0;
    for method in methods() {
        let path = &method.0;
        let (_, about, text) = CALLS.iter().find(|(name, ..)| path.ends_with(name)).expect("in the matrix");
        for standing in standings() {
            houses += 1;
            let own = House::build(&platform, &format!("house-{houses}")).await;
            let token = match standing {
                Standing::Operator => OPERATOR.to_owned(),
                Standing::Auditor => AUDITOR.to_owned(),
                Standing::Key(role) => platform_key(&platform, own.id, role).await,
            };
            let admitted = rule_of(path).callers.contains(&standing);
            let try_with = async |house: &House| call(&platform, &method, Some(&token), &house.fill(text)).await;
            let expect = |result: &Result<(), Fault>, expected: Outcome, whose: &str| {
                let expected = if admitted { expected } else { Outcome::Denied };
                assert_eq!(outcome(result), expected, "{path} by {standing} on {whose}: {result:?}");
            };
            if *about == Tenant {
                let unknown = try_with(&nowhere).await;
                expect(&unknown, Outcome::NotFound, "an unknown tenant");
                if let Standing::Key(_) = standing {
                    let foreign = try_with(&rival).await;
                    expect(&foreign, Outcome::NotFound, "another tenant");
                    let (foreign, unknown) = (foreign.expect_err("refused"), unknown.expect_err("refused"));
                    assert_eq!(rival.hide(&foreign), nowhere.hide(&unknown), "{path} by {standing}");
                }
            }
            expect(&try_with(&own).await, Outcome::Allowed, "its own tenant");
        }
    }
    assert_eq!(contents(&platform, &rival).await, before, "nothing of another tenant's has changed");
    platform.stop().await;
}

/// What a tenant has, for comparison.
async fn contents(platform: &Platform, house: &House) -> String {
    let rows = platform.store.tenant(house.id);
    let page = Page::first(100);
    let tenant = rows.get().await.expect("get");
    let keys = rows.list_api_keys(&page).await.expect("list").items;
    let adapters = rows.list_adapters(&page).await.expect("list").items;
    let versions = rows.list_versions(&house.adapter.parse().expect("a slug"), &page).await.expect("list").items;
    format!("{tenant:?} {keys:?} {adapters:?} {versions:?}")
}

#[test]
fn a_standing_is_what_its_caller_is() {
    assert_eq!(Standing::of(&Caller::Operator), Standing::Operator);
    assert_eq!(Standing::of(&Caller::Auditor), Standing::Auditor);
}
