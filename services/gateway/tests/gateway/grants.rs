//! Answers are granted step by step, and none gets a token that was not reserved.

use domain::Reason;
use proto::v1;
use store::{FinishReason, Outcome};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Platform, ask},
};

const STEPS_OF_FOUR: &str = "[generate]\ngrant_tokens = 4\n";

/// Ten tokens, one at a time.
fn ten() -> Vec<Act> {
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    letters.map(Act::Say).into_iter().chain([Act::Finish]).collect()
}

#[tokio::test]
async fn a_long_answer_is_extended_while_it_streams() {
    let worker = FakeWorker::start("one", ten()).await;
    let platform = Platform::start_with(&[&worker], STEPS_OF_FOUR).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let answer = platform.generate(&acme.key, ask("base")).await.expect("answers");
    assert_eq!((answer.text.as_str(), answer.tokens), ("abcdefghij", 10));
    assert_eq!((answer.finish.reason(), &answer.finish.limits[..]), (v1::FinishReason::Length, &[][..]));
    assert_eq!(worker.requests()[0].granted_tokens, 4);
    let granted: Vec<_> = worker.extensions().iter().map(|said| (said.granted_tokens, said.last)).collect();
    assert_eq!(granted, [(8, false), (10, false)]);
    platform.stop().await;
}

#[tokio::test]
async fn an_answer_ends_with_its_limit_and_not_one_token_later() {
    let worker = FakeWorker::start("one", ten()).await;
    let platform = Platform::start_with(&[&worker], STEPS_OF_FOUR).await;
    let limits = v1::TenantLimits { output_tokens_per_minute: 6, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let answer = platform.generate(&acme.key, ask("base")).await.expect("the beginning of an answer");
    assert_eq!((answer.text.as_str(), answer.finish.reason()), ("abcdef", v1::FinishReason::Budget));
    assert_eq!(answer.finish.limits, ["output_tokens_per_minute"]);
    assert_eq!(worker.extensions().last().map(|said| (said.granted_tokens, said.last)), Some((6, true)));
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].completion_tokens, records[0].outcome), (6, Outcome::Finished(FinishReason::Budget)));
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("nothing is left");
    assert_eq!(refused.reason, Reason::RateLimited);
    assert!(refused.retry_hint().is_some());
    platform.stop().await;
}

#[tokio::test]
async fn a_request_begins_with_what_there_is() {
    let worker = FakeWorker::start("one", ten()).await;
    let platform = Platform::start_with(&[&worker], STEPS_OF_FOUR).await;
    let limits = v1::TenantLimits { output_tokens_per_minute: 3, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let answer = platform.generate(&acme.key, ask("base")).await.expect("three tokens of it");
    assert_eq!((answer.text.as_str(), answer.finish.reason()), ("abc", v1::FinishReason::Budget));
    assert_eq!(worker.requests()[0].granted_tokens, 3);
    platform.stop().await;
}

#[tokio::test]
async fn what_was_not_used_of_a_grant_is_there_for_the_next_request() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start_with(&[&worker], STEPS_OF_FOUR).await;
    let limits = v1::TenantLimits { output_tokens_per_minute: 5, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    for granted in [4, 4, 3, 2, 1] {
        platform.generate(&acme.key, ask("base")).await.expect("answers");
        assert_eq!(worker.requests().last().expect("a request").granted_tokens, granted);
    }
    assert!(platform.generate(&acme.key, ask("base")).await.is_err());
    platform.stop().await;
}

#[tokio::test]
async fn an_extension_that_is_lost_is_sent_again() {
    let worker = FakeWorker::start("one", ten()).await;
    let platform = Platform::start_with(&[&worker], STEPS_OF_FOUR).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    worker.loses_extensions(true);
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    let mut text = String::new();
    while text.len() < 3 {
        text += &stream.message().await.expect("fine").expect("a step").text;
    }
    worker.loses_extensions(false);
    while let Some(message) = stream.message().await.expect("fine") {
        text += &message.text;
    }
    assert_eq!(text, "abcdefghij");
    platform.stop().await;
}
