//! An answer that another engine has begun goes on as if nothing had happened, from whatever place.

use domain::{Reason, ResponseFormat, Sampling};
use engine::{Beginning, EngineConfig, EngineHandle, Event, FinishReason, GenerateRequest, Grants};

use crate::support::*;

/// An answer as its reader saw it grow.
struct Grown {
    whole: Whole,
    /// Bytes of text that were there with so many tokens.
    text_bytes: Vec<usize>,
}

fn grow(engine: &EngineHandle, request: GenerateRequest) -> Grown {
    let mut events = engine.submit(request.clone()).unwrap();
    let (mut bytes, mut text_bytes) = (0, vec![0]);
    loop {
        match events.blocking_next().expect("an end") {
            Event::Step { text, tokens } => {
                bytes += text.len();
                assert_eq!(tokens.len(), 1);
                text_bytes.push(bytes);
            }
            Event::Done { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    Grown { whole: answer(engine, request).unwrap(), text_bytes }
}

fn resumed(request: &GenerateRequest, tokens: &[u32], text_bytes: usize) -> GenerateRequest {
    let beginning = Beginning { tokens: tokens.to_vec(), text_bytes };
    GenerateRequest { beginning, ..request.clone() }
}

/// Every kind of answer: greedy and drawn, with penalties, log-probabilities, stop strings that are cut between tokens,
/// with a form to keep to, ended by the model, by a stop string and by their length.
fn all_kinds(engine: &EngineHandle) -> Vec<(&'static str, GenerateRequest)> {
    let drawn = Sampling { seed: 11, temperature: 0.9, top_p: 0.95, top_k: 200, ..Sampling::default() };
    let penalised = Sampling { repetition_penalty: 1.2, frequency_penalty: 0.3, presence_penalty: 0.1, ..drawn };
    let free = ask("finance", &questions("finance")[0], 24);
    let text = answer(engine, GenerateRequest { ignore_eos: true, ..free.clone() }).unwrap().text;
    // From the middle of one word to the middle of a later one: over several tokens.
    let stop = text.chars().skip(text.chars().count() / 2).take(7).collect::<String>();
    vec![
        ("greedy", free.clone()),
        ("to its own end", ask("legal", &questions("legal")[1], 120)),
        ("the base", GenerateRequest { ignore_eos: true, ..ask_base("Hello", 20) }),
        ("drawn", GenerateRequest { sampling: drawn, logprobs: Some(2), ignore_eos: true, ..free.clone() }),
        ("penalised", GenerateRequest { sampling: penalised, logprobs: Some(0), ..free.clone() }),
        ("stopped", GenerateRequest { stop: vec![stop, "never said".to_owned()], ..free.clone() }),
        (
            "formed",
            GenerateRequest {
                response_format: Some(ResponseFormat::Regex("([a-z]{3} ){4}end".to_owned())),
                ..ask("healthcare", "Hello", 40)
            },
        ),
        (
            "formed and drawn",
            GenerateRequest {
                response_format: Some(ResponseFormat::JsonObject),
                sampling: drawn,
                ..ask("legal", "Hello", 24)
            },
        ),
    ]
}

#[test]
fn from_any_place_an_answer_goes_on_as_without_the_fault() {
    let first = start(EngineConfig::default());
    let kinds = all_kinds(&first);
    let configs = [
        EngineConfig { waiting_max: 4096, ..EngineConfig::default() },
        EngineConfig { waiting_max: 4096, speculative_tokens_max: 0, prefix_cache: false, ..EngineConfig::default() },
    ];
    let mut reasons = Vec::new();
    for config in configs {
        let second = start(EngineConfig {
            fairness: engine::FairnessConfig { tenant_waiting_max: 4096, ..config.fairness.clone() },
            ..config
        });
        for (kind, request) in &kinds {
            let Grown { whole, text_bytes } = grow(&first, request.clone());
            let ids = whole.ids();
            reasons.push(whole.reason);
            // All of them together, so that each has others for company.
            let places: Vec<_> = (0..=ids.len()).collect();
            let streams: Vec<_> = places
                .iter()
                .map(|at| second.submit(resumed(request, &ids[..*at], text_bytes[*at])).expect("is taken"))
                .collect();
            for (at, stream) in places.into_iter().zip(streams) {
                let rest = collect(stream).unwrap_or_else(|fault| panic!("{kind} at {at}: {fault:?}"));
                assert_eq!(rest.text, whole.text[text_bytes[at]..], "{kind} at {at}");
                assert_eq!(rest.tokens, whole.tokens[at..], "{kind} at {at}");
                assert_eq!((rest.reason, rest.adapter_digest), (whole.reason, whole.adapter_digest), "{kind} at {at}");
                let counts = |whole: &Whole| (whole.usage.prompt_tokens, whole.usage.completion_tokens);
                assert_eq!(counts(&rest), counts(&whole), "{kind} at {at}");
                assert!(rest.usage.cached_prompt_tokens <= rest.usage.prompt_tokens);
            }
        }
        wait(&second, "all is free", is_at_rest);
        let totals = second.status().totals;
        assert!(totals.taken_over_tokens > 0);
    }
    for reason in [FinishReason::Eos, FinishReason::Stop, FinishReason::Length] {
        assert!(reasons.contains(&reason), "no answer ended with {reason:?}");
    }
}

#[test]
fn the_reader_gets_what_it_does_not_have_of_the_text() {
    let engine = start(EngineConfig::default());
    let request = ask("finance", &questions("finance")[0], 16);
    let Grown { whole, text_bytes } = grow(&engine, request.clone());
    let at = 8;
    for had in (0..=text_bytes[at]).filter(|had| whole.text.is_char_boundary(*had)) {
        let rest = answer(&engine, resumed(&request, &whole.ids()[..at], had)).unwrap();
        assert_eq!((rest.text.as_str(), rest.ids().as_slice()), (&whole.text[had..], &whole.ids()[at..]));
    }
}

#[test]
fn a_resumed_answer_keeps_to_its_grant() {
    let engine = start(EngineConfig::default());
    let request = GenerateRequest { id: "r".to_owned(), ignore_eos: true, ..ask("finance", "Hello", 20) };
    let Grown { whole, text_bytes } = grow(&engine, request.clone());
    let ids = whole.ids();
    for granted in [7, 8, 12] {
        let request = GenerateRequest { granted_tokens: Some(granted), ..resumed(&request, &ids[..7], text_bytes[7]) };
        let mut stream = engine.submit(request).unwrap();
        let mut got = 7;
        loop {
            match stream.blocking_next().expect("it parks") {
                Event::Step { tokens, .. } => got += tokens.len() as u32,
                Event::Parked => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, granted);
        assert!(engine.extend("r", 16, Grants::Closed));
        let rest = collect(stream).unwrap();
        assert_eq!((rest.ids().as_slice(), rest.reason), (&ids[granted as usize..16], FinishReason::Budget));
        assert_eq!(rest.usage.completion_tokens, 16);
    }
    wait(&engine, "all is free", is_at_rest);
}

#[test]
fn a_beginning_that_cannot_be_one_is_refused() {
    let engine = start(EngineConfig::default());
    let request = ask("finance", &questions("finance")[0], 100);
    let Grown { whole, text_bytes } = grow(&engine, request.clone());
    assert_eq!(whole.reason, FinishReason::Eos);
    let ids = whole.ids();
    let behind_the_end = [&ids[..], &[5]].concat();
    let too_many = GenerateRequest { max_tokens: 4, ..resumed(&request, &ids[..5], 0) };
    let beyond_grant = GenerateRequest { granted_tokens: Some(3), ..resumed(&request, &ids[..5], 0) };
    let scored = GenerateRequest { prompt_logprobs: true, ..resumed(&request, &ids[..5], 0) };
    let faulty = [
        resumed(&request, &[1_000_000], 0),
        resumed(&request, &behind_the_end, 0),
        resumed(&request, &ids[..5], text_bytes[5] + 1000),
        too_many,
        beyond_grant,
        scored,
    ];
    for request in faulty {
        let fault = engine.submit(request.clone()).err().unwrap_or_else(|| panic!("refused: {request:?}"));
        assert_eq!(fault.reason, Reason::InvalidRequest);
    }
    // What has a form is only known to break it when its grammar is there.
    let formed = GenerateRequest {
        response_format: Some(ResponseFormat::Regex("[0-9]{12}".to_owned())),
        ..resumed(&request, &ids[..5], 0)
    };
    let fault = answer(&engine, formed).unwrap_err();
    assert_eq!(fault.reason, Reason::InvalidRequest);
    assert!(format!("{fault:?}").contains("generated"), "{fault:?}");
    wait(&engine, "all is free", is_at_rest);
}

#[test]
fn an_engine_that_must_end_hands_its_answers_over() {
    let engine = start(EngineConfig { running_max: 2, ..EngineConfig::default() });
    let request = |n: usize| GenerateRequest { ignore_eos: true, ..ask("finance", &questions("finance")[n], 300) };
    let mut streams: Vec<_> = (0..4).map(|n| engine.submit(request(n)).unwrap()).collect();
    let progress: Vec<_> = streams.iter().map(|stream| stream.progress().clone()).collect();
    // The first two run, the others wait.
    assert!(matches!(streams[0].blocking_next(), Some(Event::Step { .. })));
    let before = engine.status().totals.steps;
    engine.end();
    assert!(engine.is_stopping());
    assert_eq!(engine.submit(request(5)).err().expect("refused").reason, Reason::ShuttingDown);
    for stream in streams {
        assert_eq!(collect(stream).unwrap_err().reason, Reason::ShuttingDown);
    }
    engine.shutdown();
    assert!(engine.status().totals.steps <= before + 2, "it ends at its next turn");
    assert!(progress.iter().all(engine::Progress::has_ended));
    assert!(progress[0].usage().completion_tokens > 0 && progress[3].usage().completion_tokens == 0);
}

#[test]
fn what_nobody_reads_any_more_costs_one_step() {
    let engine = start(EngineConfig { speculative_tokens_max: 0, ..EngineConfig::default() });
    for beginning in [0, 40] {
        let request = GenerateRequest { ignore_eos: true, ..ask("finance", "Hello", 400) };
        let Grown { whole, text_bytes } = grow(&engine, GenerateRequest { max_tokens: 41, ..request.clone() });
        let ids = whole.ids();
        let mut stream = engine.submit(resumed(&request, &ids[..beginning], text_bytes[beginning])).unwrap();
        assert!(matches!(stream.blocking_next(), Some(Event::Step { .. })));
        let progress = stream.progress().clone();
        drop(stream);
        let at_drop = progress.usage().completion_tokens;
        wait(&engine, "all is free", |status| progress.has_ended() && is_at_rest(status));
        let after = progress.usage().completion_tokens - at_drop;
        assert!(after <= 1, "{after} tokens after the reader had gone");
    }
}
