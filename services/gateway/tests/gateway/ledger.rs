//! From an answer to the invoice: every total comes out of the ledger, which holds every request once, whatever happens.

use domain::Reason;
use proto::{
    v1::{self, ledger_service_client::LedgerServiceClient, price_service_client::PriceServiceClient},
    worker as wire,
};
use store::{End, Hold, LedgerEntry, Outcome, Page};
use tests::postgres::{PostgresServer, TestDatabase};
use time::{Duration, OffsetDateTime};
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, TestTenant, ask, fault, within},
};

type Client = LedgerServiceClient<InterceptedService<Channel, Bearer>>;

fn ledger(platform: &Platform, token: &str) -> Client {
    let channel = platform.channel(platform.gateway.admin_addr);
    LedgerServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
}

async fn set_price(platform: &Platform) {
    let channel = platform.channel(platform.gateway.admin_addr);
    let mut prices = PriceServiceClient::with_interceptor(channel, Bearer(OPERATOR.to_owned()));
    let price = v1::Price {
        model: "base".into(),
        input_micros: 3_000_000,
        cached_input_micros: 1_000_000,
        output_micros: 5_000_000,
        ..v1::Price::default()
    };
    prices.set_price(v1::SetPriceRequest { price: Some(price) }).await.expect("sets");
}

/// Waits until there is no difference.
async fn reconciled(platform: &Platform) {
    let mut operator = ledger(platform, OPERATOR);
    within(async {
        loop {
            let checks = operator.reconcile(v1::ReconcileRequest {}).await.expect("compares").into_inner().checks;
            assert!(checks.len() >= 8);
            if checks.iter().all(|check| check.left_value == check.right_value) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn invoice(platform: &Platform, token: &str, tenant: &str) -> Result<v1::Invoice, domain::Fault> {
    let now = OffsetDateTime::now_utc();
    let month = format!("{:04}-{:02}", now.year(), u8::from(now.month()));
    let request = v1::GetInvoiceRequest { parent: format!("tenants/{tenant}"), month };
    Ok(ledger(platform, token).get_invoice(request).await.map_err(|status| fault(&status))?.into_inner())
}

#[tokio::test]
async fn an_invoice_is_what_the_ledger_has_posted_and_its_tenant_alone_sees_it() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    set_price(&platform).await;
    for _ in 0..3 {
        platform.generate(&acme.key, ask("base")).await.expect("answers");
    }
    platform.usage_of(&acme, 3).await;
    reconciled(&platform).await;

    // Ten prompt tokens, one of them cached, five of the answer: 9 × 3 + 1 × 1 + 5 × 5 micro-units.
    for token in [OPERATOR, &acme.admin] {
        let invoice = invoice(&platform, token, "acme").await.expect("an invoice");
        let [line] = &invoice.lines[..] else { panic!("one line: {invoice:?}") };
        assert_eq!((line.model.as_str(), line.requests), ("base", 3));
        assert_eq!((line.input_tokens, line.cached_input_tokens, line.output_tokens), (27, 3, 15));
        assert_eq!((line.amount_micros, invoice.total_micros, invoice.open_micros), (3 * 53, 3 * 53, 0));
    }
    let refused = invoice(&platform, &rival.admin, "acme").await.expect_err("not its own");
    assert_eq!(refused.reason, Reason::NotFound);
    assert_eq!(invoice(&platform, &rival.admin, "rival").await.expect("empty").total_micros, 0);
    let by = vec![v1::UsageGroupBy::Day.into(), v1::UsageGroupBy::ApiKey.into()];
    let request = v1::SummarizeUsageRequest {
        parent: "tenants/acme".into(),
        group_by: by,
        ..v1::SummarizeUsageRequest::default()
    };
    let groups = ledger(&platform, &acme.admin).summarize_usage(request).await.expect("sums").into_inner().groups;
    assert_eq!(groups.iter().map(|group| group.amount_micros).sum::<u64>(), 3 * 53);
    let list = v1::ListLedgerEntriesRequest { parent: "tenants/acme".into(), page_size: 4, page_token: String::new() };
    let page = ledger(&platform, &acme.admin).list_ledger_entries(list.clone()).await.expect("lists").into_inner();
    let next = v1::ListLedgerEntriesRequest { page_token: page.next_page_token, ..list };
    let rest = ledger(&platform, &acme.admin).list_ledger_entries(next).await.expect("lists").into_inner();
    let charged: u64 = page.entries.iter().chain(&rest.entries).map(|entry| entry.charged_micros).sum();
    assert_eq!((page.entries.len() + rest.entries.len(), charged), (6, 3 * 53));
    let refused = ledger(&platform, &acme.admin).reconcile(v1::ReconcileRequest {}).await.expect_err("operator's");
    assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    platform.stop().await;
}

#[tokio::test]
async fn a_request_that_no_worker_took_is_voided_and_costs_nothing() {
    let worker = FakeWorker::start("one", vec![Act::Fail(Reason::QueueFull)]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    set_price(&platform).await;
    platform.generate(&acme.key, ask("base")).await.err().expect("refused");
    let entries = within(async {
        loop {
            let found = platform.store.tenant(acme.id).list_entries(&Page::first(10)).await.expect("lists").items;
            if found.len() == 2 {
                return found;
            }
        }
    })
    .await;
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.charged)).collect();
    assert_eq!(kinds, [("voided", 0), ("reserved", 0)]);
    assert!(entries[0].held > 0 && entries[0].held == entries[1].held);
    assert!(platform.usage(&acme).await.is_empty());
    reconciled(&platform).await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_go_on_while_the_database_is_away_and_their_entries_follow_when_it_is_back() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.expect("start");
    let database = TestDatabase::on(&server.url()).await;
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Finish]).await;
    // Who calls is known from before.
    let platform = Platform::start_on(database, &[&worker], "[auth]\ncache_ttl_ms = 600000\n").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    platform.generate(&acme.key, ask("base")).await.expect("answers");
    tokio::task::block_in_place(|| server.crash());
    for _ in 0..5 {
        platform.generate(&acme.key, ask("base")).await.expect("answers without a database");
    }
    tokio::task::block_in_place(|| server.resume());
    let records = platform.usage_of(&acme, 6).await;
    assert_eq!(records.len(), 6);
    reconciled(&platform).await;
    platform.stop().await;
}

#[tokio::test]
async fn what_a_lost_gateway_left_open_is_posted_as_far_as_a_worker_knows_and_else_expires() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let settings = "[ledger]\ngrace_ms = 1\norphan_ms = 1\nsweep_interval_ms = 50\n";
    let platform = Platform::start_with(&[&worker], settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let (known, unknown) = (hold(&acme), hold(&acme));
    let usage = v1::Usage { prompt_tokens: 10, cached_prompt_tokens: 2, completion_tokens: 7 };
    let request_id = known.request.to_string();
    worker.knows(vec![wire::RequestUsage { request_id, usage: Some(usage), ended: true }]);
    let left = [LedgerEntry::Reserved(known.clone()), LedgerEntry::Reserved(unknown.clone())];
    platform.store.platform().post(Uuid::now_v7(), &left).await.expect("posts");

    let records = platform.usage_of(&acme, 1).await;
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!((record.request, record.outcome, record.worker.as_str()), (known.request, Outcome::Failed, "one"));
    assert_eq!((record.prompt_tokens, record.cached_prompt_tokens, record.completion_tokens), (10, 2, 7));
    reconciled(&platform).await;
    let own = platform.store.tenant(acme.id);
    let entries = own.list_entries(&Page::first(10)).await.expect("lists").items;
    let ends: Vec<_> = entries
        .iter()
        .filter(|entry| entry.kind.as_str() != "reserved")
        .map(|entry| (entry.request, entry.charged))
        .collect();
    assert_eq!(ends.len(), 2);
    assert!(ends.contains(&(known.request, known.price.cost(10, 2, 7))) && ends.contains(&(unknown.request, 0)));
    // Should that gateway come back after all, its word is too late.
    let late = LedgerEntry::Ended(unknown.clone(), End::Posted(Box::new(unknown.record())));
    let posted = platform.store.platform().post(Uuid::now_v7(), &[late]).await.expect("posts");
    assert_eq!(posted.ended_before, [unknown.request]);
    platform.stop().await;
}

fn hold(tenant: &TestTenant) -> Hold {
    let at = OffsetDateTime::now_utc() - Duration::hours(1);
    Hold {
        tenant: tenant.id,
        request: domain::RequestId::new(Uuid::now_v7()),
        api_key: domain::ApiKeyId::new(Uuid::now_v7()),
        model: "base".into(),
        adapter_digest: None,
        base_digest: domain::Digest::new([7; 32]),
        at,
        deadline: at + Duration::minutes(1),
        price: domain::Price { input: 2_000_000, cached_input: 1_000_000, output: 3_000_000 },
        prompt_tokens: 10,
        answer_tokens_max: 20,
        held: 80,
        process: Uuid::nil(),
    }
}
