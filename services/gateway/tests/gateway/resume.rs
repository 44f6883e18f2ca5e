//! A stream survives the death of its worker: another one goes on, and the client sees no difference.

use std::time::{Duration, Instant};

use domain::Reason;
use proto::{v1, worker as wire};
use store::{FinishReason, Outcome};
use tonic::Request;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Platform, ask, collect, within},
};

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// Ten tokens, and what happens behind so many of them, unless another worker has begun.
fn ten(after: usize, fault: Act) -> Vec<Act> {
    let mut acts: Vec<_> = TEN.map(Act::Say).to_vec();
    acts.insert(after, Act::AtFirst(Box::new(fault)));
    acts.push(Act::Finish);
    acts
}

async fn two(acts: &[Act]) -> [FakeWorker; 2] {
    [FakeWorker::start("one", acts.to_vec()).await, FakeWorker::start("two", acts.to_vec()).await]
}

/// The one that went on, and what it was asked.
fn heir<'a>(workers: &'a [FakeWorker; 2]) -> (&'a FakeWorker, wire::GenerateRequest) {
    let resumed = |worker: &'a FakeWorker| {
        let request = worker.requests().into_iter().find(|request| !request.generated.is_empty());
        request.map(|request| (worker, request))
    };
    workers.iter().find_map(resumed).expect("somebody went on")
}

#[tokio::test]
async fn whatever_ends_a_stream_early_another_worker_goes_on_with_it() {
    let faults = [
        Act::Break,
        Act::End,
        Act::Fail(Reason::Internal),
        Act::Fail(Reason::ShuttingDown),
        Act::Fail(Reason::WorkerUnavailable),
        Act::Hang,
    ];
    for fault in faults {
        let workers = two(&ten(3, fault)).await;
        let platform = Platform::start_with(&[&workers[0], &workers[1]], "[workers]\nstep_timeout_ms = 300\n").await;
        let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
        let answer = platform.generate(&acme.key, ask("base")).await.expect("the whole answer");
        assert_eq!((answer.text.as_str(), answer.tokens), ("abcdefghij", 10));
        let (heir, asked) = heir(&workers);
        assert_eq!((asked.generated.as_slice(), asked.text_sent_bytes), (&[97, 98, 99][..], 3));
        assert_eq!(answer.finish.receipt.expect("a receipt").worker, heir.name);
        assert_eq!(answer.finish.usage.expect("usage").completion_tokens, 10);
        let records = platform.usage_of(&acme, 1).await;
        assert_eq!(records.len(), 1, "recorded once");
        assert_eq!((records[0].completion_tokens, &records[0].worker), (10, &heir.name.to_owned()));
        assert_eq!(records[0].outcome, Outcome::Finished(FinishReason::Length));
        platform.stop().await;
    }
}

#[tokio::test]
async fn an_answer_survives_its_worker_at_every_place_and_keeps_to_its_grants() {
    for after in 1..=10 {
        let workers = two(&ten(after, Act::Break)).await;
        let platform = Platform::start_with(&[&workers[0], &workers[1]], "[generate]\ngrant_tokens = 4\n").await;
        let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
        let answer = platform.generate(&acme.key, ask("base")).await.expect("the whole answer");
        assert_eq!((answer.text.as_str(), answer.tokens), ("abcdefghij", 10), "after {after}");
        let (_, asked) = heir(&workers);
        assert_eq!(asked.generated.len(), after);
        assert!(asked.granted_tokens >= after as u32 && asked.granted_tokens <= 10, "{}", asked.granted_tokens);
        platform.stop().await;
    }
}

#[tokio::test]
async fn a_limit_ends_a_resumed_answer_as_it_would_have_ended_it_before() {
    // Behind the last token that there is, the worker that goes on must be told that no more will come.
    for after in 1..=5 {
        let workers = two(&ten(after, Act::Break)).await;
        let platform = Platform::start_with(&[&workers[0], &workers[1]], "[generate]\ngrant_tokens = 4\n").await;
        let limits = v1::TenantLimits { output_tokens_per_minute: 6, ..v1::TenantLimits::default() };
        let acme = platform.tenant("acme", limits).await;
        let answer = platform.generate(&acme.key, ask("base")).await.expect("the beginning of an answer");
        assert_eq!((answer.text.as_str(), answer.finish.reason()), ("abcdef", v1::FinishReason::Budget), "{after}");
        assert_eq!(answer.finish.limits, ["output_tokens_per_minute"], "{after}");
        let records = platform.usage_of(&acme, 1).await;
        assert_eq!((records[0].completion_tokens, records[0].outcome), (6, Outcome::Finished(FinishReason::Budget)));
        let refused = platform.generate(&acme.key, ask("base")).await.err().expect("nothing is left");
        assert_eq!(refused.reason, Reason::RateLimited);
        platform.stop().await;
    }
}

#[tokio::test]
async fn when_nobody_can_go_on_the_client_is_told_in_time() {
    let workers = two(&ten(3, Act::Break)).await;
    workers.iter().for_each(FakeWorker::takes_nothing_over);
    let platform = Platform::start_with(&[&workers[0], &workers[1]], "[workers]\nresume_ms = 400\n").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    assert_eq!(within(stream.message()).await.expect("a step").expect("a step").text, "a");
    let start = Instant::now();
    let refused = collect(stream).await.err().expect("nobody");
    assert_eq!(refused.reason, Reason::WorkerUnavailable);
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!(records[0].outcome, Outcome::Failed);
    platform.stop().await;
}

#[tokio::test]
async fn a_deadline_is_kept_while_an_answer_waits_to_be_resumed() {
    let workers = two(&ten(3, Act::Break)).await;
    workers.iter().for_each(FakeWorker::takes_nothing_over);
    let platform = Platform::start_with(&[&workers[0], &workers[1]], "[workers]\nresume_ms = 60000\n").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut request = Request::new(ask("base"));
    request.set_timeout(Duration::from_millis(1_500));
    let mut stream = platform.inference(&acme.key).generate(request).await.expect("begins").into_inner();
    assert_eq!(within(stream.message()).await.expect("a step").expect("a step").text, "a");
    let start = Instant::now();
    let refused = collect(stream).await.err().expect("cut off");
    assert_eq!(refused.reason, Reason::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert_eq!(platform.usage_of(&acme, 1).await[0].outcome, Outcome::DeadlineExceeded);
    platform.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_after_a_move_frees_the_second_worker() {
    let mut acts = ten(3, Act::Break);
    acts.insert(5, Act::Hang);
    let mut workers = two(&acts).await;
    let platform = Platform::start(&[&workers[0], &workers[1]]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    for letter in &TEN[..4] {
        assert_eq!(within(stream.message()).await.expect("a step").expect("a step").text, *letter);
    }
    drop(stream);
    let second = usize::from(heir(&workers).0.name == "two");
    workers[second].dropped(1).await;
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::Cancelled, 4));
    platform.stop().await;
}

#[tokio::test]
async fn sixty_four_streams_survive_the_same_worker() {
    let workers = two(&ten(5, Act::End)).await;
    let platform = Platform::start(&[&workers[0], &workers[1]]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let answers = (0..64).map(|_| platform.generate(&acme.key, ask("base")));
    for answer in futures::future::join_all(answers).await {
        assert_eq!(answer.expect("the whole answer").text, "abcdefghij");
    }
    let records = platform.usage_of(&acme, 64).await;
    assert_eq!(records.iter().map(|record| record.completion_tokens).sum::<u64>(), 640);
    platform.stop().await;
}
