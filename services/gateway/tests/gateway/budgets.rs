//! Budgets: an answer ends where its money ends, and a refusal says which budget, by how much, and when it passes.

use domain::{Detail, Reason};
use proto::v1::{self, price_service_client::PriceServiceClient};
use store::{FinishReason, Outcome};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, ask, fault, inference_key},
};

/// A micro-unit for a token of the prompt, two for one of the answer.
async fn set_price(platform: &Platform) {
    let channel = platform.channel(platform.gateway.admin_addr);
    let price = v1::Price {
        model: "base".into(),
        input_micros: 1_000_000,
        cached_input_micros: 1_000_000,
        output_micros: 2_000_000,
        ..v1::Price::default()
    };
    let mut prices = PriceServiceClient::with_interceptor(channel, Bearer(OPERATOR.to_owned()));
    prices.set_price(v1::SetPriceRequest { price: Some(price) }).await.expect("sets a price");
}

/// Ten tokens, one at a time.
fn ten() -> Vec<Act> {
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    letters.map(Act::Say).into_iter().chain([Act::Finish]).collect()
}

#[tokio::test]
async fn an_answer_ends_where_its_money_ends_and_the_next_one_is_told_when_there_is_more() {
    let worker = FakeWorker::start("one", ten()).await;
    let platform = Platform::start_with(&[&worker], "[generate]\ngrant_tokens = 4\n").await;
    set_price(&platform).await;
    // Ten for the prompt, twelve for six tokens, and one that buys nothing.
    let limits = v1::TenantLimits { budget_day: 23, budget_month: 1_000, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let answer = platform.generate(&acme.key, ask("base")).await.expect("the beginning of an answer");
    assert_eq!((answer.text.as_str(), answer.finish.reason()), ("abcdef", v1::FinishReason::Budget));
    assert_eq!(answer.finish.limits, ["budget_day"]);
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].completion_tokens, records[0].outcome), (6, Outcome::Finished(FinishReason::Budget)));

    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("one is left, and twelve are needed");
    assert_eq!(refused.reason, Reason::RateLimited);
    let described = refused.details.iter().find_map(|detail| match detail {
        Detail::Quota { subject, description } => Some((subject.as_str(), description.as_str())),
        _ => None,
    });
    let words = "budget_day of the tenant is 23 micro-units, and this request would be 11 micro-units above it";
    assert_eq!(described, Some(("budget_day", words)));
    assert!(refused.retry_hint().is_some_and(|after| after.as_secs() <= 86_400), "{:?}", refused.retry_hint());
    platform.stop().await;
}

#[tokio::test]
async fn a_keys_own_budget_holds_for_it_alone() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    set_price(&platform).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let own = v1::KeyLimits { budget_month: 24, ..v1::KeyLimits::default() };
    let narrow = platform.make(&acme, v1::ApiKey { limits: Some(own), ..inference_key() }).await;
    // What was reserved for tokens that did not come is there again.
    for _ in 0..2 {
        platform.generate(&narrow, ask("base")).await.expect("twelve each");
    }
    let refused = platform.generate(&narrow, ask("base")).await.err().expect("nothing is left");
    assert!(refused.message.contains("key.budget_month"), "{refused:?}");
    platform.generate(&acme.key, ask("base")).await.expect("another key of the tenant");
    platform.stop().await;
}

#[tokio::test]
async fn budgets_that_cannot_be_counted_exactly_are_refused() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let limits = v1::TenantLimits { budget_day: 1 << 53, ..v1::TenantLimits::default() };
    let tenant = v1::Tenant { limits: Some(limits), ..v1::Tenant::default() };
    let request = v1::CreateTenantRequest { tenant_id: "acme".into(), tenant: Some(tenant) };
    let refused = platform.tenants(OPERATOR).create_tenant(request).await.expect_err("too much");
    assert_eq!(fault(&refused).reason, Reason::InvalidRequest);
    platform.stop().await;
}
