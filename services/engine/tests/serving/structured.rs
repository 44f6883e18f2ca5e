//! Answers that must have a form have it, whoever shares the batch, and nobody else notices.

use domain::{Detail, Reason, ResponseFormat, Sampling};
use engine::{EngineConfig, FinishReason, GenerateRequest, GrammarConfig};
use serde_json::Value;

use crate::support::*;

const SCHEMA: &str = r##"{
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "^[A-F]-[0-9]{1,2}$"},
        "meaning": {"type": "string", "maxLength": 30},
        "severity": {"enum": ["low", "high", null]},
        "pages": {"type": "array", "items": {"$ref": "#/$defs/page"}, "maxItems": 3}
    },
    "required": ["code", "meaning", "severity"],
    "additionalProperties": false,
    "$defs": {"page": {"type": "integer", "minimum": 1, "maximum": 99}}
}"##;

fn schema() -> Option<ResponseFormat> {
    Some(ResponseFormat::JsonSchema(SCHEMA.to_owned()))
}

/// Written out by hand, so that it is not the library that judges itself.
fn fits(text: &str) -> bool {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return false };
    let code = object.get("code").and_then(Value::as_str).and_then(|code| code.split_once('-'));
    let good_code = code.is_some_and(|(letter, digits)| {
        ["A", "B", "C", "D", "E", "F"].contains(&letter)
            && (1..=2).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let meaning = object.get("meaning").and_then(Value::as_str).is_some_and(|text| text.chars().count() <= 30);
    let severity =
        object.get("severity").is_some_and(|value| [Value::Null, "low".into(), "high".into()].contains(value));
    let page = |value: &Value| value.as_u64().is_some_and(|page| (1..=99).contains(&page));
    let pages = object
        .get("pages")
        .is_none_or(|value| value.as_array().is_some_and(|pages| pages.len() <= 3 && pages.iter().all(page)));
    let known = object.keys().all(|key| ["code", "meaning", "severity", "pages"].contains(&key.as_str()));
    good_code && meaning && severity && pages && known
}

fn drawn(n: usize) -> Sampling {
    Sampling { seed: n as u64, temperature: [1.0, 0.7, 2.0][n % 3], top_p: 0.98, ..Sampling::default() }
}

/// Four models and the base in turn; every third without a form.
fn mixture() -> Vec<GenerateRequest> {
    let request = |n: usize| {
        let industry = INDUSTRIES[n % 4];
        let sampling = match n % 4 {
            0 => Sampling::greedy(),
            1 => Sampling { frequency_penalty: 0.3, repetition_penalty: 1.1, ..drawn(n) },
            _ => drawn(n),
        };
        GenerateRequest {
            adapter: (n % 5 != 4).then(|| key(industry)),
            sampling,
            response_format: if n % 3 == 2 { None } else { schema() },
            logprobs: n.is_multiple_of(2).then_some(2),
            ..ask_base(&questions(industry)[n * 3], 160)
        }
    };
    (0..24).map(request).collect()
}

#[test]
fn every_answer_that_ends_by_itself_fits_its_schema_and_company_changes_no_bit() {
    let alone: Vec<_> = {
        let engine = start(EngineConfig::default());
        mixture().into_iter().map(|request| answer(&engine, request).unwrap()).collect()
    };
    let mut ended = 0;
    for (request, own) in mixture().iter().zip(&alone).filter(|(request, _)| request.response_format.is_some()) {
        match own.reason {
            FinishReason::Eos => assert!(fits(&own.text), "{:?}: {}", request.sampling, own.text),
            // Cut, as documented.
            FinishReason::Length => assert_eq!(own.tokens.len(), 160),
            FinishReason::Stop | FinishReason::Budget => panic!("no stop strings, and all is granted"),
        }
        ended += usize::from(own.reason == FinishReason::Eos);
    }
    assert!(ended >= 14, "{ended} of 16 end by themselves");
    // Those without a form are what they are when nobody has one.
    let plain = start(EngineConfig { speculative_tokens_max: 0, ..EngineConfig::default() });
    for (request, own) in mixture().into_iter().zip(&alone).filter(|(request, _)| request.response_format.is_none()) {
        assert_eq!(answer(&plain, request).unwrap().content(), own.content());
    }
    let configs = [
        ("as it comes", EngineConfig::default()),
        (
            "one grammar thread",
            EngineConfig {
                grammar: GrammarConfig { threads: 1, ..GrammarConfig::default() },
                ..EngineConfig::default()
            },
        ),
        ("hardly any KV memory", EngineConfig { running_max: 16, ..kv(30) }),
    ];
    for (name, config) in configs {
        let engine = start(config);
        let streams: Vec<_> = mixture().into_iter().map(|request| engine.submit(request).unwrap()).collect();
        for (n, (stream, expected)) in streams.into_iter().zip(&alone).enumerate() {
            assert_eq!(collect(stream).unwrap().content(), expected.content(), "{name}, request {n}");
        }
        wait(&engine, "all blocks come back", is_at_rest);
    }
}

#[test]
fn many_seeds_of_a_short_form_all_end_and_fit() {
    let engine = start(EngineConfig::default());
    let format = ResponseFormat::Regex("(yes|no), [A-F]-[0-9]{2}(, [A-F]-[0-9]{2}){0,2}\\.".to_owned());
    let request = |n: usize| GenerateRequest {
        sampling: drawn(n),
        response_format: Some(format.clone()),
        ..ask(INDUSTRIES[n % 4], "Which codes do you know?", 60)
    };
    let streams: Vec<_> = (0..64).map(|n| engine.submit(request(n)).unwrap()).collect();
    let mut texts = std::collections::HashSet::new();
    for stream in streams {
        let own = collect(stream).unwrap();
        assert_eq!(own.reason, FinishReason::Eos, "{}", own.text);
        let rest = own.text.strip_prefix("yes, ").or(own.text.strip_prefix("no, ")).expect("yes or no");
        let codes: Vec<_> = rest.strip_suffix('.').expect("a full stop").split(", ").collect();
        assert!((1..=3).contains(&codes.len()), "{}", own.text);
        for code in codes {
            let bytes = code.as_bytes();
            assert!(bytes.len() == 4 && (b'A'..=b'F').contains(&bytes[0]) && bytes[1] == b'-', "{}", own.text);
            assert!(bytes[2..].iter().all(u8::is_ascii_digit), "{}", own.text);
        }
        texts.insert(own.text);
    }
    assert!(texts.len() > 20, "seeds matter: {texts:?}");
}

#[test]
fn log_probabilities_are_those_of_the_model_without_the_form() {
    let engine = start(EngineConfig::default());
    let free = GenerateRequest { logprobs: Some(1), ..ask("finance", &questions("finance")[0], 1) };
    let formed = GenerateRequest { response_format: Some(ResponseFormat::JsonObject), ..free.clone() };
    let (free, formed) = (answer(&engine, free).unwrap(), answer(&engine, formed).unwrap());
    // The same alternatives with the same scores, but another choice, and an unlikely one.
    assert_eq!(free.tokens[0].top, formed.tokens[0].top);
    assert_ne!(free.ids(), formed.ids());
    assert!(formed.text.starts_with('{'));
    assert!(formed.tokens[0].logprob < free.tokens[0].logprob);
}

#[test]
fn a_form_that_cannot_be_served_ends_its_own_request_only_and_says_why() {
    let engine = start(EngineConfig::default());
    let other = engine.submit(GenerateRequest { ignore_eos: true, ..ask_base("Hello", 100) }).unwrap();
    let bad = |format| GenerateRequest { response_format: Some(format), ..ask_base("Hello", 20) };
    let fault = answer(&engine, bad(ResponseFormat::JsonSchema(r#"{"type": "strin"}"#.to_owned()))).unwrap_err();
    assert_eq!(fault.reason, Reason::InvalidRequest);
    assert!(
        matches!(&fault.details[..], [Detail::Violation { field, description, .. }]
            if field == "response_format" && description.contains("strin")),
        "{fault:?}"
    );
    assert_eq!(collect(other).unwrap().tokens.len(), 100);

    let small = start(EngineConfig {
        grammar: GrammarConfig { source_bytes_max: 100, ..GrammarConfig::default() },
        ..EngineConfig::default()
    });
    let at_the_door = [
        GenerateRequest { ignore_eos: true, ..bad(ResponseFormat::JsonObject) },
        bad(ResponseFormat::Regex("a".repeat(101))),
        bad(ResponseFormat::Lark(String::new())),
    ];
    for request in at_the_door {
        let fault = small.submit(request).err().expect("refused at once");
        assert!(matches!(&fault.details[..], [Detail::Violation { field, .. }] if field == "response_format"));
    }
    wait(&engine, "nothing is left", is_at_rest);
}

#[test]
fn limits_stop_strings_and_cancelling_hold_for_formed_answers_too() {
    let engine = start(EngineConfig::default());
    let base = GenerateRequest { response_format: schema(), ..ask("legal", "Hello", 5) };
    let cut = answer(&engine, base.clone()).unwrap();
    assert_eq!((cut.reason, cut.tokens.len()), (FinishReason::Length, 5));
    let stop = GenerateRequest { stop: vec!["\"code\"".to_owned()], max_tokens: 100, ..base.clone() };
    let stopped = answer(&engine, stop).unwrap();
    assert_eq!((stopped.reason, stopped.text.trim()), (FinishReason::Stop, "{"));
    drop(engine.submit(GenerateRequest { max_tokens: 300, ..base.clone() }).unwrap());
    wait(&engine, "it is gone", is_at_rest);
    let prompt_scores = answer(&engine, GenerateRequest { prompt_logprobs: true, ..base }).unwrap();
    assert_eq!(prompt_scores.prompt_logprobs.map(|scores| scores.len()), Some(chat("Hello").len() - 1));
    assert_eq!(prompt_scores.text, cut.text);
}
