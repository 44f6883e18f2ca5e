//! What a client sees of one answer: stop strings, reasons, cancelling, usage, sharing.

use engine::{EngineConfig, Event, FinishReason, GenerateRequest};

use crate::support::*;

#[test]
fn an_answer_ends_at_the_end_token_the_limit_or_before_a_stop_string() {
    let engine = start(EngineConfig::default());
    let question = &questions("finance")[0];
    let whole = answer(&engine, ask("finance", question, 100)).unwrap();
    assert_eq!(whole.reason, FinishReason::Eos);
    assert!(MODEL.config().eos_token_ids.contains(whole.ids().last().unwrap()));
    assert_eq!(whole.usage.completion_tokens as usize, whole.tokens.len());

    let cut = answer(&engine, ask("finance", question, 5)).unwrap();
    assert_eq!((cut.reason, cut.ids()), (FinishReason::Length, whole.ids()[..5].to_vec()));

    // A stop string from the middle of the answer, over a token border.
    let start_at = whole.text.char_indices().nth(whole.text.chars().count() / 2).unwrap().0;
    let stop: String = whole.text[start_at..].chars().take(9).collect();
    let stopped = answer(
        &engine,
        GenerateRequest { stop: vec!["never said".into(), stop.clone()], ..ask("finance", question, 100) },
    )
    .unwrap();
    assert_eq!(stopped.reason, FinishReason::Stop);
    assert_eq!(stopped.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert!(stopped.tokens.len() < whole.tokens.len());

    let further = answer(&engine, GenerateRequest { ignore_eos: true, ..ask("finance", question, 100) }).unwrap();
    assert_eq!((further.reason, further.tokens.len()), (FinishReason::Length, 100));
    assert_eq!(further.ids()[..whole.tokens.len()], whole.ids());
}

#[test]
fn log_probabilities_come_with_their_alternatives_and_only_when_asked_for() {
    let engine = start(EngineConfig::default());
    let request = ask("legal", &questions("legal")[0], 6);
    assert!(answer(&engine, request.clone()).unwrap().tokens.iter().all(|t| t.logprob.is_none() && t.top.is_empty()));
    for token in answer(&engine, GenerateRequest { logprobs: Some(3), ..request }).unwrap().tokens {
        assert_eq!((token.top.len(), token.top[0].id), (3, token.id));
        assert_eq!(Some(token.top[0].logprob), token.logprob);
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        assert_eq!(token.top[1].text, TEXT.token_text(token.top[1].id));
    }
}

#[test]
fn dropping_a_stream_gives_back_blocks_slot_queue_place_and_lease() {
    let source = Source::default();
    let engine =
        start_with(EngineConfig { running_max: 2, prefix_cache: false, ..EngineConfig::default() }, source.clone());
    source.hold(key("legal"));
    let long = GenerateRequest { ignore_eos: true, ..ask("finance", "How are you?", 400) };
    let mut running = engine.submit(long.clone()).unwrap();
    let loading = engine.submit(ask("legal", "How are you?", 400)).unwrap();
    assert!(matches!(running.blocking_next(), Some(Event::Step { .. })));
    wait(&engine, "one runs, one waits", |status| status.running == 1 && status.waiting == 1);
    drop(loading);
    wait(&engine, "the queue place is free", |status| status.waiting == 0);
    drop(running);
    wait(&engine, "all is free", is_at_rest);
    assert!(engine.status().totals.completion_tokens < 400);
    source.let_go();
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let engine = start(EngineConfig::default());
    let silent = engine.submit(GenerateRequest { ignore_eos: true, ..ask_base("Hello", 200) }).unwrap();
    let other = GenerateRequest { ignore_eos: true, ..ask_base("Hello", 250) };
    assert_eq!(answer(&engine, other).unwrap().tokens.len(), 250);
    wait(&engine, "both are done", is_at_rest);
    assert_eq!(collect(silent).unwrap().tokens.len(), 200);
}

#[test]
fn a_prompt_is_cached_for_its_own_tenant_and_adapter_only() {
    let engine = start(EngineConfig::default());
    let question = "Please tell me in a few words what the code E-17 in the report of last week refers to, thank you.";
    let cached = |request: GenerateRequest| answer(&engine, request).unwrap().usage.cached_prompt_tokens as usize;
    let request = ask("finance", question, 4);
    let length = request.prompt.len();
    assert!(length > 33);
    assert_eq!(cached(request.clone()), 0);
    assert_eq!(cached(request.clone()), (length - 1) / 16 * 16);
    assert_eq!(cached(GenerateRequest { tenant: tenant(2), ..request.clone() }), 0);
    assert_eq!(cached(ask("legal", question, 4)), 0);
    assert_eq!(cached(ask_base(question, 4)), 0);
    let totals = engine.status().totals.scheduler;
    assert_eq!(
        (totals.prompt_tokens as usize, totals.cached_prompt_tokens as usize),
        (5 * length, (length - 1) / 16 * 16)
    );
}

#[test]
fn a_stop_lets_running_and_waiting_requests_finish_and_takes_no_new_ones() {
    let engine = start(EngineConfig { running_max: 1, ..EngineConfig::default() });
    let request = GenerateRequest { ignore_eos: true, ..ask("finance", "Hello", 60) };
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request.clone()).unwrap()).collect();
    engine.shutdown();
    for stream in streams {
        assert_eq!(collect(stream).unwrap().tokens.len(), 60);
    }
    let refused = engine.submit(request).err().expect("no new ones");
    assert_eq!(refused.reason, domain::Reason::ShuttingDown);
    engine.shutdown();
}
