//! Which limit would decide, and what other limits would have refused.

use std::time::Duration;

use domain::Reason;
use proto::v1::{self, limit_service_client::LimitServiceClient, try_limits_request::Limits};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, ask, fault},
};

type Client = LimitServiceClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Bearer>>;

fn limits(platform: &Platform, token: &str) -> Client {
    let channel = platform.channel(platform.gateway.admin_addr);
    LimitServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
}

fn explain(name: &str) -> v1::ExplainLimitsRequest {
    v1::ExplainLimitsRequest { name: name.to_owned(), model: "base".to_owned(), input_tokens: 10, max_tokens: 10 }
}

fn state<'a>(explained: &'a v1::ExplainLimitsResponse, limit: &str) -> &'a v1::LimitState {
    explained.limits.iter().find(|state| state.limit == limit).expect("the limit is set")
}

#[tokio::test]
async fn what_is_explained_is_what_then_happens_and_explaining_changes_nothing() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let two = v1::TenantLimits { requests_per_minute: 2, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", two).await;
    let mut own = platform.inference(&acme.key);
    for used in 0..2 {
        for _ in 0..5 {
            let explained = own.explain_limits(explain("")).await.expect("explains").into_inner();
            assert_eq!((explained.admitted, explained.room_tokens, explained.decided_by.as_str()), (true, 10, ""));
            let requests = state(&explained, "requests_per_minute");
            assert_eq!((requests.most, requests.used, requests.reserved, requests.remaining), (2, used, 0, 2 - used));
            let input = state(&explained, "input_tokens_per_minute");
            assert_eq!((input.used, input.needed), (10 * used, 10));
            assert_eq!(requests.refills_after.is_some(), used > 0);
        }
        platform.generate(&acme.key, ask("base")).await.expect("admitted, as explained");
    }
    let explained = own.explain_limits(explain("")).await.expect("explains").into_inner();
    assert_eq!((explained.admitted, explained.room_tokens), (false, 0));
    assert_eq!(explained.decided_by, "requests_per_minute");
    let wait = Duration::try_from(explained.retry_after.expect("it passes")).expect("a time to come");
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("refused, as explained");
    assert_eq!(refused.reason, Reason::RateLimited);
    let hint = refused.retry_hint().expect("a hint");
    assert!(hint <= wait && wait - hint < Duration::from_secs(20), "{hint:?} a moment after {wait:?}");

    let named = own.explain_limits(explain("tenants/acme")).await.expect_err("the public door takes no name");
    assert_eq!(fault(&named).reason, Reason::InvalidRequest);
    for token in [OPERATOR, &acme.admin] {
        let explained = limits(&platform, token).explain_limits(explain("tenants/acme")).await.expect("explains");
        assert_eq!(explained.into_inner().decided_by, "requests_per_minute");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_keys_own_limit_decides_for_it_and_not_for_the_tenant() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    let own = v1::KeyLimits { output_tokens_per_minute: 4, ..v1::KeyLimits::default() };
    let request = v1::CreateApiKeyRequest {
        parent: "tenants/acme".to_owned(),
        api_key: Some(v1::ApiKey { role: v1::Role::Inference.into(), limits: Some(own), ..v1::ApiKey::default() }),
    };
    let key = platform.keys(OPERATOR).create_api_key(request).await.expect("makes a key").into_inner();
    let name = key.api_key.expect("a key").name;
    let mut admin = limits(&platform, &acme.admin);
    let of_key = admin.explain_limits(explain(&name)).await.expect("explains").into_inner();
    assert_eq!((of_key.admitted, of_key.room_tokens), (true, 4));
    assert_eq!(of_key.decided_by, "key.output_tokens_per_minute");
    let of_tenant = admin.explain_limits(explain("tenants/acme")).await.expect("explains").into_inner();
    assert_eq!((of_tenant.room_tokens, of_tenant.decided_by.as_str()), (10, ""));

    for name in ["tenants/acme", &name] {
        let foreign = limits(&platform, &rival.admin).explain_limits(explain(name)).await.expect_err("not its own");
        assert_eq!(fault(&foreign).reason, Reason::NotFound);
    }
    let refused = limits(&platform, &acme.key).explain_limits(explain("tenants/acme")).await.expect_err("no admin");
    assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    platform.stop().await;
}

#[tokio::test]
async fn other_limits_are_tried_on_what_is_on_record() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start_with(&[&worker], "limits.try_requests_max = 3").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    for _ in 0..3 {
        platform.generate(&acme.key, ask("base")).await.expect("answers");
    }
    crate::platform::within(async { while platform.usage(&acme).await.len() < 3 {} }).await;
    let mut admin = limits(&platform, &acme.admin);
    let of = |name: &str, requests_per_minute, input_tokens_per_minute| {
        let limits = v1::TenantLimits { requests_per_minute, input_tokens_per_minute, ..v1::TenantLimits::default() };
        v1::TryLimitsRequest { name: name.to_owned(), limits: Some(Limits::Tenant(limits)) }
    };
    let same = admin.try_limits(of("tenants/acme", 0, 0)).await.expect("tries").into_inner();
    assert_eq!((same.requests, same.refused, same.truncated), (3, 0, false));
    assert!(same.effects.is_empty());
    let fewer = admin.try_limits(of("tenants/acme", 1, 0)).await.expect("tries").into_inner();
    assert_eq!((fewer.requests, fewer.refused, fewer.tokens), (3, 2, 22));
    let [effect] = &fewer.effects[..] else { panic!("one limit has refused: {fewer:?}") };
    assert_eq!((effect.limit.as_str(), effect.refused, effect.first_over), ("requests_per_minute", 2, 1));
    let recorded = platform.usage(&acme).await;
    let known = recorded.iter().any(|record| record.request.to_string() == effect.first_request_id);
    assert!(known && effect.first_time.is_some());
    let both = admin.try_limits(of("tenants/acme", 1, 15)).await.expect("tries").into_inner();
    assert_eq!((both.refused, both.effects.len()), (2, 2), "every limit in the way is counted");

    platform.generate(&acme.key, ask("base")).await.expect("answers: a trial changes nothing");
    crate::platform::within(async { while platform.usage(&acme).await.len() < 4 {} }).await;
    let newest = admin.try_limits(of("tenants/acme", 1, 0)).await.expect("tries").into_inner();
    assert_eq!((newest.requests, newest.refused, newest.truncated), (3, 2, true));

    let whole = limits(&platform, OPERATOR).try_limits(of("plans/default", 1, 0)).await.expect("tries").into_inner();
    assert_eq!((whole.requests, whole.refused), (3, 2));
    let refused = admin.try_limits(of("plans/default", 1, 0)).await.expect_err("plans are the operator's");
    assert_eq!(fault(&refused).reason, Reason::NotFound);
    platform.stop().await;
}
