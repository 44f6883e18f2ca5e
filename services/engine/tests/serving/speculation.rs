//! Guessing changes how many steps an answer takes, and nothing of the answer.

use domain::Sampling;
use engine::{EngineConfig, FinishReason, GenerateRequest};

use crate::support::*;

fn guessing(tokens: usize, rows: usize) -> EngineConfig {
    EngineConfig { speculative_tokens_max: tokens, speculative_rows_max: rows, ..EngineConfig::default() }
}

/// Answers that say much again, of all models, greedy and drawn, with penalties, stop strings, log-probabilities and
/// limits that a guess could overrun.
fn mixture() -> Vec<GenerateRequest> {
    let request = |n: usize| {
        let industry = INDUSTRIES[n % 4];
        let question = &questions(industry)[n * 5];
        let text = format!("{question} {question} Say it again: {question}");
        let drawn = Sampling { seed: n as u64, temperature: 0.4, top_p: 0.9, ..Sampling::default() };
        let sampling = match n % 4 {
            0 | 1 => Sampling::greedy(),
            2 => drawn,
            _ => Sampling { repetition_penalty: 1.05, frequency_penalty: 0.02, presence_penalty: -0.1, ..drawn },
        };
        GenerateRequest {
            adapter: (n % 5 != 4).then(|| key(industry)),
            sampling,
            logprobs: n.is_multiple_of(2).then_some(3),
            ignore_eos: n % 3 != 2,
            stop: if n % 4 == 1 { vec!["never said".into(), " the".into()] } else { Vec::new() },
            max_tokens: 30 + 7 * n as u32,
            prompt_logprobs: n == 6,
            ..ask_base(&text, 0)
        }
    };
    (0..16).map(request).collect()
}

#[test]
fn answers_are_bit_for_bit_the_same_with_guesses_and_without() {
    let plain = {
        let engine = start(EngineConfig { prefix_cache: false, ..guessing(0, 0) });
        let all: Vec<_> = mixture().into_iter().map(|request| answer(&engine, request).unwrap()).collect();
        wait(&engine, "the last step is counted", is_at_rest);
        let totals = engine.status().totals;
        assert_eq!((totals.drafted_tokens, totals.accepted_tokens), (0, 0));
        all
    };
    for reason in [FinishReason::Eos, FinishReason::Stop, FinishReason::Length] {
        assert!(plain.iter().any(|answer| answer.reason == reason), "the mixture has no {reason:?}");
    }
    let blocks = |n, config| EngineConfig { kv_bytes_max: kv(n).kv_bytes_max, running_max: 16, ..config };
    let configs = [
        ("as it comes", EngineConfig::default()),
        ("many guesses", EngineConfig { speculative_pause_max: 0, prefill_tokens_max: 50, ..guessing(15, 1000) }),
        ("hardly any KV memory", blocks(24, EngineConfig { speculative_ngram_min: 1, ..guessing(8, 1000) })),
    ];
    for (name, config) in configs {
        let engine = start(EngineConfig { prefix_cache: false, ..config.clone() });
        let streams: Vec<_> = mixture().into_iter().map(|request| engine.submit(request).unwrap()).collect();
        for (n, (stream, expected)) in streams.into_iter().zip(&plain).enumerate() {
            let own = collect(stream).unwrap();
            assert_eq!(own.content(), expected.content(), "{name}, request {n}");
            // Alternatives, prompt scores and usage as well.
            assert_eq!(own, *expected, "{name}, request {n}");
        }
        wait(&engine, "all blocks come back", is_at_rest);
        let totals = engine.status().totals;
        assert!(totals.accepted_tokens <= totals.drafted_tokens);
        assert_eq!(totals.completion_tokens, plain.iter().map(|answer| answer.tokens.len() as u64).sum::<u64>());

        // With a prefix cache, twice: what guesses left behind must not be found.
        let engine = start(config);
        for round in 0..2 {
            let streams: Vec<_> = mixture().into_iter().map(|request| engine.submit(request).unwrap()).collect();
            for (n, (stream, expected)) in streams.into_iter().zip(&plain).enumerate() {
                assert_eq!(
                    collect(stream).unwrap().content(),
                    expected.content(),
                    "{name}, round {round}, request {n}"
                );
            }
        }
        assert!(engine.status().totals.accepted_tokens > 0, "{name}");
    }
}

#[test]
fn an_answer_that_repeats_itself_takes_far_fewer_steps() {
    let steps = |config| {
        let engine = start(config);
        let request = GenerateRequest { ignore_eos: true, ..ask_base("one two one two one two one two", 300) };
        assert_eq!(answer(&engine, request).unwrap().tokens.len(), 300);
        wait(&engine, "its last step is counted", is_at_rest);
        let totals = engine.status().totals;
        // The prompt's step gives the first token; every other step one, and one for each good guess.
        assert_eq!(totals.steps + totals.accepted_tokens, 300);
        totals.steps
    };
    assert_eq!(steps(guessing(0, 8)), 300);
    let fewer = steps(guessing(4, 8));
    assert!(fewer < 200, "{fewer} steps");
}

#[test]
fn no_answer_is_longer_than_asked_for() {
    let engine = start(EngineConfig { speculative_ngram_min: 1, ..guessing(16, 64) });
    for max_tokens in 1..20 {
        let request = GenerateRequest { ignore_eos: true, ..ask_base("yes yes yes yes yes yes yes", max_tokens) };
        let own = answer(&engine, request).unwrap();
        assert_eq!((own.tokens.len() as u32, own.usage.completion_tokens), (max_tokens, max_tokens));
    }
}
