//! Row-level security, asked with raw SQL by a login role that owns nothing: what a forgotten `where` would do.

use sqlx::{Connection, Executor, PgConnection, postgres::PgRow};
use store::{Store, StoreConfig, StoreError, TenantScope};

use crate::{
    database::Database,
    suite::{self, adapter, digest, push, tenant},
};

/// Every table with rows of tenants, as the catalogue lists them, and the column that names the tenant.
async fn tables(database: &Database) -> Vec<(String, &'static str)> {
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    let found: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
          where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
            and a.attname = 'tenant_id' and not a.attisdropped
          order by 1",
    )
    .fetch_all(&mut owner)
    .await
    .expect("query");
    assert!(found.len() > 10, "{found:?}");
    found.into_iter().map(|table| (table, "tenant_id")).chain([("tenants".to_owned(), "id")]).collect()
}

/// A database with two tenants that have a row in every table, and a connection of the service.
async fn two_tenants() -> (Database, TenantScope, TenantScope, PgConnection) {
    let database = Database::new().await;
    let (ours, _) = tenant(&database.store).await;
    let (theirs, _) = tenant(&database.store).await;
    for (own, public_id) in [(&ours, "oursoursours"), (&theirs, "theirstheirs")] {
        push(own, &adapter(own, "claims").await, 1, Some("live")).await;
        let new = store::NewApiKey {
            public_id: public_id.to_owned(),
            secret_hash: [1; 32],
            role: domain::Role::Inference,
            fields: store::ApiKeyFields::default(),
        };
        let key = own.create_api_key(new).await.expect("create a key").id;
        let used = store::KeyUse { tenant: own.id(), key, at: time::OffsetDateTime::now_utc() };
        database.store.platform().record_key_uses(&[used]).await.expect("record");
        let price = domain::Price { input: 1, cached_input: 1, output: 1 };
        let new =
            store::NewPrice { tenant: Some(own.id()), model: store::PricedModel::Every, price, effective_at: None };
        database.store.platform().set_price(&new).await.expect("set a price");
        database.store.platform().post(uuid::Uuid::nil(), &requests(own)).await.expect("record");
        let named = store::ClientRequest { key, id: "order-17".parse().expect("an id") };
        own.claim_client_request(&named, suite::new_run()).await.expect("claim");
        roll_out(own).await;
    }
    let connection = PgConnection::connect(&database.service_url).await.expect("connect");
    (database, ours, theirs, connection)
}

/// A row for each table of roll-outs.
async fn roll_out(own: &TenantScope) {
    let (claims, live) = ("claims".parse().expect("a slug"), "live".parse().expect("a slug"));
    let later = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    let who = store::Pinned::Tenant;
    let pin = store::NewPin { who, digest: digest(1), reason: String::new(), expires_at: later };
    own.create_pin(&claims, &live, pin, 9, None).await.expect("pin");
    let plan = store::NewSchedule { change: domain::AliasChange::Rollback, due_at: later };
    own.create_schedule(&claims, &live, plan, 9, None).await.expect("plan");
    let pair = store::ShadowPair { adapter: claims, alias: live, digest: digest(1), shadow_digest: digest(2) };
    own.add_to_shadow_report(&pair, store::ShadowTally::default()).await.expect("add");
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_no_others_whatever_the_query() {
    let (database, ours, theirs, mut connection) = two_tenants().await;
    let tables = tables(&database).await;
    for (own, other) in [(&ours, &theirs), (&theirs, &ours)] {
        let mut transaction = as_tenant(&mut connection, own).await;
        for (table, column) in &tables {
            let rows = query(&mut transaction, &format!("select {column} as owner from {table}")).await;
            let owners: Vec<Option<uuid::Uuid>> = rows.iter().map(|row| sqlx::Row::get(row, "owner")).collect();
            // A row of no tenant's is everybody's.
            let (own, other) = (own.id().uuid(), other.id().uuid());
            assert!(owners.iter().flatten().all(|owner| *owner == own), "{table}: {owners:?}");
            assert!(owners.contains(&Some(own)), "give {table} a row of each tenant, or this shows nothing");
            let sql = format!("select from {table} where {column} = '{other}'");
            assert!(query(&mut transaction, &sql).await.is_empty(), "{table}");
        }
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_plan_and_no_other() {
    let (database, ours, _, mut connection) = two_tenants().await;
    let platform = database.store.platform();
    for name in ["gold", "silver"] {
        let slug = name.parse().expect("a slug");
        platform.create_plan(store::NewPlan { slug, fields: store::PlanFields::default() }).await.expect("create");
    }
    let slug = ours.get().await.expect("get").slug;
    let gold = |fields: &mut store::TenantFields| fields.plan = "gold".parse().expect("a slug");
    platform.update_tenant(&slug, None, gold).await.expect("update");
    let mut transaction = as_tenant(&mut connection, &ours).await;
    let rows = query(&mut transaction, "select slug from plans").await;
    let seen: Vec<String> = rows.iter().map(|row| sqlx::Row::get(row, "slug")).collect();
    assert_eq!(seen, ["gold"]);
    drop(transaction);
    connection.execute("set role banyan_app").await.expect("take the role");
    assert!(query(&mut connection, "select from plans").await.is_empty(), "without a tenant none");
}

#[tokio::test]
async fn a_tenant_sees_the_platforms_prices_and_its_own_and_no_others() {
    let (database, ours, _, mut connection) = two_tenants().await;
    // Each tenant has one of its own already.
    let (model, price) = (store::PricedModel::Every, domain::Price::default());
    let new = store::NewPrice { tenant: None, model, price, effective_at: None };
    database.store.platform().set_price(&new).await.expect("set a price");
    let mut transaction = as_tenant(&mut connection, &ours).await;
    let rows = query(&mut transaction, "select tenant_id from prices order by tenant_id nulls first").await;
    let owners: Vec<Option<uuid::Uuid>> = rows.iter().map(|row| sqlx::Row::get(row, "tenant_id")).collect();
    assert_eq!(owners, [None, Some(ours.id().uuid())]);
}

#[tokio::test]
async fn without_a_tenant_nothing_is_seen() {
    let (database, _, _, mut connection) = two_tenants().await;
    connection.execute("set role banyan_app").await.expect("take the role");
    for (table, _) in tables(&database).await {
        assert!(query(&mut connection, &format!("select from {table}")).await.is_empty(), "{table}");
    }
}

#[tokio::test]
async fn a_login_role_has_no_rights_until_it_takes_a_scope() {
    let (database, _, _, mut connection) = two_tenants().await;
    for (table, _) in tables(&database).await {
        let refused = try_execute(&mut connection, &format!("select from {table}")).await;
        assert_eq!(code(refused), "42501", "{table}");
    }
    let refused = try_execute(&mut connection, "select from find_api_keys(array['oursoursours'])").await;
    assert_eq!(code(refused), "42501");
}

#[tokio::test]
async fn a_tenant_changes_none_of_anothers_rows() {
    let (database, ours, theirs, mut connection) = two_tenants().await;
    let id = theirs.id();
    for sql in [
        format!("update api_keys set revoked_at = now() where tenant_id = '{id}'"),
        format!("update adapters set display_name = 'x' where tenant_id = '{id}'"),
        format!("update aliases set updated_at = now() where tenant_id = '{id}'"),
        format!("update adapter_blobs set state = 'deleting' where tenant_id = '{id}'"),
        format!("delete from aliases where tenant_id = '{id}'"),
        format!("delete from adapter_versions where tenant_id = '{id}'"),
        format!("delete from adapters where tenant_id = '{id}'"),
        format!("update client_requests set answer = '' where tenant_id = '{id}'"),
        format!("delete from client_requests where tenant_id = '{id}'"),
    ] {
        let mut transaction = as_tenant(&mut connection, &ours).await;
        assert_eq!(try_execute(&mut transaction, &sql).await.expect("runs and finds nothing"), 0, "{sql}");
    }
    for sql in [
        format!("insert into adapters (tenant_id, id, slug) values ('{id}', gen_random_uuid(), 'smuggled')"),
        format!(
            "insert into adapter_blobs (tenant_id, digest, state, size_bytes) \
                 values ('{id}', decode(repeat('09', 32), 'hex'), 'stored', 1)"
        ),
        format!(
            "insert into api_keys (tenant_id, id, public_id, secret_hash, role) \
                 values ('{id}', gen_random_uuid(), 'smuggled', decode(repeat('09', 32), 'hex'), 'inference')"
        ),
    ] {
        let mut transaction = as_tenant(&mut connection, &ours).await;
        assert_eq!(code(try_execute(&mut transaction, &sql).await), "42501", "{sql}");
    }
    assert_eq!(theirs.get_adapter(&"claims".parse().expect("slug")).await.expect("get").aliases.len(), 1);
    drop(database);
}

#[tokio::test]
async fn a_tenant_may_not_touch_what_only_the_platform_may() {
    let (_database, ours, _, mut connection) = two_tenants().await;
    for sql in [
        "update tenants set requests_per_minute = null",
        "delete from tenants",
        "update tenants set plan = 'default'",
        "update plans set requests_per_minute = null",
        "insert into plans (slug, revision) values ('smuggled', gen_random_uuid())",
        "delete from plans",
        "update api_keys set role = 'tenant_admin'",
        "update api_keys set tenant_id = gen_random_uuid()",
        "update api_keys set public_id = 'oursoursour2'",
        "update api_key_uses set used_at = now()",
        "insert into changes (position, kind, subject) values (1000, 'api_key', 'oursoursours')",
        "delete from changes",
        "select from change_head",
        "select from gateways",
        "select append_change('api_key', null, 'oursoursours')",
        "delete from api_keys",
        "delete from adapter_blobs",
        "update adapter_versions set size_bytes = 0",
        "update version_history set reason = ''",
        "delete from version_history",
        "delete from version_states",
        "update alias_schedules set due_at = now()",
        "update usage_records set completion_tokens = 0",
        "delete from usage_records",
        "truncate usage_records",
        "insert into prices (id, model, input_micros, cached_input_micros, output_micros, effective_at)
         values (gen_random_uuid(), '*', 0, 0, 0, now())",
        "update prices set input_micros = 0",
        "insert into ledger_entries (tenant_id, request_id, kind) values (banyan_tenant_id(), banyan_tenant_id(), 'voided')",
        "update ledger_entries set charged_micros = 0",
        "delete from ledger_entries",
        "truncate ledger_entries",
        "delete from ledger_open",
        "alter table adapters disable row level security",
        "create table smuggled (i int)",
        "create function public.lower (text) returns text language sql return 'x'",
    ] {
        let mut transaction = as_tenant(&mut connection, &ours).await;
        assert_eq!(code(try_execute(&mut transaction, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn the_platform_forgets_answers_and_cannot_read_them() {
    let (_database, _, _, mut connection) = two_tenants().await;
    connection.execute("set role banyan_platform").await.expect("take the role");
    for sql in ["select answer from client_requests", "update client_requests set answer = ''"] {
        assert_eq!(code(try_execute(&mut connection, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn versions_and_usage_never_change_not_even_by_their_owner() {
    let (database, ..) = two_tenants().await;
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    for sql in [
        "update adapter_versions set size_bytes = 0",
        "update version_history set reason = ''",
        "delete from version_history",
        "truncate version_history",
        "update usage_records set completion_tokens = 0",
        "delete from usage_records",
        "truncate usage_records",
        "update prices set input_micros = 0",
        "delete from prices",
        "update ledger_entries set charged_micros = 0",
        "delete from ledger_entries",
        "truncate ledger_entries",
    ] {
        assert_eq!(code(try_execute(&mut owner, sql).await), "23001", "{sql}");
    }
}

#[tokio::test]
async fn the_key_look_up_cannot_be_led_astray_by_the_callers_search_path() {
    let (_database, ours, _, mut connection) = two_tenants().await;
    connection.execute("set role banyan_app").await.expect("take the role");
    // Objects that hide ours from unqualified names.
    connection.execute("create temporary table api_keys (public_id text)").await.expect("make a temporary table");
    connection.execute("set search_path = pg_temp, public").await.expect("set the search path");
    let rows = query(&mut connection, "select tenant_id from public.find_api_keys(array['oursoursours'])").await;
    assert_eq!(sqlx::Row::get::<uuid::Uuid, _>(&rows[0], "tenant_id"), ours.id().uuid());
    for wild in ["%", "", "oursoursour_", "' or ''='"] {
        let found =
            sqlx::query("select from public.find_api_keys(array[$1])").bind(wild).fetch_all(&mut connection).await;
        assert!(found.expect("query").is_empty(), "{wild}");
    }
}

#[tokio::test]
async fn a_pooled_connection_carries_no_tenant_to_its_next_user() {
    let database = Database::with_pool(1).await;
    let (ours, _) = tenant(&database.store).await;
    let (theirs, _) = tenant(&database.store).await;
    let claims = adapter(&ours, "claims").await;
    push(&ours, &claims, 1, Some("live")).await;
    // Same connection: after a success, after an error, and after a call that was dropped half-way.
    assert!(theirs.get_adapter(&claims).await.is_err());
    assert!(ours.get_version(&claims, digest(9)).await.is_err());
    assert!(theirs.get_adapter(&claims).await.is_err());
    for _ in 0..20 {
        let mut dropped = Box::pin(ours.get_adapter(&claims));
        // Polled once: it is under way.
        tokio::select! {
            biased;
            _ = &mut dropped => {}
            () = tokio::task::yield_now() => {}
        }
        drop(dropped);
        assert!(theirs.get_adapter(&claims).await.is_err());
        let seen = store::Page::first(10);
        assert!(theirs.list_adapters(&seen).await.expect("list").items.is_empty());
    }
    assert!(database.store.platform().list_tenants(&store::Page::first(10)).await.expect("list").items.len() >= 2);
    assert_eq!(ours.list_adapters(&store::Page::first(10)).await.expect("list").items.len(), 1);
}

#[tokio::test]
async fn a_service_that_is_no_member_of_the_roles_does_not_start() {
    let database = tests::postgres::TestDatabase::new().await;
    store::migrate(&database.owner_url()).await.expect("migrate");
    let url = database.service_url(&[]).await;
    let config = StoreConfig { acquire_timeout_ms: 500, ..StoreConfig::default() };
    assert!(matches!(Store::connect(&url, &config).await, Err(StoreError::Internal(_) | StoreError::Unavailable(_))));
}

#[tokio::test]
async fn every_table_forces_row_level_security() {
    let database = Database::new().await;
    let mut owner = PgConnection::connect(&database.database.owner_url()).await.expect("connect");
    let open: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and relname <> '_sqlx_migrations'
            and not (relrowsecurity and relforcerowsecurity)",
    )
    .fetch_all(&mut owner)
    .await
    .expect("query");
    assert_eq!(open, Vec::<String>::new());
    let bypass: Vec<String> = sqlx::query_scalar(
        "select rolname::text from pg_roles
          where rolname like 'banyan\\_%' and (rolbypassrls or rolsuper) and rolname not like 'banyan\\_test%'",
    )
    .fetch_all(&mut owner)
    .await
    .expect("query");
    assert_eq!(bypass, Vec::<String>::new());
}

async fn as_tenant<'c>(
    connection: &'c mut PgConnection,
    tenant: &TenantScope,
) -> sqlx::Transaction<'c, sqlx::Postgres> {
    let mut transaction = connection.begin().await.expect("begin");
    transaction.execute("set local role banyan_app").await.expect("take the role");
    let sql = format!("set local banyan.tenant_id = '{}'", tenant.id());
    try_execute(&mut transaction, &sql).await.expect("name the tenant");
    transaction
}

async fn query(connection: &mut PgConnection, sql: &str) -> Vec<PgRow> {
    sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn try_execute(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(|done| done.rows_affected())
}

fn code(result: Result<u64, sqlx::Error>) -> String {
    let error = result.expect_err("this must be refused");
    let database = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    database.code().expect("PostgreSQL names a code").into_owned()
}

/// One request without an end, and one with a posted end.
fn requests(own: &TenantScope) -> Vec<store::LedgerEntry> {
    use store::{End, LedgerEntry};
    let (open, ended) = (suite::hold(own.id()), suite::hold(own.id()));
    let posted = End::Posted(Box::new(ended.record()));
    vec![LedgerEntry::Reserved(open), LedgerEntry::Reserved(ended.clone()), LedgerEntry::Ended(ended, posted)]
}
