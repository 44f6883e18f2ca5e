//! The OpenAI-compatible routes: the same answers, limits and refusals in other words.

use domain::Reason;
use http_body_util::BodyExt as _;
use proto::v1;
use serde_json::{Value, json};
use store::Outcome;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    fake_worker::{Act, FakeWorker},
    http::{connect, get, post, request, send},
    platform::{Platform, within},
};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    json!({"model": "base", "max_tokens": 10, "messages": [{"role": "user", "content": "0123456789"}]})
}

fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().expect("an object").extend(fields);
    body
}

#[tokio::test]
async fn a_chat_completion_is_the_answer_of_generate_in_openais_words() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let asked = with(
        chat(),
        json!({
            "temperature": 0.5, "top_p": 0.9, "seed": -1, "presence_penalty": 1, "frequency_penalty": -1, "stop": "end",
            "user": "somebody", "logprobs": true, "top_logprobs": 2, "n": 1, "tools": [], "top_k": 5, "stream": null,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "messages": [
                {"role": "developer", "content": "brief"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        }),
    );
    let reply = send(&platform, post(CHAT, &acme.key, &asked)).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let answer = reply.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("base")));
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "abcde", "refusal": null}));
    assert_eq!(choice["finish_reason"], "length");
    let usage = json!({
        "prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 1},
    });
    assert_eq!(answer["usage"], usage);
    assert_eq!((&answer["banyan"]["seed"], &answer["banyan"]["worker"]), (&json!(u64::MAX), &json!("one")));
    assert_eq!(answer["banyan"]["request_id"], reply.header("x-request-id"));

    let sent = worker.requests().remove(0);
    let sampling = sent.sampling.expect("sampling");
    assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(5), Some(u64::MAX)));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(1.0), Some(-1.0)));
    assert_eq!((sent.max_tokens, sent.logprobs, sent.stop), (10, Some(2), vec!["end".to_owned()]));
    assert_eq!(sent.prompt, "briefa\nb".bytes().map(u32::from).collect::<Vec<_>>());
    let form = Some(v1::response_format::Format::JsonSchema(r#"{"type":"object"}"#.into()));
    assert_eq!(sent.response_format.and_then(|form| form.format), form);
    // Billed like every other answer.
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records.len(), records[0].completion_tokens), (1, 5));
    platform.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_finish_the_usage_and_done() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let streamed = with(chat(), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let reply = send(&platform, post(CHAT, &acme.key, &streamed)).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream; charset=utf-8"));
    let events = reply.events();
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).expect("JSON")).collect();
    let deltas: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].clone()).collect();
    assert_eq!(deltas, [json!(""), json!("ab"), json!("cde"), Value::Null, Value::Null]);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"]));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[3]["banyan"]["finish_reason"], "length");
    assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["total_tokens"]), (&json!([]), &json!(15)));
    assert!(chunks[..4].iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));

    // Completions, and without the usage.
    let asked = json!({"model": "base", "prompt": ["0123456789"], "max_tokens": 10, "stream": true});
    let events = send(&platform, post("/v1/completions", &acme.key, &asked)).await.events();
    let chunks: Vec<Value> = events[..3].iter().map(|chunk| serde_json::from_str(chunk).expect("JSON")).collect();
    assert_eq!((chunks[0]["choices"][0]["text"].as_str(), events.len()), (Some("ab"), 4));
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion" && chunk.get("usage").is_none()));
    platform.stop().await;
}

#[tokio::test]
async fn a_fault_in_the_middle_of_a_stream_is_its_last_event() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Fail(Reason::AdapterLoad)]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let events = send(&platform, post(CHAT, &acme.key, &with(chat(), json!({"stream": true})))).await.events();
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    assert_eq!(last["error"]["code"], "adapter_load");
    assert!(!events.iter().any(|event| event == "[DONE]"));
    // Asked for at once, it is a status.
    assert_eq!(send(&platform, post(CHAT, &acme.key, &chat())).await.refused().0, 400);
    platform.stop().await;
}

#[tokio::test]
async fn what_is_wrong_or_not_served_is_refused_under_its_own_name() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let text = |text: &str| json!([{"role": "user", "content": text}]);
    let part = |kind: &str| json!([{"role": "user", "content": [{"type": kind, "image_url": {"url": "data:,"}}]}]);
    let wrong = [
        (json!({"n": 2}), "unsupported_parameter", "n"),
        (json!({"tools": [{"type": "function"}]}), "unsupported_parameter", "tools"),
        (json!({"functions": [{"name": "f"}]}), "unsupported_parameter", "functions"),
        (json!({"logit_bias": {"1": 2}}), "unsupported_parameter", "logit_bias"),
        (json!({"modalities": ["text", "audio"]}), "unsupported_parameter", "modalities"),
        (json!({"messages": part("image_url")}), "unsupported_parameter", "messages[0].content[0].type"),
        (json!({"colour": "red"}), "unknown_parameter", "colour"),
        (json!({"model": 3}), "invalid_type", "model"),
        (json!({"model": null}), "missing_required_parameter", "model"),
        (json!({"model": "Not A Model"}), "invalid_value", "model"),
        (json!({"messages": []}), "invalid_value", "messages"),
        (json!({"messages": [{"role": "", "content": "a"}]}), "invalid_value", "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "invalid_type", "messages[0].content"),
        (json!({"temperature": "hot"}), "invalid_type", "temperature"),
        (json!({"temperature": -1}), "invalid_value", "temperature"),
        (json!({"top_p": 2}), "invalid_value", "top_p"),
        (json!({"max_tokens": 0}), "invalid_value", "max_tokens"),
        (json!({"max_completion_tokens": 20}), "invalid_value", "max_tokens"),
        (json!({"max_tokens": 1_000_000}), "invalid_value", "max_tokens"),
        (json!({"top_logprobs": 2}), "invalid_value", "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "invalid_value", "top_logprobs"),
        (json!({"stop": [""]}), "invalid_value", "stop[0]"),
        (json!({"stream_options": {"include_usage": true}}), "invalid_value", "stream_options"),
        (json!({"response_format": {"type": "xml"}}), "invalid_value", "response_format.type"),
        (json!({"messages": text(&"x".repeat(600))}), "context_length_exceeded", "messages"),
    ];
    for (fields, code, param) in wrong {
        let reply = send(&platform, post(CHAT, &acme.key, &with(chat(), fields))).await;
        assert_eq!(reply.refused(), (400, code.to_owned(), param.to_owned()));
    }
    let prompts = [
        (json!({"prompt": ["a", "b"]}), "unsupported_parameter", "prompt"),
        (json!({"prompt": [1, -2]}), "invalid_type", "prompt"),
        (json!({"prompt": []}), "invalid_value", "prompt"),
        (json!({"prompt": "a", "echo": true}), "unsupported_parameter", "echo"),
        (json!({"prompt": "a", "best_of": 2}), "unsupported_parameter", "best_of"),
        (json!({}), "missing_required_parameter", "prompt"),
    ];
    for (fields, code, param) in prompts {
        let asked = with(json!({"model": "base"}), fields);
        let reply = send(&platform, post("/v1/completions", &acme.key, &asked)).await;
        assert_eq!(reply.refused(), (400, code.to_owned(), param.to_owned()));
    }
    let two = send(&platform, post(CHAT, &acme.key, &with(chat(), json!({"n": 2, "top_p": "x"})))).await.json();
    let message = two["error"]["message"].as_str().expect("a message");
    assert!(message.contains("n: ") && message.contains("top_p: "), "every one is said: {message}");
    assert!(worker.requests().is_empty() && platform.usage(&acme).await.is_empty());
    // Token ids are a prompt of their own.
    let asked = json!({"model": "base", "prompt": [[7, 8, 9]], "max_tokens": 3});
    assert_eq!(send(&platform, post("/v1/completions", &acme.key, &asked)).await.json()["usage"]["prompt_tokens"], 3);
    assert_eq!(worker.requests()[0].prompt, [7, 8, 9]);
    platform.stop().await;
}

#[tokio::test]
async fn models_are_listed_and_found_by_their_own_names() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let list = send(&platform, get("/v1/models", &acme.key)).await.json();
    assert_eq!((&list["object"], list["data"].as_array().map(Vec::len)), (&json!("list"), Some(1)));
    let base = send(&platform, get("/v1/models/base", &acme.key)).await.json();
    assert_eq!((&base["id"], &base["object"], &base), (&json!("base"), &json!("model"), &list["data"][0]));
    for name in ["acme/claims", "acme%2Fclaims"] {
        let missing = send(&platform, get(&format!("/v1/models/{name}"), &acme.key)).await;
        assert_eq!(missing.refused(), (404, "model_not_found".to_owned(), "model".to_owned()));
        assert!(missing.json()["error"]["message"].as_str().expect("words").contains("acme/claims"));
    }
    platform.stop().await;
}

#[tokio::test]
async fn limits_are_refusals_with_the_time_to_come_back() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let one_a_minute = v1::TenantLimits { requests_per_minute: 1, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", one_a_minute).await;
    let told = send(&platform, post(CHAT, &acme.key, &chat())).await;
    let limit = |what: &str| told.header(&format!("x-ratelimit-{what}")).to_owned();
    assert_eq!((limit("limit-requests"), limit("remaining-requests")), ("1".to_owned(), "0".to_owned()));
    assert!(limit("reset-requests").ends_with('s') && limit("remaining-tokens").parse::<u64>().is_ok());
    let refused = send(&platform, post(CHAT, &acme.key, &chat())).await;
    assert_eq!((refused.status, refused.refused().1.as_str()), (429, "rate_limit_exceeded"));
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=61).contains(&seconds), "{seconds}");
    assert_eq!(refused.json()["error"]["banyan"]["limits"][0]["limit"], "requests_per_minute");
    worker.will(vec![Act::Fail(Reason::QueueFull)]);
    let rich = platform.tenant("rich", v1::TenantLimits::default()).await;
    let full = send(&platform, post(CHAT, &rich.key, &chat())).await;
    assert_eq!((full.status, full.header("retry-after"), full.header("retry-after-ms")), (503, "1", "700"));
    platform.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_answer() {
    let mut worker = FakeWorker::start("one", vec![Act::Say("abc"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut sender = connect(&platform).await;
    let streamed = post(CHAT, &acme.key, &with(chat(), json!({"stream": true})));
    let mut body = within(sender.send_request(streamed)).await.expect("begins").into_body();
    within(body.frame()).await.expect("an event").expect("an event");
    drop((body, sender));
    worker.dropped(1).await;
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::Cancelled, 3));
    // Also one that waits for the whole.
    let stream = TcpStream::connect(platform.gateway.inference_addr).await.expect("connects");
    let (key, body) = (&acme.key, chat().to_string());
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes()).await.expect("written");
    within(async {
        while worker.requests().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(stream);
    worker.dropped(2).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let settings = "[calls]\nmessage_bytes_max = 2000\n[http]\nbody_read_ms = 200";
    let platform = Platform::start_with(&[&worker], settings).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let long = with(chat(), json!({"user": "x".repeat(3000)}));
    assert_eq!(send(&platform, post(CHAT, &acme.key, &long)).await.refused().2, "body");
    for wrong in ["", "[]", "{", "{\"model\": \"base\"} x"] {
        let bearer = format!("Bearer {}", acme.key);
        let reply = send(&platform, request("POST", CHAT, &[("authorization", &bearer)], wrong)).await;
        assert_eq!(reply.refused(), (400, "invalid_value".to_owned(), "body".to_owned()), "{wrong}");
    }
    // One that promises more than it sends.
    let mut stream = TcpStream::connect(platform.gateway.inference_addr).await.expect("connects");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        acme.key
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut said = vec![0; 12];
    within(stream.read_exact(&mut said)).await.expect("an answer");
    assert_eq!(said, b"HTTP/1.1 504");
    assert!(worker.requests().is_empty());
    platform.stop().await;
}
