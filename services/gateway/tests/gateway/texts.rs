//! Tokenization comes before admission, so a tenant's texts are bounded there by themselves: what one sends does not keep
//! the others waiting.

use domain::{Detail, Fault, Reason};
use proto::v1::{self, inference_service_client::InferenceServiceClient};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    fake_worker::{Act, FakeWorker, SLOW_TEXT},
    http::{post, send},
    platform::{Bearer, Platform, TestTenant, ask, fault, within},
};

type Client = InferenceServiceClient<InterceptedService<Channel, Bearer>>;

const LIMIT: &str = "workers.tokenize_texts_per_tenant_max";
/// One long text at a time, and four more that wait.
const SETTINGS: &str = "[workers]\ntokenize_bytes_per_tenant_max = 1000\ntokenize_texts_per_tenant_max = 5\n\
                        call_timeout_ms = 60000";

fn long() -> String {
    format!("{SLOW_TEXT}{}", "x".repeat(600))
}

async fn count(mut client: Client, text: String) -> Result<u32, Fault> {
    let input = Some(v1::count_tokens_request::Input::Prompt(text));
    let request = v1::CountTokensRequest { model: "base".to_owned(), input };
    let counted = client.count_tokens(request).await;
    counted.map(|counted| counted.into_inner().tokens).map_err(|status| fault(&status))
}

/// Sends eight long texts at once, of which five find a place.
async fn flood(platform: &Platform, tenant: &TestTenant) -> JoinSet<Result<u32, Fault>> {
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        calls.spawn(count(platform.inference(&tenant.key), long()));
    }
    for _ in 0..3 {
        let refused = within(calls.join_next()).await.expect("a call").expect("no panic").expect_err("too many");
        assert!(is_the_bound(&refused), "{refused:?}");
    }
    calls
}

fn is_the_bound(refused: &Fault) -> bool {
    let named = |detail: &Detail| matches!(detail, Detail::Quota { subject, .. } if subject == LIMIT);
    refused.reason == Reason::RateLimited && refused.retry_hint().is_some() && refused.details.iter().any(named)
}

/// Waits until the worker has so many slow texts.
async fn held(worker: &FakeWorker, count: usize) {
    within(async {
        while worker.slow_texts() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_tenants_long_texts_wait_for_each_other_and_the_others_texts_pass_them() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Finish]).await;
    worker.holds_slow_texts(true);
    let platform = Platform::start_with(&[&worker], SETTINGS).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    let floods = flood(&platform, &acme).await;
    held(&worker, 1).await;
    // Every way to a tokenizer has the bound.
    let long_prompt = v1::generate_request::Input::Prompt(long());
    let refused = platform.generate(&acme.key, v1::GenerateRequest { input: Some(long_prompt), ..ask("base") }).await;
    assert!(is_the_bound(&refused.err().expect("refused")));
    let asked = json!({"model": "base", "prompt": "short", "max_tokens": 5});
    let refused = send(&platform, post("/v1/completions", &acme.key, &asked)).await;
    assert_eq!((refused.status, refused.refused().1.as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(refused.json()["error"]["banyan"]["limits"][0]["limit"], LIMIT);
    assert!(!refused.header("retry-after").is_empty());

    // Another tenant has its own places, here and at the worker.
    assert_eq!(count(platform.inference(&rival.key), "abc".to_owned()).await, Ok(3));
    platform.generate(&rival.key, ask("base")).await.expect("answers");
    let theirs = flood(&platform, &rival).await;
    held(&worker, 2).await;

    // When the texts are done, all is as before.
    worker.holds_slow_texts(false);
    for calls in [floods, theirs] {
        assert_eq!(within(calls.join_all()).await, vec![Ok(long().len() as u32); 5]);
    }
    platform.stop().await;
}

#[tokio::test]
async fn whoever_goes_away_leaves_its_place_at_the_worker_and_in_the_queue() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start_with(&[&worker], SETTINGS).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    worker.holds_slow_texts(true);
    for _ in 0..3 {
        let mut floods = flood(&platform, &acme).await;
        held(&worker, 1).await;
        floods.abort_all();
        held(&worker, 0).await;
        // Places that were lost would be missing after a round or two.
        within(async { while count(platform.inference(&acme.key), "short".to_owned()).await.is_err() {} }).await;
    }
    worker.holds_slow_texts(false);
    let long_text = "x".repeat(2_000);
    assert_eq!(count(platform.inference(&acme.key), long_text).await, Ok(2_000), "it takes all the room");
    platform.stop().await;
}
