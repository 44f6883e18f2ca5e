//! Price lists: who sets them, who sees them.

use std::time::{Duration, Instant};

use domain::Reason;
use proto::v1::{self, price_service_client::PriceServiceClient};
use store::{EntryKind, ListedEntry, Outcome, Page};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, TestTenant, ask, collect, fault, within},
};

/// Until a price holds everywhere: the feed is read every 250 ms, and the machine may be busy.
const BOUND: Duration = Duration::from_secs(2);

type Client = PriceServiceClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Bearer>>;

fn prices(platform: &Platform, token: &str) -> Client {
    let channel = platform.channel(platform.gateway.admin_addr);
    PriceServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
}

fn price(parent: &str, model: &str, input_micros: u64) -> v1::SetPriceRequest {
    let price = v1::Price { parent: parent.into(), model: model.into(), input_micros, ..v1::Price::default() };
    v1::SetPriceRequest { price: Some(price) }
}

async fn listed(platform: &Platform, token: &str, parent: &str) -> Result<Vec<(String, u64)>, domain::Fault> {
    let request = v1::ListPricesRequest { parent: parent.into(), ..v1::ListPricesRequest::default() };
    let page = prices(platform, token).list_prices(request).await.map_err(|status| fault(&status))?.into_inner();
    Ok(page.prices.into_iter().map(|price| (price.model, price.input_micros)).collect())
}

#[tokio::test]
async fn the_operator_sets_prices_and_a_tenant_sees_its_own_and_the_platforms() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    let mut operator = prices(&platform, OPERATOR);
    let set = operator.set_price(price("", "base", 150_000)).await.expect("sets").into_inner();
    assert!(set.in_effect && set.effective_time.is_some());
    operator.set_price(price("tenants/acme", "acme/claims", 90_000)).await.expect("sets");

    for token in [OPERATOR, &acme.admin] {
        assert_eq!(listed(&platform, token, "").await, Ok(vec![("base".to_owned(), 150_000)]));
        let own = listed(&platform, token, "tenants/acme").await;
        assert_eq!(own, Ok(vec![("acme/claims".to_owned(), 90_000)]));
    }
    let theirs = listed(&platform, &rival.admin, "tenants/acme").await.expect_err("not its own");
    assert_eq!(theirs.reason, Reason::NotFound);
    for token in [&acme.admin, &acme.key] {
        let refused = prices(&platform, token).set_price(price("", "base", 0)).await.expect_err("no operator");
        assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_price_names_a_model_of_its_own_list() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut operator = prices(&platform, OPERATOR);
    for (parent, model) in [
        ("", "acme/claims"),
        ("tenants/acme", "rival/claims"),
        ("tenants/acme", "acme/claims@canary"),
        ("tenants/acme", "acme/claims@live"),
        ("", ""),
        ("", "No Model"),
    ] {
        let refused = fault(&operator.set_price(price(parent, model, 1)).await.expect_err(model));
        assert_eq!(refused.reason, Reason::InvalidRequest, "{parent} {model}");
    }
    let nobody = fault(&operator.set_price(price("tenants/nobody", "*", 1)).await.expect_err("nobody"));
    assert_eq!(nobody.reason, Reason::NotFound);
    platform.stop().await;
}

/// Micro-units, once they are in the ledger.
async fn charged(platform: &Platform, acme: &TestTenant, request: &str) -> u64 {
    within(async {
        loop {
            let entries = platform.store.tenant(acme.id).list_entries(&Page::first(100)).await.expect("lists").items;
            let ended = |entry: &&ListedEntry| entry.request.to_string() == request && entry.kind == EntryKind::Posted;
            if let Some(entry) = entries.iter().find(ended) {
                return entry.charged;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until every gateway has seen all that is committed now.
async fn seen_everywhere(platform: &Platform) {
    let operator = platform.store.platform();
    let head = operator.change_head().await.expect("the head");
    within(async {
        loop {
            let gateways = operator.list_gateways(Duration::from_secs(60)).await.expect("lists");
            if gateways.iter().all(|gateway| gateway.seen_change >= head) {
                assert_eq!(gateways.len(), 2);
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_price_holds_on_every_gateway_when_the_feed_has_told_it_and_running_requests_keep_theirs() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    // By themselves they would look after ten minutes.
    let settings = "[prices]\nrefresh_ms = 600000\n";
    let platform = Platform::start_with(&[&worker], settings).await;
    let other = platform.beside(&[&worker], settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let there = async || {
        let stream = platform.inference_at(other.inference_addr, &acme.key).generate(ask("base")).await;
        let answer = collect(stream.expect("begins").into_inner()).await.expect("answers");
        let request = answer.finish.receipt.expect("a receipt").request_id;
        charged(&platform, &acme, &request).await
    };
    let set = async |parent: &str, micros: u64| {
        let began = Instant::now();
        prices(&platform, OPERATOR).set_price(price(parent, "base", micros * 1_000_000)).await.expect("sets");
        seen_everywhere(&platform).await;
        eprintln!("a price holds on both gateways {:?} after it was asked for", began.elapsed());
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    };
    // Of each answer nine prompt tokens are not cached, and nothing else has a price.
    assert_eq!(there().await, 0, "now it remembers that there are none");
    set("", 3).await;
    assert_eq!(there().await, 9 * 3);

    worker.will(vec![Act::Say("ab"), Act::Hang]);
    let stream = platform.inference_at(other.inference_addr, &acme.key).generate(ask("base")).await;
    let mut running = stream.expect("begins").into_inner();
    within(running.message()).await.expect("a step");
    worker.will(vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]);
    set("tenants/acme", 5).await;
    assert_eq!(there().await, 9 * 5);
    set("", 7).await;
    assert_eq!(there().await, 9 * 5, "its own price comes before the platform's");

    drop(running);
    let records = platform.usage_of(&acme, 5).await;
    let cancelled = records.iter().find(|record| record.outcome == Outcome::Cancelled).expect("the one that ran");
    assert_eq!(charged(&platform, &acme, &cancelled.request.to_string()).await, 10 * 3, "as when it began");
    platform.stop().await;
    within(other.join()).await.expect("ends well");
}
