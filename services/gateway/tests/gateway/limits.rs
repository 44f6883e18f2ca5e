//! Every limit can be hit, says so, and comes back.

use domain::{Detail, Fault, Reason};
use proto::v1;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Platform, ask, within},
};

fn named(fault: &Fault) -> Vec<&str> {
    fault
        .details
        .iter()
        .filter_map(|detail| match detail {
            Detail::Quota { subject, .. } => Some(subject.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn every_limit_names_itself_and_says_when_to_come_back() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let requests = v1::TenantLimits { requests_per_minute: 2, ..v1::TenantLimits::default() };
    // A request asks for 10 + 10 tokens and uses 10 + 1.
    let tokens = v1::TenantLimits { tokens_per_minute: 33, ..v1::TenantLimits::default() };
    let cases = [
        (platform.tenant("requests", requests).await, 2, "requests_per_minute"),
        (platform.tenant("tokens", tokens).await, 2, "tokens_per_minute"),
    ];
    for (tenant, granted, limit) in cases {
        for _ in 0..granted {
            platform.generate(&tenant.key, ask("base")).await.expect("within the limit: what was not used came back");
        }
        let refused = platform.generate(&tenant.key, ask("base")).await.err().expect("above the limit");
        assert_eq!((refused.reason, named(&refused)), (Reason::RateLimited, vec![limit]));
        assert!(refused.retry_hint().is_some_and(|after| after.as_secs() <= 61));
        // Nothing of a refusal is usage.
        assert_eq!(platform.usage(&tenant).await.len(), granted);
    }
    platform.stop().await;
}

#[tokio::test]
async fn concurrent_requests_are_held_and_freed_one_by_one() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let limits = v1::TenantLimits { concurrent_requests: 2, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let mut client = platform.inference(&acme.key);
    let first = client.generate(ask("base")).await.expect("one").into_inner();
    let _second = client.generate(ask("base")).await.expect("two").into_inner();
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("three are too many");
    assert_eq!(named(&refused), ["concurrent_requests"]);
    assert!(refused.retry_hint().is_some());
    // Another tenant is not concerned.
    let other = platform.tenant("other", limits).await;
    platform.inference(&other.key).generate(ask("base")).await.expect("its own limit");

    drop(first);
    worker.will(vec![Act::Say("a"), Act::Finish]);
    within(async { while platform.generate(&acme.key, ask("base")).await.is_err() {} }).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_request_that_can_never_fit_is_told_so() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let limits = v1::TenantLimits { tokens_per_minute: 19, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("20 are above 19");
    assert_eq!((named(&refused), refused.retry_hint()), (vec!["tokens_per_minute"], None));
    platform.stop().await;
}
