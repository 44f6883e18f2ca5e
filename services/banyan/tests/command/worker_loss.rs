//! Streams while their worker is killed, told to stop, or stands still: processes of their own, the real engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chassis::bearer;
use proto::{
    v1::{self, inference_service_client::InferenceServiceClient, response_format::Format},
    worker::{GetStatusRequest, worker_service_client::WorkerServiceClient},
};
use tokio::sync::Notify;
use tonic::{Request, transport::Endpoint};

use crate::{
    command::{repository, text},
    processes::{Deployment, Process},
};

const STREAMS: usize = 64;
const TOKENS: u32 = 48;
const DEADLINE: Duration = Duration::from_secs(120);

/// What a client has seen of an answer.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    text: String,
    tokens: Vec<u32>,
    reason: i32,
    completion_tokens: u32,
}

/// How far all streams have got.
#[derive(Default)]
struct Progress {
    begun: AtomicUsize,
    changed: Notify,
}

/// Each has its own seed; every fourth has a form to keep to, every third is asked of the base.
fn request(n: usize) -> v1::GenerateRequest {
    let form = v1::ResponseFormat { format: Some(Format::Regex("([a-z]{2,9} ){5}end".to_owned())) };
    v1::GenerateRequest {
        model: if n % 3 == 2 { "base".to_owned() } else { "acme/claims".to_owned() },
        input: Some(v1::generate_request::Input::Prompt(format!("Question {n}: what does E-17 mean?"))),
        sampling: Some(v1::Sampling { seed: Some(n as u64), temperature: Some(0.9), ..v1::Sampling::default() }),
        max_tokens: TOKENS,
        ignore_eos: !n.is_multiple_of(4),
        response_format: n.is_multiple_of(4).then_some(form),
        ..v1::GenerateRequest::default()
    }
}

async fn answer(url: String, key: String, n: usize, progress: Arc<Progress>) -> Result<(Seen, String), tonic::Status> {
    let channel = Endpoint::from_shared(url).expect("an address").connect_lazy();
    let mut request = Request::new(request(n));
    request.metadata_mut().insert("authorization", bearer::value(&key).expect("a header"));
    let mut stream = InferenceServiceClient::new(channel).generate(request).await?.into_inner();
    let (mut seen, mut worker) = (Seen::default(), String::new());
    while let Some(part) = stream.message().await? {
        let before = seen.tokens.len();
        seen.text += &part.text;
        seen.tokens.extend(part.tokens.iter().map(|token| token.id));
        if before < 2 && seen.tokens.len() >= 2 {
            progress.begun.fetch_add(1, Ordering::SeqCst);
            progress.changed.notify_one();
        }
        if let Some(finish) = part.finish {
            seen.reason = finish.reason;
            seen.completion_tokens = finish.usage.expect("usage").completion_tokens;
            worker = finish.receipt.expect("a receipt").worker;
        }
    }
    Ok((seen, worker))
}

/// All streams at the same time; `fault` happens once so many of them have begun.
fn round(
    deployment: &Deployment,
    key: &str,
    begun: usize,
    fault: impl FnOnce(),
) -> Vec<Result<(Seen, String), tonic::Status>> {
    let progress = Arc::new(Progress::default());
    deployment.runtime().block_on(async {
        let answers = (0..STREAMS).map(|n| {
            let answer = answer(deployment.url(), key.to_owned(), n, Arc::clone(&progress));
            tokio::spawn(tokio::time::timeout(DEADLINE, answer))
        });
        let answers: Vec<_> = answers.collect();
        tokio::time::timeout(DEADLINE, async {
            while progress.begun.load(Ordering::SeqCst) < begun {
                progress.changed.notified().await;
            }
        })
        .await
        .expect("they begin");
        fault();
        let ended = futures::future::join_all(answers).await;
        ended.into_iter().map(|answer| answer.expect("no panic").expect("in time")).collect()
    })
}

/// Until it has loaded its base.
fn wait_for(deployment: &Deployment, worker: &Process) {
    let endpoint = Endpoint::from_shared(worker.url()).expect("an address");
    let ask = || {
        let mut request = Request::new(GetStatusRequest {});
        request.metadata_mut().insert("authorization", bearer::value("shared").expect("a header"));
        let mut client = WorkerServiceClient::new(endpoint.connect_lazy());
        async move { client.get_status(request).await }
    };
    let end = Instant::now() + DEADLINE;
    deployment.runtime().block_on(async {
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        while let Err(status) = ask().await {
            assert!(Instant::now() < end, "{status:?}");
            tries.tick().await;
        }
    });
}

/// Records follow the ends of answers by a moment; each comes once.
fn wait_for_records(deployment: &Deployment, count: i64) {
    let end = Instant::now() + DEADLINE;
    while deployment.recorded() < count {
        assert!(Instant::now() < end, "every answer is recorded");
    }
    assert_eq!(deployment.recorded(), count, "once");
}

#[test]
fn sixty_four_streams_survive_the_loss_of_their_worker_with_the_same_text() {
    // Everything starts at once on a machine that may be busy: Redis has time to answer.
    let gateway = [
        "workers.keepalive_interval_ms=500",
        "workers.keepalive_timeout_ms=1000",
        "workers.resume_ms=60000",
        "limits.redis_timeout_ms=10000",
    ];
    let mut deployment = Deployment::start_with(&gateway, &["listen.drain_ms=100"]);
    // What a gateway has borrowed ahead holds places too: there are more of them than streams.
    deployment.run(&["tenant", "create", "acme", "--concurrent-requests", "200"]).ok();
    let key = deployment.run(&["key", "create", "--tenant", "acme"]).ok().trim().to_owned();
    let dir = repository("adapters/industries/finance");
    let push = ["adapter", "push", text(&dir), "--tenant", "acme", "--name", "claims", "--alias", "live"];
    deployment.eventually("a worker takes the adapter", &push).ok();
    deployment.workers.iter().for_each(|worker| wait_for(&deployment, worker));

    let undisturbed: Vec<_> = round(&deployment, &key, 0, || ())
        .into_iter()
        .map(|answer| answer.expect("without a fault, all end well").0)
        .collect();
    println!("{:<6} {:>7} {:>5} {:>9} {:>8}", "fault", "streams", "lost", "different", "moved");
    let mut recorded = STREAMS as i64;
    wait_for_records(&deployment, recorded);
    for (number, fault) in ["KILL", "TERM", "STOP"].into_iter().enumerate() {
        let victim = number % 2;
        let answers = round(&deployment, &key, STREAMS / 2, || deployment.workers[victim].signal(fault));
        let lost = answers.iter().filter(|answer| answer.is_err()).count();
        let with_expected = answers.iter().zip(&undisturbed);
        let ended: Vec<_> = with_expected
            .filter_map(|(answer, expected)| answer.as_ref().ok().map(|(seen, worker)| (seen, worker, expected)))
            .collect();
        let different = ended.iter().filter(|(seen, _, expected)| seen != expected).count();
        let name = format!("worker-{victim}");
        let moved = ended.iter().filter(|(_, worker, _)| **worker != name).count();
        println!("{fault:<6} {STREAMS:>7} {lost:>5} {different:>9} {moved:>8}");
        let first = answers.iter().find_map(|answer| answer.as_ref().err());
        assert_eq!((lost, different), (0, 0), "{first:?}");
        recorded += STREAMS as i64;
        wait_for_records(&deployment, recorded);
        deployment.workers[victim].kill();
        deployment.workers[victim].restart();
        wait_for(&deployment, &deployment.workers[victim]);
    }
}
