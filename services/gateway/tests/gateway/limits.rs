//! Every limit can be hit, says so, and comes back.

use domain::{Detail, Fault, Reason};
use proto::v1;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{OPERATOR, Platform, ask, fault, inference_key, within},
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
    // A request has 10 tokens, asks for 10 more and uses one of them.
    let input = v1::TenantLimits { input_tokens_per_minute: 25, ..v1::TenantLimits::default() };
    let output = v1::TenantLimits { output_tokens_per_minute: 2, ..v1::TenantLimits::default() };
    let cases = [
        (platform.tenant("requests", requests).await, 2, "requests_per_minute"),
        (platform.tenant("input", input).await, 2, "input_tokens_per_minute"),
        (platform.tenant("output", output).await, 2, "output_tokens_per_minute"),
    ];
    for (tenant, granted, limit) in cases {
        for _ in 0..granted {
            platform.generate(&tenant.key, ask("base")).await.expect("within the limit: what was not used came back");
        }
        let refused = platform.generate(&tenant.key, ask("base")).await.err().expect("above the limit");
        assert_eq!((refused.reason, named(&refused)), (Reason::RateLimited, vec![limit]));
        assert!(refused.retry_hint().is_some_and(|after| after.as_secs() <= 61));
        // Nothing of a refusal is usage.
        assert_eq!(platform.usage_of(&tenant, granted).await.len(), granted);
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
    let limits = v1::TenantLimits { input_tokens_per_minute: 9, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("10 are above 9");
    assert_eq!((named(&refused), refused.retry_hint()), (vec!["input_tokens_per_minute"], None));
    platform.stop().await;
}

#[tokio::test]
async fn a_keys_own_limits_hold_beside_its_tenants_and_for_it_alone() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits { requests_per_minute: 3, ..Default::default() }).await;
    let own = v1::KeyLimits { requests_per_minute: 1, ..v1::KeyLimits::default() };
    let narrow = platform.make(&acme, v1::ApiKey { limits: Some(own), ..inference_key() }).await;
    platform.generate(&narrow, ask("base")).await.expect("one");
    let refused = platform.generate(&narrow, ask("base")).await.err().expect("two are above its limit");
    assert_eq!((refused.reason, named(&refused)), (Reason::RateLimited, vec!["key.requests_per_minute"]));
    // The refusal has charged the tenant nothing: two more are left for its other key.
    for _ in 0..2 {
        platform.generate(&acme.key, ask("base")).await.expect("another key of the tenant");
    }
    let both = platform.generate(&narrow, ask("base")).await.err().expect("above both");
    assert_eq!(named(&both), ["requests_per_minute", "key.requests_per_minute"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_plan_gives_limits_and_its_part_in_the_workers_to_tenants_that_have_none_of_their_own() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let plan = v1::Plan {
        limits: Some(v1::TenantLimits { requests_per_minute: 1, ..Default::default() }),
        share: Some(v1::PlanShare { weight: 3, priority: 2, ..Default::default() }),
        ..Default::default()
    };
    let mut plans = platform.plans(OPERATOR);
    let request = v1::CreatePlanRequest { plan_id: "gold".into(), plan: Some(plan) };
    let made = plans.create_plan(request).await.expect("makes a plan").into_inner();
    assert_eq!(made.outage(), v1::Outage::Closed);
    let tenant = v1::Tenant { name: "tenants/acme".into(), plan: "plans/gold".into(), ..Default::default() };
    let move_there = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: None };
    let moved = platform.tenants(OPERATOR).update_tenant(move_there).await.expect("moves").into_inner();
    assert_eq!(moved.plan, "plans/gold");
    // A key that was known before is looked up again within the bound of the cache.
    within(async { while platform.generate(&acme.key, ask("base")).await.is_ok() {} }).await;
    let share = worker.requests().last().and_then(|request| request.share.clone()).expect("a share");
    assert_eq!(share.tenant_id, acme.id.to_string());

    let change = |etag: &str| {
        let limits = v1::TenantLimits { requests_per_minute: 100, ..Default::default() };
        let plan =
            v1::Plan { name: made.name.clone(), etag: etag.to_owned(), limits: Some(limits), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["limits".into()] });
        v1::UpdatePlanRequest { plan: Some(plan), update_mask }
    };
    let changed = plans.update_plan(change(&made.etag)).await.expect("changes").into_inner();
    assert_eq!((changed.share, changed.limits.expect("limits").requests_per_minute), (made.share, 100));
    let stale = fault(&plans.update_plan(change(&made.etag)).await.expect_err("somebody else was faster"));
    assert_eq!(stale.reason, Reason::EtagMismatch);
    within(async { while platform.generate(&acme.key, ask("base")).await.is_err() {} }).await;
    let share = worker.requests().last().and_then(|request| request.share.clone()).expect("a share");
    assert_eq!((share.weight, share.priority), (3, 2));

    let used = plans.delete_plan(v1::DeletePlanRequest { name: "plans/gold".into() }).await.expect_err("acme has it");
    assert_eq!(fault(&used).reason, Reason::FailedPrecondition);
    platform.stop().await;
}
