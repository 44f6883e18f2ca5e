//! Whoever goes away, or is too late, costs at most one more step, whether its request is answering or waiting for its
//! adapter. Steps are counted, not time: the engine stands still meanwhile, for an answer that has all that it was
//! granted has nothing to compute.

use std::{path::Path, process::Command};

use proto::worker::Status as WorkerStatus;
use tonic::Streaming;

use super::*;

type Parts = Streaming<GenerateResponse>;

/// A deadline that leaves the time to come where the test wants to be.
const LATE: Duration = Duration::from_secs(4);

/// Answers that are not extended keep their places for as long as the test takes.
async fn patient() -> Served {
    serve_with(|config| {
        config.grant_wait_ms = 600_000;
        config.early_refusal_factor = 0;
        config.engine.fairness.grant_wait_steps = u32::MAX;
    })
    .await
}

async fn status(served: &Served) -> WorkerStatus {
    served.client().get_status(GetStatusRequest {}).await.expect("status").into_inner()
}

/// Waits until two looks see the same number of steps: nothing is computed.
async fn still(served: &Served) -> u64 {
    let mut before = status(served).await.steps_total;
    loop {
        tokio::task::yield_now().await;
        let now = status(served).await.steps_total;
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Waits until the worker has no request, and all that they had is free.
async fn empty(served: &Served) -> WorkerStatus {
    until(|| async {
        let status = status(served).await;
        let leases: u32 = status.residents.iter().map(|resident| resident.leases).sum();
        let free = status.kv_blocks_free + status.kv_blocks_cached == status.kv_blocks_total;
        (status.running, status.waiting, leases) == (0, 0, 0) && free
    })
    .await;
    status(served).await
}

/// An answer with four tokens of four hundred, which waits for a grant.
async fn parked(served: &Served, id: &str, adapter: Option<AdapterPin>, timeout: Option<Duration>) -> Parts {
    let whole = served.request(adapter, 400).await;
    let granted = GenerateRequest { request_id: id.into(), ignore_eos: true, granted_tokens: 4, ..whole };
    let mut parts = send(served, granted, timeout).await;
    let mut tokens = 0;
    while tokens < 4 {
        tokens += parts.message().await.expect("a part").expect("not the end").tokens.len();
    }
    parts
}

/// Only the metadata has the timeout: the client's own timer is not what is tested.
async fn send(served: &Served, request: GenerateRequest, timeout: Option<Duration>) -> Parts {
    let mut request = Request::new(request);
    if let Some(timeout) = timeout {
        request.metadata_mut().insert("grpc-timeout", format!("{}m", timeout.as_millis()).parse().expect("ascii"));
    }
    served.client().generate(request).await.expect("is taken").into_inner()
}

async fn is_late(mut parts: Parts) {
    let ended = parts.message().await.expect_err("too late");
    assert!(matches!(fault_of(&ended).reason, Reason::DeadlineExceeded | Reason::Cancelled), "{ended:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_frees_its_blocks_place_and_lease_within_a_step() {
    let served = patient().await;
    let adapter = served.publish("finance").await;
    for timeout in [None, Some(LATE)] {
        let parts = parked(&served, "r-1", Some(adapter.clone()), timeout).await;
        let steps = still(&served).await;
        match timeout {
            None => drop(parts),
            Some(_) => is_late(parts).await,
        }
        let rest = empty(&served).await;
        assert!(rest.steps_total <= steps + 1, "{} steps", rest.steps_total - steps);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_request_that_waits_for_its_adapter_and_that_nobody_wants_any_more_is_gone_within_a_step() {
    let served = patient().await;
    for (name, timeout) in [("finance", None), ("legal", Some(LATE))] {
        let adapter = served.publish(name).await;
        let slow = SlowWeights::of(&served, &adapter);
        let steps = still(&served).await;
        let request = GenerateRequest { ignore_eos: true, ..served.request(Some(adapter.clone()), 400).await };
        let waiting = send(&served, request, timeout).await;
        until(|| async { status(&served).await.residents.iter().any(|resident| resident.loading) }).await;
        match timeout {
            None => drop(waiting),
            Some(_) => is_late(waiting).await,
        }
        let rest = empty(&served).await;
        assert!(rest.steps_total <= steps + 1, "{} steps", rest.steps_total - steps);
        slow.come();
        // The adapter can be used as if nothing had happened.
        until(|| async { served.answer(served.request(Some(adapter.clone()), 4).await).await.is_ok() }).await;
        empty(&served).await;
    }
    served.stop().await;
}

/// Weights in the registry that do not come: in the place of their file is a pipe.
struct SlowWeights {
    file: PathBuf,
    content: Vec<u8>,
}

impl SlowWeights {
    fn of(served: &Served, adapter: &AdapterPin) -> Self {
        let hex = adapter.digest.trim_start_matches("sha256:");
        let file = weights_in(served.registry.path(), hex);
        let content = std::fs::read(&file).expect("reads");
        std::fs::remove_file(&file).expect("removes");
        assert!(Command::new("mkfifo").arg(&file).status().expect("runs").success());
        Self { file, content }
    }

    /// Those who wait for the pipe find nothing in it, and the next find the file.
    fn come(self) {
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&self.file).expect("opens");
        std::fs::remove_file(&self.file).expect("removes");
        std::fs::write(&self.file, &self.content).expect("writes");
        drop(pipe);
    }
}

/// The file of a version's weights.
fn weights_in(folder: &Path, hex: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let is_of_version = entry.to_string_lossy().contains(hex);
            match entry.extension() {
                _ if entry.is_dir() => folders.push(entry),
                Some(extension) if extension == "safetensors" && is_of_version => return entry,
                _ => {}
            }
        }
    }
    panic!("no weights were published");
}
