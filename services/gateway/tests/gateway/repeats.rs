//! Requests with a `client_request_id`: answered once, whoever asks how often, and billed once.

use std::time::Duration;

use domain::{Detail, Digest, Fault, Reason, RequestId};
use futures::future::join_all;
use prost::Message as _;
use proto::v1;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use store::{Claimed, ClientRequest, MostKept, NewRun};
use uuid::Uuid;

use crate::{
    fake_worker::{Act, FakeWorker},
    http::{request, send},
    platform::{Platform, TestTenant, ask, inference_key, within},
};

fn named(id: &str) -> v1::GenerateRequest {
    v1::GenerateRequest { client_request_id: id.to_owned(), ..ask("base") }
}

fn says() -> Vec<Act> {
    vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]
}

#[tokio::test]
async fn of_repeats_at_the_same_time_one_reaches_the_worker_and_all_get_its_answer() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let answers = join_all((0..16).map(|_| platform.generate(&acme.key, named("a")))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("answers")).collect();
    assert_eq!(worker.requests().len(), 1);
    for answer in &answers {
        assert_eq!((answer.text.as_str(), answer.tokens), ("abcde", 5));
        assert_eq!(answer.finish, answers[0].finish, "receipt, seed and usage too");
    }
    // And after the end.
    let later = platform.generate(&acme.key, named("a")).await.expect("replayed");
    assert_eq!((later.text.as_str(), later.tokens, &later.finish), ("abcde", 5, &answers[0].finish));
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((worker.requests().len(), records.len()), (1, 1), "billed once");
    assert_eq!(records[0].request.to_string(), later.finish.receipt.expect("a receipt").request_id);
    platform.stop().await;
}

#[tokio::test]
async fn a_name_stands_for_one_request_of_one_key() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    platform.generate(&acme.key, named("a")).await.expect("answers");
    for other in [
        v1::GenerateRequest { max_tokens: 11, ..named("a") },
        v1::GenerateRequest { logprobs: Some(0), ..named("a") },
        v1::GenerateRequest { sampling: Some(v1::Sampling { seed: Some(0), ..Default::default() }), ..named("a") },
    ] {
        let refused = platform.generate(&acme.key, other).await.err().expect("refused");
        assert_eq!(refused.reason, Reason::IdempotencyMismatch);
    }
    let other_key = platform.make(&acme, inference_key()).await;
    for key in [&other_key, &rival.key] {
        let other = v1::GenerateRequest { max_tokens: 11, ..named("a") };
        platform.generate(key, other).await.expect("its own name");
    }
    assert_eq!(worker.requests().len(), 3);
    let wrong = platform.generate(&acme.key, named("not one")).await.err().expect("refused");
    assert_eq!(wrong.reason, Reason::InvalidRequest);
    platform.stop().await;
}

#[tokio::test]
async fn an_answer_with_a_name_goes_on_without_its_client_and_is_there_when_it_comes_back() {
    // More than one step after the client has gone: its last one is a grant away.
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Say("fghij"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(named("a")).await.expect("begins").into_inner();
    within(stream.message()).await.expect("a step");
    drop(stream);
    let answer = platform.generate(&acme.key, named("a")).await.expect("answers");
    assert_eq!((answer.text.as_str(), worker.requests().len()), ("abcdefghij", 1));
    assert_eq!(platform.usage_of(&acme, 1).await.len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn a_repeat_over_http_is_the_same_request() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let bearer = format!("Bearer {}", acme.key);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "a")];
    let asked = json!({"model": "base", "prompt": "0123456789", "max_tokens": 10});
    let call = |asked: &serde_json::Value| request("POST", "/v1/completions", &headers, asked.to_string());
    let first = send(&platform, call(&asked)).await;
    let second = send(&platform, call(&asked)).await;
    assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), ("", "true"));
    assert_eq!((&first.json()["id"], &first.json()["choices"]), (&second.json()["id"], &second.json()["choices"]));
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    assert!(send(&platform, call(&streamed)).await.events()[0].contains("abcde"), "all at once");
    let mut other = asked;
    other["max_tokens"] = json!(11);
    let refused = send(&platform, call(&other)).await.refused();
    assert_eq!((refused.0, refused.1.as_str()), (422, "idempotency_mismatch"));
    assert_eq!(worker.requests().len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn what_failed_is_forgotten_and_a_repeat_runs_anew() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Fail(Reason::AdapterLoad)]).await;
    let platform = Platform::start(&[&worker]).await;
    let one_at_a_time = v1::TenantLimits { concurrent_requests: 1, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", one_at_a_time).await;
    let failed = platform.generate(&acme.key, named("a")).await.err().expect("fails");
    assert_eq!(failed.reason, Reason::AdapterLoad);
    worker.will(vec![Act::Say("ab"), Act::Hang]);
    let blocking = platform.inference(&acme.key).generate(ask("base")).await.expect("begins");
    let refused = platform.generate(&acme.key, named("a")).await.err().expect("refused");
    assert_eq!(refused.reason, Reason::RateLimited, "a refusal is one at once, not in the stream");
    drop(blocking);
    worker.will(says());
    within(async {
        // The slot comes back when the gateway has seen that the client is gone.
        while platform.generate(&acme.key, named("a")).await.is_err() {}
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn a_name_is_free_again_when_its_window_is_over_and_nothing_of_it_is_left() {
    let worker = FakeWorker::start("one", says()).await;
    let settings = "[idempotency]\nwindow_ms = 400\nsweep_interval_ms = 50";
    let platform = Platform::start_with(&[&worker], settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    platform.generate(&acme.key, named("a")).await.expect("answers");
    within(async {
        while worker.requests().len() < 2 {
            platform.generate(&acme.key, named("a")).await.expect("answers");
        }
    })
    .await;
    // Another request of that name is no mismatch any more.
    within(async {
        while platform.generate(&acme.key, v1::GenerateRequest { max_tokens: 11, ..named("a") }).await.is_err() {}
    })
    .await;
    within(async { while platform.store.platform().delete_expired_client_requests(10).await.expect("deletes") > 0 {} })
        .await;
    platform.stop().await;
}

/// As another gateway has it.
async fn claim(platform: &Platform, acme: &TestTenant, run: RequestId, claim: Duration) -> ClientRequest {
    let bytes = ask("base").encode_to_vec();
    let request = ClientRequest { key: acme_key(platform, acme).await, id: "a".parse().expect("an id") };
    let new = NewRun {
        run,
        fingerprint: Digest::new(Sha256::digest(bytes).into()),
        seed: u64::MAX - 1,
        claim,
        window: Duration::from_secs(60),
        most: MostKept { requests: 9, bytes: 1 << 30, answer_bytes: 1 },
    };
    let claimed = platform.store.tenant(acme.id).claim_client_request(&request, new).await.expect("claims");
    assert_eq!(claimed, Claimed::Own { seed: u64::MAX - 1 });
    request
}

async fn acme_key(platform: &Platform, acme: &TestTenant) -> domain::ApiKeyId {
    let public_id = acme.key[3..15].to_owned();
    platform.store.tenant(acme.id).get_api_key(&public_id).await.expect("is there").id
}

#[tokio::test]
async fn a_repeat_waits_for_the_answer_of_another_gateway() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start_with(&[&worker], "[idempotency]\npoll_ms = 20").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let sample = platform.generate(&acme.key, ask("base")).await.expect("answers").finish;
    let run = RequestId::new(Uuid::now_v7());
    let request = claim(&platform, &acme, run, Duration::from_secs(60)).await;
    let (answer, ()) = tokio::join!(platform.generate(&acme.key, named("a")), async {
        let told = v1::GenerateResponse { text: "elsewhere".into(), tokens: Vec::new(), finish: Some(sample) };
        let scope = platform.store.tenant(acme.id);
        assert!(scope.answer_client_request(&request, run, &told.encode_to_vec()).await.expect("stores"));
    });
    let answer = answer.expect("answers");
    assert_eq!((answer.text.as_str(), answer.finish.seed), ("elsewhere", u64::MAX - 1));
    assert_eq!(answer.finish.receipt.expect("a receipt").request_id, run.to_string());
    assert_eq!(worker.requests().len(), 1, "only the sample");
    platform.stop().await;
}

#[tokio::test]
async fn when_the_gateway_that_answers_dies_a_repeat_runs_anew_with_the_same_seed() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start_with(&[&worker], "[idempotency]\npoll_ms = 20").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let dead = RequestId::new(Uuid::now_v7());
    let request = claim(&platform, &acme, dead, Duration::from_millis(300)).await;
    let answers = join_all((0..4).map(|_| platform.generate(&acme.key, named("a")))).await;
    for answer in answers {
        let answer = answer.expect("answers");
        assert_eq!((answer.text.as_str(), answer.finish.seed), ("abcde", u64::MAX - 1));
        assert_ne!(answer.finish.receipt.expect("a receipt").request_id, dead.to_string());
    }
    assert_eq!(worker.requests().len(), 1);
    // Should it live after all, its answer is too late.
    let scope = platform.store.tenant(acme.id);
    assert!(!scope.answer_client_request(&request, dead, b"late").await.expect("asks"));
    assert!(!scope.renew_client_request(&request, dead, Duration::from_secs(1)).await.expect("asks"));
    platform.stop().await;
}

#[tokio::test]
async fn an_answer_longer_than_is_kept_is_refused_and_so_are_too_many_at_once() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start_with(&[&worker], "[idempotency]\nanswer_bytes_max = 40\nrunning_max = 1").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let refused = platform.generate(&acme.key, named("a")).await.err().expect("refused");
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    worker.will(vec![Act::Say("a"), Act::Hang]);
    let running = platform.inference(&acme.key).generate(named("b")).await.expect("begins").into_inner();
    let refused = platform.generate(&acme.key, named("c")).await.err().expect("refused");
    assert_eq!((refused.reason, refused.retry_hint().is_some()), (Reason::QueueFull, true));

    drop(running);
    platform.stop().await;
}

fn names(refused: &Fault, limit: &str) -> bool {
    refused.reason == Reason::RateLimited
        && refused.retry_hint().is_some()
        && refused.details.iter().any(|detail| matches!(detail, Detail::Quota { subject, .. } if subject == limit))
}

#[tokio::test]
async fn what_is_kept_of_a_tenant_is_bounded_and_no_answer_is_forgotten_for_a_new_one() {
    let worker = FakeWorker::start("one", says()).await;
    let settings = "[idempotency]\nrequests_per_tenant_max = 2\nbytes_per_tenant_max = 10000000";
    let platform = Platform::start_with(&[&worker], settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    for name in ["a", "b"] {
        platform.generate(&acme.key, named(name)).await.expect("answers");
    }
    let refused = platform.generate(&acme.key, named("c")).await.err().expect("refused");
    assert!(names(&refused, "idempotency.requests_per_tenant_max"), "{refused:?}");
    assert!(refused.message.contains("without a client_request_id"), "it says what to do: {refused}");
    let bearer = format!("Bearer {}", acme.key);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "c")];
    let asked = json!({"model": "base", "prompt": "0123456789", "max_tokens": 10});
    let reply = send(&platform, request("POST", "/v1/completions", &headers, asked.to_string())).await;
    assert_eq!((reply.status, reply.refused().1.as_str()), (429, "rate_limit_exceeded"));
    for name in ["a", "b"] {
        platform.generate(&acme.key, named(name)).await.expect("replayed");
    }
    platform.generate(&acme.key, ask("base")).await.expect("without a name");
    platform.generate(&rival.key, named("a")).await.expect("another tenant's");
    assert_eq!(worker.requests().len(), 4, "the refused one reached no worker");
    platform.stop().await;
}

#[tokio::test]
async fn replays_have_a_rate_limit_of_their_own() {
    let worker = FakeWorker::start("one", says()).await;
    let platform = Platform::start_with(&[&worker], "[idempotency]\nreplays_per_minute = 2").await;
    // Of its requests none is left after two: replays are not among them.
    let two_a_minute = v1::TenantLimits { requests_per_minute: 2, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", two_a_minute).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    for key in [&acme.key, &rival.key] {
        platform.generate(key, named("a")).await.expect("answers");
    }
    for _ in 0..2 {
        platform.generate(&acme.key, named("a")).await.expect("replayed");
    }
    let refused = platform.generate(&acme.key, named("a")).await.err().expect("refused");
    assert!(names(&refused, "idempotency.replays_per_minute"), "{refused:?}");
    assert!(refused.retry_hint().is_some_and(|wait| wait <= Duration::from_secs(30)), "{refused:?}");
    platform.generate(&acme.key, named("b")).await.expect("it is no replay");
    platform.generate(&rival.key, named("a")).await.expect("another tenant's");
    platform.stop().await;
}
