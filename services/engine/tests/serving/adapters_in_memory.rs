//! Residency on real adapters: loads that block nobody, leases that hold, failures that stay where they belong.

use bytes::Bytes;
use domain::{Digest, Reason};
use engine::{AdapterKey, EngineConfig, Event, GenerateRequest};

use crate::support::*;

/// Bytes that an adapter takes in memory.
fn adapter_bytes(industry: &str) -> u64 {
    let engine = start(EngineConfig::default());
    answer(&engine, ask(industry, "Hello", 1)).unwrap();
    wait(&engine, "it is resident", |status| status.adapters_ready == 1);
    engine.status().adapter_bytes
}

#[test]
fn a_load_that_does_not_end_holds_up_nobody_else() {
    let source = Source::default();
    let engine = start_with(EngineConfig::default(), source.clone());
    source.hold(key("finance"));
    let finance = engine.submit(ask("finance", &questions("finance")[0], 40)).unwrap();
    let again = engine.submit(ask("finance", &questions("finance")[1], 40)).unwrap();
    assert!(!answer(&engine, ask_base("Hello", 8)).unwrap().tokens.is_empty());
    assert!(!answer(&engine, ask("legal", "Hello", 8)).unwrap().tokens.is_empty());
    wait(&engine, "both still wait", |status| status.waiting == 2);
    source.let_go();
    assert!(!collect(finance).unwrap().text.is_empty() && !collect(again).unwrap().text.is_empty());
    assert_eq!(source.loads(key("finance")), 1);
}

#[test]
fn a_leased_adapter_stays_and_the_other_comes_when_there_is_room() {
    let bytes = adapter_bytes("finance").max(adapter_bytes("legal"));
    let config = EngineConfig { adapter_bytes_max: bytes + bytes / 2, ..EngineConfig::default() };
    let engine = start(config);
    let mut first = engine.submit(GenerateRequest { ignore_eos: true, ..ask("finance", "Hello", 300) }).unwrap();
    let Some(Event::Step { .. }) = first.blocking_next() else { panic!("the first token") };
    let second = engine.submit(ask("legal", "Hello", 4)).unwrap();
    let mut tokens = 1;
    while let Some(event) = first.blocking_next() {
        let status = engine.status();
        assert!(status.adapter_bytes <= status.adapter_bytes_max);
        match event {
            Event::Step { .. } => tokens += 1,
            Event::Done { .. } => break,
            other => panic!("{other:?}"),
        }
        // All tokens are the first one's until the second has its adapter.
        let first_has_ended = status.totals.completion_tokens >= 300;
        assert!(first_has_ended || status.adapters_leased == 1, "evicted under its lease: {status:?}");
        let (kept, came) = (is_resident(&engine, key("finance")), is_resident(&engine, key("legal")));
        let first_has_ended = engine.status().totals.completion_tokens >= 300;
        assert!(first_has_ended || kept && !came, "evicted under its lease: {status:?}");
    }
    assert_eq!(tokens, 300);
    assert!(!collect(second).unwrap().tokens.is_empty());
    wait_residents(&engine, "the first has made room", |residents| {
        residents.iter().map(|resident| resident.key).eq([key("legal")])
    });
}

#[test]
fn many_adapters_over_little_memory_all_get_their_turn() {
    let bytes = INDUSTRIES.map(adapter_bytes).into_iter().max().unwrap();
    let engine = start(EngineConfig { adapter_bytes_max: bytes, adapter_patience_steps: 2, ..EngineConfig::default() });
    let roomy = start(EngineConfig::default());
    let requests: Vec<_> = (0..12).map(|n| ask(INDUSTRIES[n % 4], &questions(INDUSTRIES[n % 4])[n], 24)).collect();
    let streams: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    for (stream, request) in streams.into_iter().zip(requests) {
        assert_eq!(collect(stream).unwrap().content(), answer(&roomy, request).unwrap().content());
    }
}

#[test]
fn a_bad_adapter_ends_its_own_requests_and_no_others() {
    let source = Source::default();
    let engine = start_with(EngineConfig::default(), source.clone());
    let unknown = |n| AdapterKey { tenant: tenant(1), digest: Digest::new([n; 32]) };
    let mut torn = files("finance");
    torn.weights = torn.weights.slice(..torn.weights.len() / 2);
    source.put(unknown(1), Script::Give(torn));
    source.put(unknown(2), Script::Give(files("finance")));
    source.put(unknown(3), Script::Panic);
    let good = engine.submit(GenerateRequest { ignore_eos: true, ..ask("legal", "Hello", 60) }).unwrap();
    let said = ["E_CONTAINER", &key("finance").digest.to_string(), "crashed", "does not have"];
    for (n, said) in (1..=4).zip(said) {
        let fault = answer(&engine, GenerateRequest { adapter: Some(unknown(n)), ..ask_base("Hello", 4) }).unwrap_err();
        assert_eq!(fault.reason, Reason::AdapterLoad);
        assert!(fault.message.contains(said), "{fault}");
    }
    assert_eq!(collect(good).unwrap().tokens.len(), 60);
    assert!(engine.status().healthy);
    // A version that is put right is served by the next request.
    source.put(key("healthcare"), Script::Panic);
    assert!(answer(&engine, ask("healthcare", "Hello", 4)).is_err());
    source.put(key("healthcare"), Script::Give(files("healthcare")));
    answer(&engine, ask("healthcare", "Hello", 4)).unwrap();
    wait(&engine, "all is free", is_at_rest);
}

#[test]
fn an_adapter_that_is_larger_than_the_budget_is_refused() {
    let engine = start(EngineConfig { adapter_bytes_max: 1000, ..EngineConfig::default() });
    let fault = answer(&engine, ask("finance", "Hello", 4)).unwrap_err();
    assert_eq!(fault.reason, Reason::AdapterLoad);
    assert!(fault.message.contains("1000 bytes"), "{fault}");
    answer(&engine, ask_base("Hello", 4)).unwrap();
}

#[test]
fn an_adapter_whose_results_are_no_numbers_fails_alone() {
    let (files, huge) = blown_up("finance");
    let source = Source::default();
    source.put(huge, Script::Give(files));
    let engine = start_with(EngineConfig { running_max: 8, ..kv(8) }, source);
    let request = GenerateRequest { ignore_eos: true, ..ask_base("Hello", 40) };
    let expected = answer(&engine, request.clone()).unwrap().content();
    let good = engine.submit(request.clone()).unwrap();
    for _ in 0..4 {
        let fault = answer(&engine, GenerateRequest { adapter: Some(huge), ..request.clone() }).unwrap_err();
        assert_eq!(fault.reason, Reason::AdapterLoad);
    }
    assert_eq!(collect(good).unwrap().content(), expected);
    // Its blocks are used again.
    assert_eq!(answer(&engine, GenerateRequest { tenant: tenant(3), ..request }).unwrap().content(), expected);
    assert!(engine.status().healthy);
}

/// An industry's adapter with every weight of every A and B replaced by a large number, and its own digest.
fn blown_up(industry: &str) -> (adapters::Files, AdapterKey) {
    let mut files = files(industry);
    let mut bytes = files.weights.to_vec();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    for (name, tensor) in tensors.as_object().unwrap() {
        if !name.contains("lora_") {
            continue;
        }
        let value: Vec<u8> = match tensor["dtype"].as_str().unwrap() {
            "F32" => 1e8f32.to_le_bytes().to_vec(),
            "BF16" => (1e8f32.to_bits() >> 16).to_le_bytes()[..2].to_vec(),
            other => panic!("{other}"),
        };
        let offsets = &tensor["data_offsets"];
        let at = |n: usize| 8 + header + offsets[n].as_u64().unwrap() as usize;
        let repeated = value.iter().cycle();
        bytes[at(0)..at(1)].iter_mut().zip(repeated).for_each(|(byte, new)| *byte = *new);
    }
    files.weights = Bytes::from(bytes);
    let limits = adapters::Limits::default();
    let weights = adapters::Container::parse(files.weights.clone(), &limits).unwrap();
    let plan = adapters::judge(&files.config, &weights, MODEL.base(), &limits).unwrap();
    (files, AdapterKey { tenant: tenant(1), digest: plan.digest })
}

#[test]
fn the_probe_sees_what_an_adapter_changes() {
    let engine = start(EngineConfig::default());
    for industry in INDUSTRIES {
        let delta = block_on(engine.probe(key(industry))).unwrap();
        assert!(delta > 0.1, "{industry}: {delta}");
    }
    let absent = AdapterKey { tenant: tenant(1), digest: Digest::new([1; 32]) };
    assert_eq!(block_on(engine.probe(absent)).unwrap_err().reason, Reason::AdapterLoad);
}
