//! What no valid request can bring about: a step that crashes. A handle without bounds lets in a token that the model
//! does not have.

use std::path::Path;

use domain::TenantId;

use super::*;
use crate::events::Event;
use crate::loader::AdapterFault;
use crate::model::{Dtype, ModelOptions};
use crate::request::GenerateRequest;
use crate::residents::AdapterKey;

struct NoAdapters;

impl AdapterSource for NoAdapters {
    fn load(&self, _: &AdapterKey) -> Result<adapters::Files, AdapterFault> {
        Err(AdapterFault::NotFound)
    }
}

/// An engine, its handle, and a second handle that checks nothing.
fn start(config: EngineConfig) -> (EngineHandle, EngineHandle) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
    let model = Arc::new(Model::load(&dir, &ModelOptions::new(Dtype::F32)).expect("the shipped base loads"));
    let text = TextModel::load(&dir).expect("its tokenizer loads");
    let handle = Engine::start(model, text, config, Box::new(NoAdapters)).expect("it starts");
    let unbounded = handle.without_bounds();
    (handle, unbounded)
}

fn request(prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    let tenant = TenantId::new(uuid::Uuid::from_u128(1));
    GenerateRequest { ignore_eos: true, ..GenerateRequest::greedy(tenant, prompt, max_tokens) }
}

/// Tokens until the end, and the fault if it is one.
fn read(mut events: crate::EventStream) -> (usize, Option<Fault>) {
    let mut tokens = 0;
    loop {
        match events.blocking_next().expect("an end") {
            Event::Step { .. } => tokens += 1,
            Event::Done { .. } => return (tokens, None),
            Event::Failed(fault) => return (tokens, Some(fault)),
            Event::PromptLogprobs(_) | Event::Parked => {}
        }
    }
}

#[test]
fn a_crashed_step_ends_its_sequences_and_the_engine_serves_on() {
    let (engine, unbounded) = start(EngineConfig::default());
    let expected = read(engine.submit(request(vec![5, 6, 7], 20)).unwrap());
    assert_eq!(expected, (20, None));
    let (_, fault) = read(unbounded.submit(request(vec![1_000_000], 4)).unwrap());
    assert_eq!(fault, Some(Fault::internal()));
    assert_eq!(read(engine.submit(request(vec![5, 6, 7], 20)).unwrap()), expected);
    let status = engine.status();
    assert_eq!((status.healthy, status.totals.failed_steps), (true, 1));
    let rest = |status: &Status| status.kv_blocks_free + status.kv_blocks_cached == status.kv_blocks_total;
    assert!(engine.wait_for(std::time::Duration::from_secs(60), rest));
}

#[test]
fn an_engine_that_only_crashes_says_so_and_refuses_work() {
    let (engine, unbounded) = start(EngineConfig { step_failures_max: 2, ..EngineConfig::default() });
    for _ in 0..2 {
        read(unbounded.submit(request(vec![1_000_000], 4)).unwrap());
    }
    assert!(engine.wait_for(std::time::Duration::from_secs(60), |status| !status.healthy));
    let refused = engine.submit(request(vec![5], 4)).err().expect("refused");
    assert_eq!(refused.reason, Reason::WorkerUnavailable);
    engine.shutdown();
}
