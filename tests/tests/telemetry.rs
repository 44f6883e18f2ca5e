//! One request, seen by an OpenTelemetry collector: every room of the walk is a span of the caller's own trace, across
//! gateway and worker, and none of them carries what was said. A binary of its own, since telemetry is one per process.

#[path = "end_to_end/platform.rs"]
#[allow(dead_code)] // this file needs little of it
mod platform;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chassis::telemetry::{self, TelemetryConfig};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    trace::v1::Span,
};
use platform::{Platform, Settings, ask, generous, with_token};
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CANARY: &str = "zanzibar marmalade";
const ROOMS: [&str; 8] =
    ["auth", "resolve", "reserve", "pick", "relay", "worker.generate", "engine.prefill", "engine.decode"];

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.lock().expect("no panic in here").extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_trace_from_the_door_to_the_decode_step_and_says_nothing_of_its_content() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(serving);
    // What is not logged is traced all the same.
    let log_filter = "error".to_owned();
    let config = TelemetryConfig { otlp_endpoint: endpoint, log_filter, ..TelemetryConfig::default() };
    let telemetry = telemetry::init(&config).expect("telemetry starts");

    let platform = Platform::start(Settings::default()).await;
    let key = platform.tenant("acme", generous()).await;
    platform.create_adapter("acme", "claims").await;
    platform.push("acme", "claims", "finance", "live").await;
    let mut request = with_token(ask("acme/claims", CANARY, 8), &key);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01").parse().expect("a header");
    request.metadata_mut().insert("traceparent", parent);
    let answer = platform.inference().await.generate(request).await.expect("an answer").into_inner();
    platform::read(answer).await.expect("its end");
    platform.stop().await;
    // Flushes what is still buffered; the exporter blocks while it does.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.expect("flushed");

    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let spans = collector.spans.lock().expect("no panic in here").clone();
        let names: BTreeSet<_> =
            spans.iter().filter(|span| hex(&span.trace_id) == TRACE).map(|span| span.name.clone()).collect();
        if ROOMS.iter().all(|room| names.contains(*room)) {
            let everything = format!("{spans:?}");
            assert!(!everything.contains(CANARY), "a prompt is in a span");
            assert!(!everything.contains(&key), "a key is in a span");
            return;
        }
        assert!(Instant::now() < deadline, "{ROOMS:?} are not all in {names:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
