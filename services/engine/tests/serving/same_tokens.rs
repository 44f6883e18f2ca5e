//! Invariant 8: the same tokens alone and in any batch, bit for bit; and they are those of the plain loop.

use adapters::{Container, Limits};
use domain::Sampling;
use engine::model::{Adapter, Batch, BlockId, LogitsRows, SequenceSlice};
use engine::{EngineConfig, FinishReason, GenerateRequest};

use crate::support::*;

/// Greedy decoding without an engine: the whole text anew for every token.
fn naive(adapter: Option<&Adapter>, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + max_tokens {
        let mut next = 0;
        forward_all(adapter, &tokens, LogitsRows::Last, &mut |_, logits| {
            let larger = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
            next = (1..logits.len()).fold(0, larger) as u32;
        });
        tokens.push(next);
        if MODEL.config().eos_token_ids.contains(&next) {
            break;
        }
    }
    tokens.split_off(prompt.len())
}

fn forward_all(adapter: Option<&Adapter>, tokens: &[u32], logits: LogitsRows, take: &mut dyn FnMut(&[usize], &[f32])) {
    let blocks: Vec<_> = (0..tokens.len().div_ceil(16) as u32).map(BlockId).collect();
    let sequence =
        SequenceSlice { rows: 0..tokens.len(), past: 0, blocks: &blocks, adapter, logits, rope_length: tokens.len() };
    let mut kv = MODEL.new_kv_cache(blocks.len());
    MODEL.forward(&Batch { tokens, sequences: &[sequence] }, &mut kv, take);
}

fn load(industry: &str) -> Adapter {
    let (files, limits) = (files(industry), Limits::default());
    let weights = Container::parse(files.weights, &limits).unwrap();
    let plan = adapters::judge(&files.config, &weights, MODEL.base(), &limits).unwrap();
    Adapter::load(&MODEL, &plan, &weights).unwrap()
}

#[test]
fn the_engine_answers_as_the_naive_loop_over_forward() {
    let engine = start(EngineConfig::default());
    for industry in INDUSTRIES {
        let adapter = load(industry);
        for question in questions(industry).iter().step_by(40).take(3) {
            let request = ask(industry, question, 48);
            let expected = naive(Some(&adapter), &request.prompt, 48);
            let own = answer(&engine, request).unwrap();
            assert_eq!(own.ids(), expected, "{industry}: {question}");
            assert_eq!(own.text, TEXT.decode(&expected).unwrap());
            assert_eq!(own.adapter_digest, Some(key(industry).digest));
            let base = ask_base(question, 48);
            assert_eq!(answer(&engine, base.clone()).unwrap().ids(), naive(None, &base.prompt, 48), "{question}");
        }
    }
}

#[test]
fn prompt_log_probabilities_are_those_of_one_forward_pass_whatever_the_chunks() {
    let mut request = ask("finance", &questions("finance")[0], 0);
    request.prompt_logprobs = true;
    let mut expected = Vec::new();
    forward_all(Some(&load("finance")), &request.prompt, LogitsRows::All, &mut |rows, logits| {
        for (row, logits) in rows.iter().zip(logits.chunks_exact(MODEL.config().vocab_size)) {
            if let Some(next) = request.prompt.get(row + 1) {
                let best = logits.iter().copied().fold(f32::MIN, f32::max);
                let sum: f64 = logits.iter().map(|logit| f64::from(logit - best).exp()).sum();
                expected.push((f64::from(logits[*next as usize] - best) - sum.ln()) as f32);
            }
        }
    });
    let mut bits = Vec::new();
    for prefill_tokens_max in [1, 7, 512] {
        let engine = start(EngineConfig { prefill_tokens_max, ..EngineConfig::default() });
        // The second time the prompt is in the prefix cache, and scores must come all the same.
        for _ in 0..2 {
            let own = answer(&engine, request.clone()).unwrap();
            let scores = own.prompt_logprobs.expect("asked for");
            assert_eq!(
                (own.tokens.len(), own.reason, scores.len()),
                (0, FinishReason::Length, request.prompt.len() - 1)
            );
            assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?} {expected:?}");
            bits.push(scores.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
        let with_answer = answer(&engine, GenerateRequest { max_tokens: 8, ..request.clone() }).unwrap();
        assert_eq!(with_answer.ids(), answer(&engine, ask("finance", &questions("finance")[0], 8)).unwrap().ids());
        bits.push(with_answer.prompt_logprobs.unwrap().into_iter().map(f32::to_bits).collect());
    }
    assert!(bits.iter().all(|other| *other == bits[0]));
}

/// Sixteen requests of all kinds: five models, greedy and drawn, with and without penalties and log-probabilities.
fn mixture() -> Vec<GenerateRequest> {
    let request = |n: usize| {
        let industry = INDUSTRIES[n % 4];
        let question = &questions(industry)[n * 7];
        let sampling = Sampling { seed: n as u64, temperature: 0.9, top_p: 0.95, top_k: 200, ..Sampling::default() };
        let sampling = match n % 3 {
            0 => Sampling::greedy(),
            1 => sampling,
            _ => Sampling { repetition_penalty: 1.2, frequency_penalty: 0.3, presence_penalty: 0.1, ..sampling },
        };
        GenerateRequest {
            adapter: (n % 5 != 4).then(|| key(industry)),
            sampling,
            logprobs: n.is_multiple_of(2).then_some(2),
            ignore_eos: n % 4 == 1,
            max_tokens: 20 + 2 * n as u32,
            ..ask_base(question, 0)
        }
    };
    (0..16).map(request).collect()
}

#[test]
fn an_answer_is_the_same_alone_and_in_any_company() {
    let alone: Vec<_> = {
        let engine = start(EngineConfig { prefix_cache: false, ..EngineConfig::default() });
        mixture().into_iter().map(|request| answer(&engine, request).unwrap().content()).collect()
    };
    assert!(alone.iter().any(|(text, ..)| text.len() > 20));
    let tight = EngineConfig { running_max: 16, ..kv(12) };
    let companies = [
        ("all at once", EngineConfig::default(), false),
        ("one prompt token a step", EngineConfig { prefill_tokens_max: 1, ..EngineConfig::default() }, false),
        ("seven prompt tokens a step", EngineConfig { prefill_tokens_max: 7, ..EngineConfig::default() }, false),
        ("no guesses", EngineConfig { speculative_tokens_max: 0, ..EngineConfig::default() }, false),
        ("no prefix cache", EngineConfig { prefix_cache: false, ..EngineConfig::default() }, false),
        ("three at a time", EngineConfig { running_max: 3, ..EngineConfig::default() }, false),
        ("hardly any KV memory", tight.clone(), true),
        ("hardly any KV memory and no prefix cache", EngineConfig { prefix_cache: false, ..tight }, true),
    ];
    for (name, config, preempts) in companies {
        let engine = start(config);
        // Twice, so that the second time prompts and answers are in the prefix cache.
        for round in 0..2 {
            let streams: Vec<_> = mixture().into_iter().map(|request| engine.submit(request).unwrap()).collect();
            for (n, (stream, expected)) in streams.into_iter().zip(&alone).enumerate() {
                assert_eq!(collect(stream).unwrap().content(), *expected, "{name}, round {round}, request {n}");
            }
        }
        wait(&engine, "all blocks come back", is_at_rest);
        assert_eq!(engine.status().totals.scheduler.preemptions > 0, preempts, "{name}");
    }
}
