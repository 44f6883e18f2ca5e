//! `banyan bench storm`: what loads of adapters cost those who are being served. Steady clients decode with adapters in
//! memory; beside them short requests come at a constant rate, in one phase for adapters in memory, in the other each
//! for one that must be loaded. All else is alike, so what differs between the two is the price of the loads.

use std::time::{Duration, Instant};

use domain::Fault;
use engine::{AdapterKey, EngineHandle};
use futures::{StreamExt as _, future, stream::FuturesUnordered};
use serde::Serialize;
use serde_json::json;

use super::{
    client::{self, Answer, ask, first_times, gaps},
    packed,
    pool::Pool,
    report,
    subject::{self, Room, Subject, check_lengths, prompt},
};
use crate::{
    cli::StormBenchArgs,
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

/// Tokens of a short request: the fewest that are an answer.
const SHORT_PROMPT: u32 = 4;
const SHORT_ANSWER: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// No short requests.
    Quiet,
    /// Short requests for adapters in memory.
    Warm,
    /// Short requests for adapters that must be loaded.
    Cold,
}

const PHASES: [Phase; 3] = [Phase::Quiet, Phase::Warm, Phase::Cold];

/// All turns of one phase together.
#[derive(Serialize)]
struct Row {
    phase: Phase,
    /// Tokens per second of the steady clients.
    steady_tokens_per_second: f64,
    /// Between the tokens of the steady clients.
    itl_p50_seconds: Option<f64>,
    itl_p99_seconds: Option<f64>,
    /// Over that of the warm phase.
    itl_p99_of_warm: Option<f64>,
    short_requests: usize,
    short_ttft_p50_seconds: Option<f64>,
    short_ttft_p95_seconds: Option<f64>,
    failed: usize,
    adapter_loads: u64,
}

/// What one phase has seen so far.
#[derive(Default)]
struct Seen {
    steady: Vec<Answer>,
    tokens: usize,
    seconds: f64,
    short: Vec<Answer>,
    failed: usize,
    loads: u64,
}

/// The three kinds of adapters.
struct Keys {
    steady: Vec<AdapterKey>,
    warm: Vec<AdapterKey>,
    cold: Vec<AdapterKey>,
}

/// # Errors
/// Numbers that do not fit each other, a base that cannot be loaded, a request that failed before the measurement.
pub fn storm(args: &StormBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let subject = Subject::load(&args.model, args.dtype)?;
    let pool =
        Pool::new(subject.model.base(), args.cold_from.rank, args.cold_from.contents, 2 * args.clients + args.cold)?;
    let room = Room { sequences: 2 * args.clients, tokens_each, waiting: 1024, adapter_bytes: None };
    let (images, model) = packed::prepare(&args.cold_from, &args.model)?;
    let engine = subject.start(&model, &room, pool.clone())?;
    let mut keys = pool.keys(2 * args.clients + args.cold);
    let cold = keys.split_off(2 * args.clients);
    let warm = keys.split_off(args.clients);
    let keys = Keys { steady: keys, warm, cold };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let bar = report::progress(PHASES.len() * args.repeats as usize);
    if let Some(images) = &images {
        bar.set_message(format!("packing {} adapters", args.cold));
        runtime.block_on(images.fill(&engine, &keys.cold))?;
    }
    let mut seen = PHASES.map(|_| Seen::default());
    let mut turn = 0;
    for _ in 0..args.repeats {
        for (phase, seen) in PHASES.into_iter().zip(&mut seen) {
            bar.set_message(format!("{phase:?}").to_lowercase());
            let short = match phase {
                Phase::Quiet => &[][..],
                Phase::Warm => &keys.warm,
                Phase::Cold => &keys.cold,
            };
            runtime.block_on(measure(args, &engine, &pool, &keys, short, &mut turn, seen))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    engine.shutdown();
    let rows = rows(&seen);
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "steady_clients": args.clients,
        "short_requests_per_second": args.rate,
        "cold_adapters": args.cold,
        "cold_adapters_come_from": packed::source(&args.cold_from),
        "adapter_rank": args.cold_from.rank,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "seconds_each": args.seconds,
        "turns_of_each_phase": args.repeats,
        "adapter_bytes_max": engine.status().adapter_bytes_max,
    });
    report::print("storm", facts, &rows, &table(&rows), as_json)
}

/// One turn of a phase; `turn` counts the short requests of all turns, so that each cold one is another adapter.
async fn measure(
    args: &StormBenchArgs,
    engine: &EngineHandle,
    pool: &Pool,
    keys: &Keys,
    short: &[AdapterKey],
    turn: &mut usize,
    seen: &mut Seen,
) -> Result<(), Failure> {
    // The storm before may have put them out.
    let warm = keys.steady.iter().chain(&keys.warm).map(|key| ask(engine, short_request(engine, *key)));
    future::try_join_all(warm).await.map_err(|fault| Failure::Failed(fault.to_string()))?;
    let before = pool.loads();
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(args.seconds);
    let steady =
        future::join_all((0..args.clients).map(|client| steady(args, engine, keys.steady[client], client, end)));
    let (steady, asked) = tokio::join!(steady, short_requests(args, engine, short, turn, end));
    let ended = |answer: Result<Answer, _>| answer.map_err(|fault| report::note(&format!("failed: {fault}"))).ok();
    for answer in steady.into_iter().flatten().map(ended) {
        seen.failed += usize::from(answer.is_none());
        seen.tokens += answer.as_ref().map_or(0, |answer| answer.tokens_between(begin, end));
        seen.steady.extend(answer);
    }
    for answer in asked.into_iter().map(ended) {
        seen.failed += usize::from(answer.is_none());
        seen.short.extend(answer);
    }
    seen.seconds += args.seconds;
    seen.loads += pool.loads().since(before).loads;
    Ok(())
}

/// One steady client: the next request follows the answer.
async fn steady(
    args: &StormBenchArgs,
    engine: &EngineHandle,
    key: AdapterKey,
    client: usize,
    end: Instant,
) -> Vec<Result<Answer, Fault>> {
    let mut answers = Vec::new();
    while Instant::now() < end && !answers.last().is_some_and(Result::is_err) {
        let turn = answers.len() * args.clients + client;
        let prompt = prompt(turn, args.prompt_tokens, engine.model().config().vocab_size);
        answers.push(ask(engine, client::request(Some(key), prompt, args.decode_tokens)).await);
    }
    answers
}

/// Short requests at a constant rate until `end`, whether or not the earlier ones are answered.
async fn short_requests(
    args: &StormBenchArgs,
    engine: &EngineHandle,
    keys: &[AdapterKey],
    turn: &mut usize,
    end: Instant,
) -> Vec<Result<Answer, Fault>> {
    let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate));
    let (mut answers, mut running) = (Vec::new(), FuturesUnordered::new());
    loop {
        tokio::select! {
            due = every.tick(), if !keys.is_empty() && Instant::now() < end => {
                let events = engine.submit(short_request(engine, keys[*turn % keys.len()]));
                running.push(async move { client::read(events?, due.into_std()).await });
                *turn += 1;
            }
            Some(answer) = running.next() => answers.push(answer),
            else => return answers,
        }
    }
}

fn short_request(engine: &EngineHandle, key: AdapterKey) -> engine::GenerateRequest {
    client::request(Some(key), prompt(0, SHORT_PROMPT, engine.model().config().vocab_size), SHORT_ANSWER)
}

fn rows(seen: &[Seen; PHASES.len()]) -> Vec<Row> {
    let p99 = |seen: &Seen| gaps(&seen.steady).at(0.99);
    let warm = p99(&seen[1]);
    let row = |(phase, seen): (Phase, &Seen)| {
        let (gaps, first) = (gaps(&seen.steady), first_times(&seen.short));
        Row {
            phase,
            steady_tokens_per_second: seen.tokens as f64 / seen.seconds,
            itl_p50_seconds: gaps.at(0.5),
            itl_p99_seconds: gaps.at(0.99),
            itl_p99_of_warm: gaps.at(0.99).zip(warm).map(|(of, warm)| of / warm),
            short_requests: seen.short.len(),
            short_ttft_p50_seconds: first.at(0.5),
            short_ttft_p95_seconds: first.at(0.95),
            failed: seen.failed,
            adapter_loads: seen.loads,
        }
    };
    PHASES.into_iter().zip(seen).map(row).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "SHORT REQUESTS",
        "STEADY tokens/s",
        "ITL p50/p99 ms",
        "p99 OF WARM",
        "SENT",
        "TTFT p50/p95 ms",
        "FAILED",
        "LOADS",
    ]);
    for row in rows {
        let two = |values: [Option<f64>; 2]| values.map(report::ms).join("/");
        table.row([
            match row.phase {
                Phase::Quiet => "none",
                Phase::Warm => "warm adapters",
                Phase::Cold => "cold adapters",
            }
            .to_owned(),
            report::rate(Some(row.steady_tokens_per_second)),
            two([row.itl_p50_seconds, row.itl_p99_seconds]),
            row.itl_p99_of_warm.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            row.short_requests.to_string(),
            two([row.short_ttft_p50_seconds, row.short_ttft_p95_seconds]),
            row.failed.to_string(),
            row.adapter_loads.to_string(),
        ]);
    }
    table
}
