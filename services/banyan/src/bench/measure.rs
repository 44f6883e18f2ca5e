//! One case, measured: a batch of equal requests through the engine, several times.

use std::{pin::pin, time::Instant};

use engine::{AdapterKey, EngineHandle, Event, EventStream, GenerateRequest};
use futures::{StreamExt as _, stream};

use crate::{failure::Failure, local_adapter::nobody};

pub struct Case<'a> {
    pub batch: usize,
    /// Given out in turn; empty is the base alone.
    pub adapters: &'a [AdapterKey],
    pub prompt_tokens: usize,
    pub decode_tokens: u32,
    pub repeats: usize,
    pub vocab_size: usize,
}

/// Medians, in tokens per second over the whole batch.
pub struct Measured {
    pub prefill: f64,
    pub decode: f64,
}

/// # Errors
/// What the engine refuses.
pub async fn measure(engine: &EngineHandle, case: &Case<'_>) -> Result<Measured, Failure> {
    // Brings every adapter into memory; not measured.
    for adapter in case.adapters {
        run(engine, vec![request(case, Some(*adapter), 0, 1)]).await?;
    }
    run(engine, requests(case, 0, 1)).await?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for repeat in 0..case.repeats {
        let only_prompts = run(engine, requests(case, repeat, 1)).await?;
        prefill.push((case.batch * case.prompt_tokens) as f64 / only_prompts.seconds);
        let answers = run(engine, requests(case, repeat, case.decode_tokens)).await?;
        decode.push(answers.decode_tokens as f64 / answers.decode_seconds);
    }
    Ok(Measured { prefill: median(prefill), decode: median(decode) })
}

struct Run {
    /// From the first submission to the last end.
    seconds: f64,
    /// Tokens that came while every sequence was decoding, and how long that was.
    decode_tokens: usize,
    decode_seconds: f64,
}

async fn run(engine: &EngineHandle, requests: Vec<GenerateRequest>) -> Result<Run, Failure> {
    let refused = |fault: domain::Fault| Failure::Failed(fault.to_string());
    let batch = requests.len();
    let begin = Instant::now();
    let streams: Vec<_> =
        requests.into_iter().map(|request| engine.submit(request)).collect::<Result<_, _>>().map_err(refused)?;
    let mut events = pin!(stream::select_all(streams.into_iter().enumerate().map(events_of)));
    let mut started = vec![false; batch];
    let mut all_started = None;
    let mut first_end = None;
    let mut decode_tokens = 0;
    while let Some((index, event)) = events.next().await {
        match event {
            Event::Step { tokens, .. } => {
                if all_started.is_some() && first_end.is_none() {
                    decode_tokens += tokens.len();
                }
                started[index] = true;
                if all_started.is_none() && started.iter().all(|started| *started) {
                    all_started = Some(Instant::now());
                }
            }
            Event::Done { .. } => {
                first_end.get_or_insert_with(Instant::now);
            }
            Event::Failed(fault) => return Err(refused(fault)),
            Event::PromptLogprobs(_) => {}
        }
    }
    let decode = all_started.zip(first_end).map(|(from, to)| to.saturating_duration_since(from).as_secs_f64());
    Ok(Run { seconds: begin.elapsed().as_secs_f64(), decode_tokens, decode_seconds: decode.unwrap_or(f64::NAN) })
}

type Indexed = std::pin::Pin<Box<dyn futures::Stream<Item = (usize, Event)>>>;

fn events_of((index, events): (usize, EventStream)) -> Indexed {
    Box::pin(stream::unfold(events, move |mut events| async move {
        let event = events.next().await?;
        Some(((index, event), events))
    }))
}

fn requests(case: &Case<'_>, repeat: usize, max_tokens: u32) -> Vec<GenerateRequest> {
    (0..case.batch)
        .map(|index| {
            let turn = repeat * case.batch + index;
            let adapter = (!case.adapters.is_empty()).then(|| case.adapters[turn % case.adapters.len()]);
            request(case, adapter, turn, max_tokens)
        })
        .collect()
}

fn request(case: &Case<'_>, adapter: Option<AdapterKey>, turn: usize, max_tokens: u32) -> GenerateRequest {
    let prompt = (0..case.prompt_tokens).map(|at| ((turn * 7919 + at * 104_729 + 17) % case.vocab_size) as u32);
    GenerateRequest { adapter, ignore_eos: true, ..GenerateRequest::greedy(nobody(), prompt.collect(), max_tokens) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
