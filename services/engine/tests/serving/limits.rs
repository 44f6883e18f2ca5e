//! Every limit can be hit and says so.

use std::sync::Arc;

use domain::{Detail, Reason, Sampling};
use engine::{Engine, EngineConfig, EngineError, GenerateRequest, LineLength, Share, TENANT_QUEUE};

use crate::support::*;

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let source = Source::default();
    let engine =
        start_with(EngineConfig { waiting_max: 2, retry_after_ms: 250, ..EngineConfig::default() }, source.clone());
    // Two that wait for an adapter that does not come.
    source.hold(key("finance"));
    let waiting: Vec<_> = (0..2).map(|_| engine.submit(ask("finance", "Hello", 4)).unwrap()).collect();
    assert_eq!(engine.status().waiting, 2);
    let refused = engine.submit(ask_base("Hello", 4)).err().expect("the queue is full");
    assert_eq!(refused.reason, Reason::QueueFull);
    assert_eq!(refused.retry_hint().map(|after| after.as_millis()), Some(250));
    source.let_go();
    for stream in waiting {
        collect(stream).unwrap();
    }
    wait(&engine, "the queue is empty", is_at_rest);
    answer(&engine, ask_base("Hello", 4)).unwrap();
}

#[test]
fn a_tenant_that_fills_its_part_of_the_queue_leaves_the_rest_to_others() {
    let source = Source::default();
    let mut config = EngineConfig { waiting_max: 8, retry_after_ms: 250, ..EngineConfig::default() };
    config.fairness.tenant_waiting_max = 3;
    let engine = start_with(config, source.clone());
    source.hold(key("finance"));
    let mut waiting: Vec<_> = (0..3).map(|_| engine.submit(ask("finance", "Hello", 4)).unwrap()).collect();
    let refused = engine.submit(ask_base("Hello", 4)).err().expect("its part is full");
    assert_eq!(refused.reason, Reason::QueueFull);
    assert!(refused.message.contains("3 requests of this tenant"), "{refused}");
    assert!(refused.details.iter().any(|it| matches!(it, Detail::Quota { subject, .. } if subject == TENANT_QUEUE)));
    assert_eq!(refused.retry_hint().map(|after| after.as_millis()), Some(250));
    // Others are not affected, and a request may bring a larger part of its own.
    answer(&engine, GenerateRequest { share: Share::of(tenant(2)), ..ask_base("Hello", 4) }).unwrap();
    let larger = Share { waiting_max: 4, ..Share::of(tenant(1)) };
    waiting.push(engine.submit(GenerateRequest { share: larger, ..ask("finance", "Hello", 4) }).unwrap());
    assert_eq!(engine.line(tenant(1)).requests, 4);
    drop(waiting.pop());
    wait(&engine, "a place is free", |status| status.waiting == 3);
    source.let_go();
    for stream in waiting {
        collect(stream).unwrap();
    }
    wait(&engine, "the queue is empty", is_at_rest);
    assert_eq!(engine.line(tenant(1)), LineLength::default());
    answer(&engine, ask_base("Hello", 4)).unwrap();
}

#[test]
fn a_request_that_does_not_fit_its_tenants_blocks_is_refused_at_the_door() {
    let engine = start(EngineConfig::default());
    let share = Share { kv_blocks_max: 2, ..Share::of(tenant(1)) };
    let request = |prompt| GenerateRequest { share, ..GenerateRequest::greedy(tenant(1), vec![5; prompt], 8) };
    let refused = engine.submit(request(25)).err().expect("33 tokens take three blocks");
    assert_eq!(refused.reason, Reason::ContextLength);
    assert!(refused.message.contains("this tenant"), "{refused}");
    answer(&engine, request(24)).unwrap();
}

#[test]
fn what_can_never_fit_is_refused_at_the_door() {
    let engine = start(EngineConfig::default());
    let context = MODEL.config().context_length;
    let refusal = |request| engine.submit(request).err().expect("refused").reason;
    let prompt = vec![5; context - 10];
    assert_eq!(refusal(GenerateRequest::greedy(tenant(1), prompt.clone(), 11)), Reason::ContextLength);
    let fits = GenerateRequest { ignore_eos: true, ..GenerateRequest::greedy(tenant(1), prompt, 10) };
    assert_eq!(answer(&engine, fits).unwrap().tokens.len(), 10);

    let small = start(kv(3));
    assert_eq!(small.context_length(), 48);
    let refused = small.submit(GenerateRequest::greedy(tenant(1), vec![5; 40], 9)).err().expect("refused");
    assert_eq!(refused.reason, Reason::ContextLength);
    let fits = GenerateRequest { ignore_eos: true, ..GenerateRequest::greedy(tenant(1), vec![5; 40], 8) };
    assert_eq!(answer(&small, fits).unwrap().tokens.len(), 8);
    let scores = GenerateRequest { prompt_logprobs: true, ..GenerateRequest::greedy(tenant(1), vec![5; 48], 0) };
    assert_eq!(answer(&small, scores).unwrap().prompt_logprobs.unwrap().len(), 47);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let engine = start(EngineConfig::default());
    let request = GenerateRequest {
        prompt: vec![1_000_000],
        max_tokens: 0,
        stop: vec![String::new(); 17],
        logprobs: Some(21),
        sampling: Sampling { top_p: 7.0, ..Sampling::default() },
        ..ask_base("", 0)
    };
    let fault = engine.submit(request).err().expect("refused");
    let fields: Vec<_> = fault
        .details
        .iter()
        .map(|detail| match detail {
            Detail::Violation { field, .. } => field.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(fault.reason, Reason::InvalidRequest);
    assert_eq!(fields, ["prompt", "max_tokens", "stop", "stop", "logprobs", "sampling.top_p"]);
    let empty = engine.submit(GenerateRequest::greedy(tenant(1), Vec::new(), 1)).err().expect("refused");
    assert_eq!(empty.reason, Reason::InvalidRequest);
}

#[test]
fn a_configuration_that_cannot_work_does_not_start() {
    let start = |config| Engine::start(Arc::clone(&MODEL), TEXT.clone(), config, Box::new(Source::default())).err();
    let no_places = EngineConfig { running_max: 0, waiting_max: 0, ..EngineConfig::default() };
    assert!(
        matches!(start(no_places), Some(EngineError::Config(message)) if message.ends_with("running_max, waiting_max"))
    );
    let no_memory = EngineConfig { kv_bytes_max: 1000, ..EngineConfig::default() };
    assert!(matches!(start(no_memory), Some(EngineError::KvMemory { given: 1000, .. })));
    assert!(serde_json::from_str::<EngineConfig>(r#"{"running_maximum": 3}"#).is_err());
    let file: EngineConfig = serde_json::from_str(r#"{"running_max": 3}"#).unwrap();
    assert_eq!(file, EngineConfig { running_max: 3, ..EngineConfig::default() });
}
