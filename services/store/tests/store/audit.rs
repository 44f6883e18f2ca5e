//! The audit trail: no change without its entry, and no edit that is not found.

use domain::{AuditChain, AuditLink, Broken, ChainCheck, ChainHead, RequestId, Role};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use store::{Actor, ApiKeyFields, NewApiKey, Page, PlanFields, RefusedChange, Store, TenantFields, TenantScope, Who};

use crate::{
    database::Database,
    suite::{adapter, digest, push, slug, tenant},
};

/// What is not audited: nobody manages it, or it is a trail itself.
const NOT_MANAGED: [&str; 9] = [
    "_sqlx_migrations",
    "adapter_blobs",
    "api_key_uses",
    "audit_entries",
    "audit_heads",
    "change_head",
    "changes",
    "gateways",
    "version_states",
];
/// What requests leave, not people.
const LEDGERS: [&str; 6] =
    ["client_request_totals", "client_requests", "ledger_entries", "ledger_open", "shadow_reports", "usage_records"];

fn actor(public_id: &str) -> Actor {
    Actor {
        who: Who::Key { public_id: public_id.to_owned(), role: Role::TenantAdmin },
        method: "/banyan.v1.Test/Call",
        request: RequestId::new(uuid::Uuid::from_u128(7)),
    }
}

fn key(public_id: &str) -> NewApiKey {
    NewApiKey {
        public_id: public_id.to_owned(),
        secret_hash: [0xc7; 32],
        role: Role::Inference,
        fields: ApiKeyFields::default(),
    }
}

async fn links(tenant: &TenantScope) -> Vec<AuditLink> {
    tenant.audit_after(0, u16::MAX).await.expect("read")
}

fn contents(links: &[AuditLink]) -> Vec<Value> {
    links.iter().map(|link| serde_json::from_str(&link.content).expect("JSON")).collect()
}

fn check(chain: AuditChain, links: &[AuditLink], head: Option<ChainHead>) -> Result<u64, (u64, Broken)> {
    let mut check = ChainCheck::new(chain);
    let followed = links.iter().try_for_each(|link| check.follow(link)).and_then(|()| check.end(head));
    followed.map(|head| head.position).map_err(|broken| (broken.position, broken.how))
}

async fn check_all(tenant: &TenantScope) -> Result<u64, (u64, Broken)> {
    let head = tenant.audit_head().await.expect("read");
    check(AuditChain::Tenant(tenant.id()), &links(tenant).await, head)
}

#[tokio::test]
async fn a_change_is_in_the_trail_with_who_and_what_and_without_secrets() {
    let database = Database::new().await;
    let (ours, name) = tenant(&database.store).await;
    let ours = database.store.acting(&actor("annannannann")).tenant(ours.id());
    ours.create_api_key(key("auditauditau")).await.expect("create");
    let rename = |fields: &mut ApiKeyFields| fields.display_name = "Ann".to_owned();
    ours.update_api_key("auditauditau", None, rename).await.expect("update");
    ours.rotate_api_key("auditauditau", None, &[0xd9; 32], std::time::Duration::from_secs(60)).await.expect("rotate");
    let claims = adapter(&ours, "claims").await;
    push(&ours, &claims, 1, Some("live")).await;
    push(&ours, &claims, 2, None).await;
    ours.move_alias(&claims, &slug("live"), digest(2), None).await.expect("move");
    let read = links(&ours).await;
    let entries = contents(&read);
    let told = |entry: &Value| format!("{} {}", entry["action"], entry["resource"]).replace('"', "");
    assert_eq!(
        entries.iter().map(told).collect::<Vec<_>>(),
        [
            format!("insert tenants/{name}"),
            "insert apiKeys/auditauditau".to_owned(),
            "update apiKeys/auditauditau".to_owned(),
            "update apiKeys/auditauditau".to_owned(),
            "insert adapters/claims".to_owned(),
            format!("insert adapters/claims/versions/{}", digest(1)),
            "insert adapters/claims/aliases/live".to_owned(),
            format!("insert adapters/claims/versions/{}", digest(2)),
            "update adapters/claims/aliases/live".to_owned(),
        ]
    );
    assert_eq!(entries[0]["actor"]["kind"], "database", "made by nobody in particular");
    for entry in &entries[1..] {
        let who = serde_json::json!({ "kind": "key", "key": "annannannann", "role": "tenant_admin" });
        assert_eq!((&entry["actor"], &entry["outcome"]), (&who, &"done".into()));
        assert_eq!(entry["method"], "/banyan.v1.Test/Call");
        assert_eq!(entry["request_id"], uuid::Uuid::from_u128(7).to_string());
    }
    let changed = |at: usize, key: &str| (entries[at]["before"][key].clone(), entries[at]["after"][key].clone());
    assert_eq!(changed(2, "display_name"), ("".into(), "Ann".into()));
    assert_eq!(entries[2]["after"].as_object().map(serde_json::Map::len), Some(1), "only what has changed");
    assert!(entries[3]["after"]["previous_expires_at"].is_string());
    assert_eq!(changed(8, "digest").1, format!("\\x{}", digest(2).hex()));
    for link in &read {
        for secret in ["c7c7c7c7", "d9d9d9d9", "secret_hash"] {
            assert!(!link.content.contains(secret), "{}", link.content);
        }
    }
    assert_eq!(check_all(&ours).await, Ok(9));
    let page = ours.list_audit(&Page::first(2)).await.expect("list");
    assert_eq!(page.items, [read[8].clone(), read[7].clone()]);
    let next = Page { size: 2, token: page.next_page_token };
    assert_eq!(ours.list_audit(&next).await.expect("list").items, [read[6].clone(), read[5].clone()]);
}

#[tokio::test]
async fn what_fails_or_changes_nothing_leaves_no_entry() {
    let database = Database::new().await;
    let (ours, _) = tenant(&database.store).await;
    let claims = adapter(&ours, "claims").await;
    push(&ours, &claims, 1, Some("live")).await;
    let before = links(&ours).await;
    ours.move_alias(&claims, &slug("live"), digest(1), None).await.expect("is there already");
    assert!(ours.create_adapter(&claims, "", 9).await.is_err());
    assert!(ours.delete_version(&claims, digest(1)).await.is_err());
    assert_eq!(links(&ours).await, before);
}

#[tokio::test]
async fn a_refusal_is_in_the_trail_of_the_tenant_whose_key_it_was_or_of_the_platform() {
    let database = Database::new().await;
    let (ours, _) = tenant(&database.store).await;
    let store = database.store.acting(&actor("annannannann"));
    let refused = RefusedChange { reason: "PERMISSION_DENIED", resource: "tenants/other".to_owned(), unrecorded: 3 };
    store.tenant(ours.id()).record_refusal(&refused).await.expect("record");
    let entry = contents(&links(&ours).await).pop().expect("an entry");
    assert_eq!((&entry["outcome"], &entry["reason"]), (&"refused".into(), &"PERMISSION_DENIED".into()));
    assert_eq!((&entry["resource"], &entry["unrecorded"]), (&"tenants/other".into(), &3.into()));
    assert_eq!(entry["actor"]["key"], "annannannann");
    let before = database.store.platform().audit_head().await.expect("read").map_or(0, |head| head.position);
    database.store.platform().record_refusal(&refused).await.expect("record");
    assert_eq!(database.store.platform().audit_head().await.expect("read").expect("a head").position, before + 1);
}

#[tokio::test]
async fn a_change_past_every_service_is_in_the_trail_too() {
    let database = Database::new().await;
    let (ours, _) = tenant(&database.store).await;
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    owner
        .execute("update tenants set requests_per_minute = 7; delete from plans where slug = 'gone'")
        .await
        .expect("run");
    let entry = contents(&links(&ours).await).pop().expect("an entry");
    assert_eq!(entry["after"], serde_json::json!({ "requests_per_minute": 7 }));
    assert_eq!(entry["actor"]["kind"], "database");
    assert!(entry["actor"]["name"].as_str().is_some_and(|name| !name.is_empty()));
}

#[tokio::test]
async fn the_trail_outlives_its_tenant_and_the_platform_knows_that_it_came_and_went() {
    let database = Database::new().await;
    let platform = database.store.platform();
    let (ours, name) = tenant(&database.store).await;
    platform.update_plan(&slug("default"), None, |plan: &mut PlanFields| plan.share.weight = 3).await.expect("update");
    platform.delete_tenant(&name, store::DeleteTenant::WithAdapters).await.expect("delete");
    let own = contents(&links(&ours).await);
    assert_eq!(own.iter().map(|entry| &entry["action"]).collect::<Vec<_>>(), ["insert", "delete"]);
    let told = contents(&platform.audit_after(0, 100).await.expect("read"));
    let told: Vec<_> = told.iter().map(|entry| format!("{} {}", entry["action"], entry["resource"])).collect();
    let expected = [format!("insert tenants/{name}"), "update plans/default".into(), format!("delete tenants/{name}")];
    let expected = expected.map(|text| format!("\"{}\"", text.replacen(' ', "\" \"", 1)));
    assert!(told.ends_with(&expected), "{told:?}");
    let head = platform.audit_head().await.expect("read");
    let links = platform.audit_after(0, u16::MAX).await.expect("read");
    assert!(check(AuditChain::Platform, &links, head).is_ok());
}

#[tokio::test]
async fn writers_at_the_same_time_make_one_chain() {
    let database = Database::new().await;
    let (ours, _) = tenant(&database.store).await;
    let writers = (0..8).map(|writer| {
        let ours = ours.clone();
        tokio::spawn(async move {
            for i in 0..10 {
                adapter(&ours, &format!("a{writer}-{i}")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writes");
    }
    assert_eq!(check_all(&ours).await, Ok(81));
}

#[tokio::test]
async fn the_trail_is_changed_by_nobody_not_even_its_owner() {
    let database = Database::new().await;
    tenant(&database.store).await;
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    for sql in [
        "update audit_entries set content = '{}'",
        "delete from audit_entries",
        "truncate audit_entries",
        "delete from audit_heads",
        "truncate audit_heads",
    ] {
        let error = owner.execute(sql).await.expect_err("must be refused");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("23001"), "{sql}");
    }
    let mut service = PgConnection::connect(&database.service_url).await.expect("connect");
    for role in ["banyan_app", "banyan_platform"] {
        for sql in ["update audit_entries set content = '{}'", "delete from audit_entries", "delete from audit_heads"] {
            let sql = format!("begin; set local role {role}; {sql}");
            let error = service.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))).await.expect_err("refused");
            assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{sql}");
            service.execute("rollback").await.expect("roll back");
        }
    }
}

/// By a superuser who switches the triggers off: who can do that can do anything, and is found out.
#[tokio::test]
async fn every_edit_past_the_triggers_is_found() {
    let database = Database::new().await;
    let (ours, name) = tenant(&database.store).await;
    for i in 0..5 {
        let rename = |fields: &mut TenantFields| fields.display_name = format!("name {i}");
        database.store.platform().update_tenant(&name, None, rename).await.expect("update");
    }
    assert_eq!(check_all(&ours).await, Ok(6));
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    owner.execute("set session_replication_role = replica").await.expect("switch the triggers off");
    let of_ours = format!("chain = '{}'", ours.id());
    for (edit, found) in [
        (
            format!("update audit_entries set content = replace(content, 'name 2', 'name 9') where {of_ours}"),
            (4, Broken::Changed),
        ),
        (format!("update audit_entries set hash = sha256('') where {of_ours} and position = 3"), (3, Broken::Changed)),
        (format!("delete from audit_entries where {of_ours} and position = 2"), (2, Broken::Missing)),
        (format!("delete from audit_entries where {of_ours} and position = 6"), (6, Broken::CutOff)),
        (format!("delete from audit_entries where {of_ours}"), (1, Broken::CutOff)),
        (
            format!(
                "update audit_entries set position = 100 where {of_ours} and position = 3; \
                     update audit_entries set position = 3 where {of_ours} and position = 4; \
                     update audit_entries set position = 4 where {of_ours} and position = 100"
            ),
            (3, Broken::Detached),
        ),
        (
            format!(
                "delete from audit_entries where {of_ours} and position = 6; \
                     update audit_heads set position = 5 where {of_ours}"
            ),
            (5, Broken::NotTheHead),
        ),
    ] {
        let kept = "create temporary table kept as select * from audit_entries; \
                    create temporary table kept_heads as select * from audit_heads";
        owner.execute(kept).await.expect("keep");
        owner.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(edit.clone()))).await.expect("edit");
        assert_eq!(check_all(&ours).await, Err(found), "{edit}");
        let back = "delete from audit_entries; insert into audit_entries select * from kept; delete from audit_heads; \
                    insert into audit_heads select * from kept_heads; drop table kept; drop table kept_heads";
        owner.execute(back).await.expect("put back");
        assert_eq!(check_all(&ours).await, Ok(6), "{edit}");
    }
}

#[tokio::test]
async fn every_table_that_somebody_manages_is_audited() {
    let database = Database::new().await;
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    let unaudited: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c
          where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
            and not exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                             where t.tgrelid = c.oid and p.proname = 'audit_change')
          order by 1",
    )
    .fetch_all(&mut owner)
    .await
    .expect("query");
    let known: Vec<_> = NOT_MANAGED.iter().chain(&LEDGERS).map(|name| (*name).to_owned()).collect();
    let forgotten: Vec<_> = unaudited.into_iter().filter(|table| !known.contains(table)).collect();
    assert_eq!(forgotten, Vec::<String>::new(), "give each a trigger `audit_change`, or say here why not");
}

#[tokio::test]
async fn an_actor_lasts_for_its_own_transactions_alone() {
    let database = Database::with_pool(1).await;
    let (ours, _) = tenant(&database.store).await;
    let named = |store: &Store| store.tenant(ours.id());
    adapter(&named(&database.store.acting(&actor("annannannann"))), "first").await;
    adapter(&named(&database.store), "second").await;
    let entries = contents(&links(&ours).await);
    assert_eq!((&entries[1]["actor"]["kind"], &entries[2]["actor"]["kind"]), (&"key".into(), &"database".into()));
}
