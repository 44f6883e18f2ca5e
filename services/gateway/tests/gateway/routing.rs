//! Which worker a request goes to, seen from the workers.

use std::collections::HashSet;

use proto::{v1, worker as wire};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Platform, ask, within},
};

fn quick() -> Vec<Act> {
    vec![Act::Say("a"), Act::Finish]
}

fn counts(workers: &[FakeWorker]) -> Vec<usize> {
    workers.iter().map(|worker| worker.requests().len()).collect()
}

#[tokio::test]
async fn a_worker_that_drains_gets_nothing_new_and_ends_what_it_has() {
    let slow = vec![Act::Say("a"), Act::Say("b"), Act::Finish];
    let workers = [FakeWorker::start("one", slow.clone()).await, FakeWorker::start("two", slow).await];
    let platform = Platform::start(&[&workers[0], &workers[1]]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    let home = counts(&workers).iter().position(|count| *count == 1).expect("one was asked");
    workers[home].tells(wire::Status { draining: true, ..wire::Status::default() });
    within(async {
        while counts(&workers)[1 - home] == 0 {
            platform.generate(&acme.key, ask("base")).await.expect("answers");
        }
    })
    .await;
    let before = counts(&workers)[home];
    for _ in 0..8 {
        platform.generate(&acme.key, ask("base")).await.expect("answers");
    }
    assert_eq!(counts(&workers)[home], before, "nothing new");
    let mut text = String::new();
    while let Some(step) = within(stream.message()).await.expect("goes on") {
        text += &step.text;
    }
    assert_eq!(text, "ab");
    platform.stop().await;
}

#[tokio::test]
async fn what_other_gateways_put_on_a_worker_counts() {
    let workers = [FakeWorker::start("one", quick()).await, FakeWorker::start("two", quick()).await];
    let platform = Platform::start_with(&[&workers[0], &workers[1]], "[workers]\nin_flight_max = 10\n").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    platform.generate(&acme.key, ask("base")).await.expect("answers");
    let home = counts(&workers).iter().position(|count| *count == 1).expect("one was asked");
    workers[home].tells(wire::Status { running: 9, waiting: 1, ..wire::Status::default() });
    within(async {
        while counts(&workers)[1 - home] == 0 {
            platform.generate(&acme.key, ask("base")).await.expect("answers");
        }
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn a_hot_key_gets_more_workers_and_a_cold_one_stays_where_it_is() {
    let hang = vec![Act::Say("a"), Act::Hang];
    let mut workers = Vec::new();
    for name in ["one", "two", "three", "four", "five", "six"] {
        workers.push(FakeWorker::start(name, hang.clone()).await);
    }
    let all: Vec<_> = workers.iter().collect();
    // A share is 10 answers: 30 of one key need three workers.
    let settings = "[workers]\nin_flight_max = 40\nhot_share_percent = 25\n";
    let platform = Platform::start_with(&all, settings).await;
    let limits = v1::TenantLimits { concurrent_requests: 200, ..v1::TenantLimits::default() };
    let hot = platform.tenant("hot", limits).await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(platform.inference(&hot.key).generate(ask("base")).await.expect("begins"));
    }
    let after_hot = counts(&workers);
    let used: Vec<_> = after_hot.iter().copied().filter(|count| *count > 0).collect();
    println!("30 answers of one key at a time, a share is 10: {after_hot:?}");
    assert_eq!(used.len(), 3, "{after_hot:?}");
    assert!(used.iter().all(|count| *count >= 5), "{after_hot:?}");

    // Tenants with one request at a time have one worker each.
    let mut homes = HashSet::new();
    for slug in ["a-co", "b-co", "c-co", "d-co", "e-co", "f-co", "g-co", "h-co"] {
        let tenant = platform.tenant(slug, v1::TenantLimits::default()).await;
        let mut own = HashSet::new();
        for _ in 0..3 {
            let before = counts(&workers);
            drop(platform.inference(&tenant.key).generate(ask("base")).await.expect("begins"));
            own.extend((0..6).filter(|at| counts(&workers)[*at] > before[*at]));
        }
        assert_eq!(own.len(), 1, "{slug}");
        homes.extend(own);
    }
    assert!(homes.len() > 1, "and not all the same");
    drop(streams);
    platform.stop().await;
}

#[tokio::test]
async fn a_worker_behind_a_name_is_found() {
    let worker = FakeWorker::start("one", quick()).await;
    let port = worker.url.rsplit_once(':').expect("a port").1.to_owned();
    let settings = format!("[workers]\nurls = ['dns:///localhost:{port}']\ndiscover_interval_ms = 100\n");
    let platform = Platform::start_with(&[&worker], &settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let answer = platform.generate(&acme.key, ask("base")).await.expect("answers");
    assert_eq!(answer.finish.receipt.expect("a receipt").worker, "one");
    platform.stop().await;
}
