//! Answers that are granted piece by piece: the same as those granted at once, and never longer than what was granted.

use domain::{ResponseFormat, Sampling};
use engine::{EngineConfig, EngineHandle, Event, EventStream, FinishReason, GenerateRequest, Grants, Usage};

use crate::support::*;

fn granted(request: &GenerateRequest, id: &str, tokens: u32) -> GenerateRequest {
    GenerateRequest { id: id.to_owned(), granted_tokens: Some(tokens), ..request.clone() }
}

/// Reads to the end, with `more` tokens at each bound until `most`, and then the end there.
fn read(engine: &EngineHandle, mut events: EventStream, id: &str, first: u32, more: u32, most: u32) -> Read {
    let (mut text, mut ids, mut granted, mut parks) = (String::new(), Vec::new(), first, 0);
    loop {
        match events.blocking_next().expect("an end") {
            Event::Step { text: new, tokens } => {
                text += &new;
                ids.extend(tokens.into_iter().map(|token| token.id));
                assert!(ids.len() <= granted as usize, "{} tokens of {granted}", ids.len());
            }
            Event::Parked => {
                assert_eq!(ids.len(), granted as usize);
                parks += 1;
                if granted < most {
                    granted = (granted + more).min(most);
                    assert!(engine.extend(id, granted, Grants::Open));
                } else {
                    assert!(engine.extend(id, 0, Grants::Closed));
                }
            }
            Event::Done { reason, usage, .. } => return Read { text, ids, reason, usage, parks },
            other => panic!("{other:?}"),
        }
    }
}

struct Read {
    text: String,
    ids: Vec<u32>,
    reason: FinishReason,
    usage: Usage,
    parks: u32,
}

#[test]
fn an_answer_granted_in_pieces_is_the_one_granted_at_once_bit_for_bit() {
    let sampling = Sampling { seed: 7, temperature: 0.8, ..Sampling::default() };
    let long = GenerateRequest { ignore_eos: true, sampling, ..ask("finance", &questions("finance")[0], 70) };
    let formed = GenerateRequest {
        response_format: Some(ResponseFormat::Regex("([a-z]{3} ){12}".to_owned())),
        ..ask("legal", "Hello", 60)
    };
    for speculative_tokens_max in [0, 4] {
        let engine = start(EngineConfig { speculative_tokens_max, ..EngineConfig::default() });
        for request in [long.clone(), formed.clone(), ask("finance", &questions("finance")[1], 80)] {
            let whole = answer(&engine, request.clone()).unwrap();
            for (first, more) in [(1, 1), (3, 7), (16, 32)] {
                let stream = engine.submit(granted(&request, "r", first)).unwrap();
                // Others come and go meanwhile.
                let other = engine.submit(ask_base("Hello", 20)).unwrap();
                let pieces = read(&engine, stream, "r", first, more, request.max_tokens);
                assert_eq!((pieces.ids, &pieces.text), (whole.ids(), &whole.text));
                assert_eq!(
                    (pieces.reason, pieces.usage.completion_tokens),
                    (whole.reason, whole.usage.completion_tokens)
                );
                assert_eq!(pieces.parks > 0, whole.tokens.len() > first as usize);
                collect(other).unwrap();
            }
        }
        wait(&engine, "all is free", is_at_rest);
    }
}

#[test]
fn when_no_more_comes_the_answer_ends_with_what_was_granted() {
    let engine = start(EngineConfig::default());
    let request = GenerateRequest { ignore_eos: true, ..ask("finance", &questions("finance")[0], 60) };
    let whole = answer(&engine, request.clone()).unwrap();
    for most in [1, 9, 16, 33] {
        let stream = engine.submit(granted(&request, "r", 1)).unwrap();
        let cut = read(&engine, stream, "r", 1, 8, most);
        assert_eq!((cut.ids.as_slice(), cut.reason), (&whole.ids()[..most as usize], FinishReason::Budget));
        assert_eq!(cut.usage.completion_tokens, most);
        assert_eq!(cut.text, TEXT.decode(&cut.ids).unwrap(), "held-back text comes out");
    }
    // Said before it got there.
    let stream = engine.submit(granted(&request, "r", 2)).unwrap();
    assert!(engine.extend("r", 20, Grants::Closed));
    let cut = collect(stream).unwrap();
    assert_eq!((cut.ids().as_slice(), cut.reason), (&whole.ids()[..20], FinishReason::Budget));
    // The stream itself can say so.
    let mut stream = engine.submit(granted(&request, "r", 5)).unwrap();
    stream.end_if_parked();
    while !matches!(stream.blocking_next().expect("it parks"), Event::Parked) {}
    stream.end_if_parked();
    assert!(matches!(stream.blocking_next(), Some(Event::Done { reason: FinishReason::Budget, .. })));
    wait(&engine, "all is free", is_at_rest);
}

#[test]
fn a_grant_for_nobody_does_nothing() {
    let engine = start(EngineConfig::default());
    assert!(!engine.extend("unknown", 5, Grants::Open) && !engine.extend("", 5, Grants::Closed));
    let request = ask("finance", &questions("finance")[0], 12);
    let whole = answer(&engine, granted(&request, "whole", 12)).unwrap();
    assert!(!engine.extend("whole", 50, Grants::Closed), "it has ended");
    let stream = engine.submit(granted(&request, "dropped", 2)).unwrap();
    drop(stream);
    assert!(!engine.extend("dropped", 50, Grants::Open));
    // An id that comes again is another request.
    let first = engine.submit(granted(&request, "again", 2)).unwrap();
    let second = engine.submit(granted(&request, "again", 2)).unwrap();
    drop(first);
    assert!(engine.extend("again", 12, Grants::Open));
    assert_eq!(collect(second).unwrap().content(), whole.content());
    wait(&engine, "all is free", is_at_rest);
}
