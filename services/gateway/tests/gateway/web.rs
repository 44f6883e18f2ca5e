//! Browsers: gRPC-Web on the public door, and which pages may call it.

use prost::Message as _;
use proto::v1;

use crate::{
    fake_worker::{Act, FakeWorker},
    http::{request, send},
    platform::{Platform, ask},
};

const GENERATE: &str = "/banyan.v1.InferenceService/Generate";
const ORIGIN: &str = "https://app.example.com";

/// Flag, length and bytes, as <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md> has it.
fn frame(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

/// The messages, and the trailers that come as the last frame.
fn frames(mut body: &[u8]) -> (Vec<v1::GenerateResponse>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, rest @ ..] = body {
        let (bytes, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        match flag {
            0 => messages.push(v1::GenerateResponse::decode(bytes).expect("a message")),
            0x80 => trailers += std::str::from_utf8(bytes).expect("text"),
            other => panic!("a frame of kind {other}"),
        }
        body = after;
    }
    (messages, trailers)
}

#[tokio::test]
async fn a_page_generates_over_grpc_web_and_is_refused_like_everybody() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let call = |key: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1"), ("authorization", &bearer)];
        request("POST", GENERATE, &headers, frame(&ask("base")))
    };
    let reply = send(&platform, call(&acme.key)).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/grpc-web+proto"));
    let (messages, trailers) = frames(&reply.body);
    let text: String = messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(text, "abcde");
    assert!(
        messages.last().is_some_and(|last| last.finish.is_some()) && trailers.contains("grpc-status:0"),
        "{trailers}"
    );
    let refused = send(&platform, call("bn_wrong")).await;
    let told = frames(&refused.body).1;
    assert!(refused.header("grpc-status") == "16" || told.contains("grpc-status:16"), "{:?} {told}", refused.headers);
    assert_eq!(worker.requests().len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_call() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let asks = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        request("OPTIONS", GENERATE, &headers, "")
    };
    let platform = Platform::start_with(&[&worker], &format!("[http]\nallowed_origins = [{ORIGIN:?}]")).await;
    let allowed = send(&platform, asks(ORIGIN)).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, ORIGIN));
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    let other = send(&platform, asks("https://evil.example.com")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
    let read = send(&platform, request("GET", "/v1/models", &[("origin", ORIGIN)], "")).await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (401, ORIGIN));
    platform.stop().await;

    let platform = Platform::start(&[&worker]).await;
    let nobody = send(&platform, asks(ORIGIN)).await;
    assert!(nobody.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{:?}", nobody.headers);
    platform.stop().await;
}
