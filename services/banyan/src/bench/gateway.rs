//! `banyan bench gateway`: the whole platform over loopback gRPC (auth, limits, routing, metering, two hops) against
//! the engine alone with the same requests.

mod platform;

use std::time::Instant;

use engine::EngineHandle;
use futures::future;
use serde::Serialize;
use serde_json::json;

use self::platform::Platform;
use super::{
    client::{self, Answer, ask},
    clients::Burst,
    percentile::Sorted,
    pool::Pool,
    report,
    subject::{self, Room, Subject, check_lengths, prompt},
};
use crate::{
    cli::{BenchBaseArgs, CpuArgs, GatewayBenchArgs},
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

/// Medians over the repeats of one case.
#[derive(Serialize)]
struct Row {
    clients: usize,
    adapters: usize,
    engine_tokens_per_second: Option<f64>,
    gateway_tokens_per_second: Option<f64>,
    /// The platform's throughput over the engine's.
    ratio: Option<f64>,
    engine_ttft_p95_seconds: Option<f64>,
    gateway_ttft_p95_seconds: Option<f64>,
    engine_itl_p50_seconds: Option<f64>,
    gateway_itl_p50_seconds: Option<f64>,
}

/// # Errors
/// What does not start, or is refused.
pub fn gateway(args: &GatewayBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let base = BenchBaseArgs {
        base: args.base.clone(),
        shape: None,
        adapter_dtype: None,
        set: Vec::new(),
        cpu: CpuArgs { cpu: Vec::new() },
    };
    let subject = Subject::load(&base, args.dtype)?;
    let many = args.adapters.iter().copied().max().unwrap_or(0).max(1);
    let pool = Pool::new(subject.model.base(), args.rank, many, many)?;
    let room = Room { sequences: args.clients, tokens_each, waiting: args.clients, adapter_bytes: None };
    let engine = subject.start(&base, &room, pool.clone())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let rows = runtime.block_on(async {
        let platform = Platform::start(args, &pool).await?;
        let rows = compare(args, &engine, &pool, &platform).await;
        platform.stop().await?;
        rows
    })?;
    engine.shutdown();
    let facts = json!({
        "base": subject::name(&base),
        "dtype": dtype_name(args.dtype),
        "adapter_rank": args.rank,
        "rounds": args.rounds,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "median_of": args.repeats,
    });
    report::print("gateway", facts, &rows, &table(&rows), as_json)
}

/// The engine and the platform in turn.
async fn compare(
    args: &GatewayBenchArgs,
    engine: &EngineHandle,
    pool: &Pool,
    platform: &Platform,
) -> Result<Vec<Row>, Failure> {
    let bar = report::progress(args.adapters.len() * (args.repeats as usize + 1));
    let mut bursts: Vec<(Vec<Burst>, Vec<Burst>)> = args.adapters.iter().map(|_| (Vec::new(), Vec::new())).collect();
    // The first round brings adapters into memory and is not counted.
    for repeat in 0..=args.repeats as usize {
        for (&adapters, (alone, whole)) in args.adapters.iter().zip(&mut bursts) {
            bar.set_message(format!("{adapters} adapters"));
            let (engine, platform) = (
                through_engine(args, engine, pool, adapters, repeat).await?,
                through_platform(args, engine, platform, adapters, repeat).await?,
            );
            if repeat > 0 {
                alone.push(engine);
                whole.push(platform);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let rows = args.adapters.iter().zip(&bursts);
    Ok(rows.map(|(&adapters, (alone, whole))| row(args.clients, adapters, alone, whole)).collect())
}

async fn through_engine(
    args: &GatewayBenchArgs,
    engine: &EngineHandle,
    pool: &Pool,
    adapters: usize,
    repeat: usize,
) -> Result<Burst, Failure> {
    burst(args, engine, repeat, async |client, prompt| {
        let adapter = (adapters > 0).then(|| pool.key(client % adapters));
        let answer = ask(engine, client::request(adapter, prompt, args.decode_tokens)).await;
        answer.map_err(|fault| Failure::Failed(fault.to_string()))
    })
    .await
}

async fn through_platform(
    args: &GatewayBenchArgs,
    engine: &EngineHandle,
    platform: &Platform,
    adapters: usize,
    repeat: usize,
) -> Result<Burst, Failure> {
    burst(args, engine, repeat, async |client, prompt| {
        let model = (adapters > 0).then(|| client % adapters);
        platform.ask(client, model, prompt, args.decode_tokens).await
    })
    .await
}

/// All clients at once, each with its rounds one after the other.
async fn burst(
    args: &GatewayBenchArgs,
    engine: &EngineHandle,
    repeat: usize,
    ask: impl AsyncFn(usize, Vec<u32>) -> Result<Answer, Failure>,
) -> Result<Burst, Failure> {
    let vocab_size = engine.model().config().vocab_size;
    let one = async |client: usize| {
        let mut answers = Vec::new();
        for round in 0..args.rounds {
            let prompt = prompt(turn(args, repeat, round, client), args.prompt_tokens, vocab_size);
            answers.push(ask(client, prompt).await?);
        }
        Ok::<_, Failure>(answers)
    };
    let begin = Instant::now();
    let answers = future::try_join_all((0..args.clients).map(one)).await?;
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    Ok(Burst::of(begin, &answers))
}

fn turn(args: &GatewayBenchArgs, repeat: usize, round: usize, client: usize) -> usize {
    (repeat * args.rounds + round) * args.clients + client
}

fn row(clients: usize, adapters: usize, alone: &[Burst], whole: &[Burst]) -> Row {
    let median = |bursts: &[Burst], of: fn(&Burst) -> Option<f64>| Sorted::new(bursts.iter().filter_map(of)).median();
    let rate = |burst: &Burst| Some(burst.tokens_per_second);
    let (ttft, gap) = (|burst: &Burst| burst.ttft.at(0.95), |burst: &Burst| burst.gaps.at(0.5));
    // Of each pair that ran one after the other, so that a drift hits both.
    let pairs = alone.iter().zip(whole).map(|(alone, whole)| whole.tokens_per_second / alone.tokens_per_second);
    Row {
        clients,
        adapters,
        engine_tokens_per_second: median(alone, rate),
        gateway_tokens_per_second: median(whole, rate),
        ratio: Sorted::new(pairs).median(),
        engine_ttft_p95_seconds: median(alone, ttft),
        gateway_ttft_p95_seconds: median(whole, ttft),
        engine_itl_p50_seconds: median(alone, gap),
        gateway_itl_p50_seconds: median(whole, gap),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "CLIENTS",
        "ADAPTERS",
        "ENGINE tokens/s",
        "GATEWAY tokens/s",
        "RATIO",
        "TTFT p95 ms, engine/gateway",
        "ITL p50 ms, engine/gateway",
    ]);
    for row in rows {
        let pair = |engine, gateway| format!("{}/{}", report::ms(engine), report::ms(gateway));
        table.row([
            row.clients.to_string(),
            row.adapters.to_string(),
            report::rate(row.engine_tokens_per_second),
            report::rate(row.gateway_tokens_per_second),
            report::percent(row.ratio),
            pair(row.engine_ttft_p95_seconds, row.gateway_ttft_p95_seconds),
            pair(row.engine_itl_p50_seconds, row.gateway_itl_p50_seconds),
        ]);
    }
    table
}
