//! `banyan bench clients`: so many clients at once, one request each, with none, one and many adapters.

use std::time::Instant;

use engine::{AdapterKey, EngineHandle};
use futures::{executor, future};
use serde::Serialize;
use serde_json::json;

use super::{
    client::{self, Answer, ask, first_times, gaps},
    percentile::Sorted,
    pool::Pool,
    report,
    subject::{self, Room, Subject, check_lengths, prompt},
};
use crate::{
    cli::ClientsBenchArgs,
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

/// Medians over the repeats of one case.
#[derive(Serialize)]
struct Row {
    clients: usize,
    adapters: usize,
    /// Output tokens over the time until the last answer has ended.
    tokens_per_second: Option<f64>,
    ttft_p50_seconds: Option<f64>,
    ttft_p95_seconds: Option<f64>,
    itl_p50_seconds: Option<f64>,
}

/// What one repeat of a case gave.
pub struct Burst {
    pub tokens_per_second: f64,
    pub ttft: Sorted,
    pub gaps: Sorted,
}

/// # Errors
/// A base that cannot be loaded, or what the engine refuses.
pub fn clients(args: &ClientsBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let subject = Subject::load(&args.model, args.dtype)?;
    let many = args.adapters.iter().copied().max().unwrap_or(0).max(1);
    let pool = Pool::new(subject.model.base(), args.rank, many, many)?;
    let room = Room { sequences: args.clients, tokens_each, waiting: args.clients, adapter_bytes: Some(1 << 40) };
    let engine = subject.start(&args.model, &room, pool.clone())?;
    let bar = report::progress(args.adapters.len() * args.repeats as usize);
    // Every adapter is in memory before the first measurement.
    executor::block_on(burst(&engine, &pool.keys(many), many.max(args.clients), args, 0, 2))?;
    let mut bursts: Vec<Vec<Burst>> = args.adapters.iter().map(|_| Vec::new()).collect();
    for repeat in 0..args.repeats as usize {
        for (adapters, bursts) in args.adapters.iter().zip(&mut bursts) {
            bar.set_message(format!("{adapters} adapters"));
            let keys = pool.keys(*adapters);
            bursts.push(executor::block_on(burst(&engine, &keys, args.clients, args, repeat, args.decode_tokens))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    engine.shutdown();
    let rows: Vec<_> =
        args.adapters.iter().zip(&bursts).map(|(&adapters, bursts)| row(args.clients, adapters, bursts)).collect();
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "rank": args.rank,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "median_of": args.repeats,
    });
    report::print("clients", facts, &rows, &table(&rows), as_json)
}

async fn burst(
    engine: &EngineHandle,
    keys: &[AdapterKey],
    clients: usize,
    args: &ClientsBenchArgs,
    repeat: usize,
    max_tokens: u32,
) -> Result<Burst, Failure> {
    let vocab_size = engine.model().config().vocab_size;
    let requests: Vec<_> = (0..clients)
        .map(|client| {
            let adapter = (!keys.is_empty()).then(|| keys[client % keys.len()]);
            client::request(adapter, prompt(repeat * clients + client, args.prompt_tokens, vocab_size), max_tokens)
        })
        .collect();
    let begin = Instant::now();
    let answers = future::try_join_all(requests.into_iter().map(|request| ask(engine, request))).await;
    answers.map(|answers| Burst::of(begin, &answers)).map_err(|fault| Failure::Failed(fault.to_string()))
}

impl Burst {
    /// Of answers to requests that were sent at `begin`.
    pub fn of(begin: Instant, answers: &[Answer]) -> Self {
        let end = answers.iter().filter_map(Answer::last).max().unwrap_or(begin);
        let tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
        Self {
            tokens_per_second: tokens as f64 / end.saturating_duration_since(begin).as_secs_f64(),
            ttft: first_times(answers),
            gaps: gaps(answers),
        }
    }
}

fn row(clients: usize, adapters: usize, bursts: &[Burst]) -> Row {
    let median = |of: &dyn Fn(&Burst) -> Option<f64>| Sorted::new(bursts.iter().filter_map(of)).median();
    Row {
        clients,
        adapters,
        tokens_per_second: median(&|burst| Some(burst.tokens_per_second)),
        ttft_p50_seconds: median(&|burst| burst.ttft.at(0.5)),
        ttft_p95_seconds: median(&|burst| burst.ttft.at(0.95)),
        itl_p50_seconds: median(&|burst| burst.gaps.at(0.5)),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["CLIENTS", "ADAPTERS", "OUTPUT tokens/s", "TTFT p50 ms", "TTFT p95 ms", "ITL p50 ms"]);
    for row in rows {
        table.row([
            row.clients.to_string(),
            row.adapters.to_string(),
            report::rate(row.tokens_per_second),
            report::ms(row.ttft_p50_seconds),
            report::ms(row.ttft_p95_seconds),
            report::ms(row.itl_p50_seconds),
        ]);
    }
    table
}
