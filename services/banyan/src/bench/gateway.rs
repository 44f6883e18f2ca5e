//! `banyan bench gateway`: the whole platform over loopback gRPC (auth, limits, routing, metering, two hops) against
//! the engine alone with the same requests.

mod platform;

use std::time::Instant;

use engine::EngineHandle;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::{runtime::Handle, task::JoinSet};

use self::platform::Platform;
use super::{
    client::{self, Answer, ask},
    clients::Burst,
    cpu_time::{CpuTime, clients_runtime},
    percentile::Sorted,
    pool::Pool,
    report,
    shape::Shape,
    subject::{self, Room, Subject, check_lengths, prompt},
    synthetic,
};
use crate::{
    cli::GatewayBenchArgs,
    failure::{Failure, Outcome},
    output::Table,
    process::{dtype_name, runtime_beside_engine},
};

/// Medians over the repeats of one case.
#[derive(Serialize)]
struct Row {
    clients: usize,
    adapters: usize,
    engine: Side,
    gateway: Side,
    /// The platform's throughput over the engine's, of each pair that ran one after the other.
    ratio: Option<f64>,
}

/// The engine alone, or the whole platform.
#[derive(Serialize)]
struct Side {
    tokens_per_second: Option<f64>,
    ttft_p95_seconds: Option<f64>,
    itl_p50_seconds: Option<f64>,
    /// Processor time for each token: in the engine, between it and the clients, in the clients.
    engine_cpu_us: Option<f64>,
    platform_cpu_us: Option<f64>,
    client_cpu_us: Option<f64>,
}

/// One run of all clients.
struct Run {
    burst: Burst,
    /// Microseconds for each token, where the system says.
    cpu: Option<CpuTime>,
}

/// # Errors
/// What does not start, or is refused.
pub fn gateway(args: &GatewayBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let subject = Subject::load(&args.model, args.dtype)?;
    let many = args.adapters.iter().copied().max().unwrap_or(0).max(1);
    let pool = Pool::new(subject.model.base(), args.rank, many, many)?;
    let room = Room { sequences: args.clients, tokens_each, waiting: args.clients, adapter_bytes: None };
    let engine = subject.start(&args.model, &room, pool.clone())?;
    let written = args.model.shape.as_ref().map(|shape| write_checkpoint(shape, &subject)).transpose()?;
    let base = written.as_ref().map(TempDir::path).or(args.model.base.as_deref());
    let (runtime, clients) = (runtime_beside_engine()?, clients_runtime()?);
    let rows = runtime.block_on(async {
        let platform = Platform::start(args, base, &pool, clients.handle()).await?;
        let bench = Bench { args, engine: &engine, pool: &pool, platform: &platform, clients: clients.handle() };
        let rows = bench.compare().await;
        platform.stop().await?;
        rows
    })?;
    engine.shutdown();
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "adapter_rank": args.rank,
        "rounds": args.rounds,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "median_of": args.repeats,
    });
    report::print("gateway", facts, &rows, &table(&rows), as_json)
}

/// The platform loads its base from files.
fn write_checkpoint(shape: &Shape, subject: &Subject) -> Result<TempDir, Failure> {
    let dir = TempDir::with_prefix("banyan-bench-")?;
    std::fs::write(dir.path().join(subject::TOKENIZER), subject::tokenizer_json(shape))?;
    synthetic::write_base(dir.path(), &shape.config_json(), subject.model.config(), subject.model.base(), 0)?;
    Ok(dir)
}

/// What takes part.
struct Bench<'a> {
    args: &'a GatewayBenchArgs,
    engine: &'a EngineHandle,
    pool: &'a Pool,
    platform: &'a Platform,
    clients: &'a Handle,
}

impl Bench<'_> {
    /// The engine and the platform in turn.
    async fn compare(&self) -> Result<Vec<Row>, Failure> {
        let args = self.args;
        let bar = report::progress(args.adapters.len() * (args.repeats as usize + 1));
        let mut runs: Vec<(Vec<Run>, Vec<Run>)> = args.adapters.iter().map(|_| (Vec::new(), Vec::new())).collect();
        // The first round brings adapters into memory and is not counted.
        for repeat in 0..=args.repeats as usize {
            for (&adapters, (alone, whole)) in args.adapters.iter().zip(&mut runs) {
                bar.set_message(format!("{adapters} adapters"));
                let engine = self.through_engine(adapters, repeat).await?;
                let platform = self.through_platform(adapters, repeat).await?;
                if repeat > 0 {
                    alone.push(engine);
                    whole.push(platform);
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        let rows = args.adapters.iter().zip(&runs);
        Ok(rows.map(|(&adapters, (alone, whole))| row(args.clients, adapters, alone, whole)).collect())
    }

    async fn through_engine(&self, adapters: usize, repeat: usize) -> Result<Run, Failure> {
        self.run(repeat, |client, prompt| {
            let adapter = (adapters > 0).then(|| self.pool.key(client % adapters));
            let (engine, request) = (self.engine.clone(), client::request(adapter, prompt, self.args.decode_tokens));
            async move { ask(&engine, request).await.map_err(|fault| Failure::Failed(fault.to_string())) }
        })
        .await
    }

    async fn through_platform(&self, adapters: usize, repeat: usize) -> Result<Run, Failure> {
        self.run(repeat, |client, prompt| {
            let model = (adapters > 0).then(|| client % adapters);
            self.platform.ask(client, model, prompt, self.args.decode_tokens)
        })
        .await
    }

    /// All clients at once, each with its rounds one after the other.
    async fn run<F>(&self, repeat: usize, ask: impl Fn(usize, Vec<u32>) -> F) -> Result<Run, Failure>
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        let args = self.args;
        let vocab_size = self.engine.model().config().vocab_size;
        let asking: Vec<Vec<F>> = (0..args.clients)
            .map(|client| {
                let turns = (0..args.rounds).map(|round| turn(args, repeat, round, client));
                turns.map(|turn| ask(client, prompt(turn, args.prompt_tokens, vocab_size))).collect()
            })
            .collect();
        let before = CpuTime::now();
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for rounds in asking {
            let one = async move {
                let mut answers = Vec::with_capacity(rounds.len());
                for round in rounds {
                    answers.push(round.await?);
                }
                Ok::<_, Failure>(answers)
            };
            tasks.spawn_on(one, self.clients);
        }
        let mut answers: Vec<Answer> = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            answers.extend(ended.map_err(|crash| Failure::Failed(crash.to_string()))??);
        }
        let after = CpuTime::now();
        let tokens = answers.iter().map(|answer| answer.tokens.len()).sum();
        let cpu = before.ok().zip(after.ok()).map(|(before, after)| (after - before).per_token(tokens));
        Ok(Run { burst: Burst::of(begin, &answers), cpu })
    }
}

fn turn(args: &GatewayBenchArgs, repeat: usize, round: usize, client: usize) -> usize {
    (repeat * args.rounds + round) * args.clients + client
}

fn row(clients: usize, adapters: usize, alone: &[Run], whole: &[Run]) -> Row {
    // A drift of the machine hits both of a pair.
    let pairs =
        alone.iter().zip(whole).map(|(alone, whole)| whole.burst.tokens_per_second / alone.burst.tokens_per_second);
    Row { clients, adapters, engine: side(alone), gateway: side(whole), ratio: Sorted::new(pairs).median() }
}

fn side(runs: &[Run]) -> Side {
    let median = |of: fn(&Run) -> Option<f64>| Sorted::new(runs.iter().filter_map(of)).median();
    Side {
        tokens_per_second: median(|run| Some(run.burst.tokens_per_second)),
        ttft_p95_seconds: median(|run| run.burst.ttft.at(0.95)),
        itl_p50_seconds: median(|run| run.burst.gaps.at(0.5)),
        engine_cpu_us: median(|run| run.cpu.map(|cpu| cpu.engine)),
        platform_cpu_us: median(|run| run.cpu.map(|cpu| cpu.platform)),
        client_cpu_us: median(|run| run.cpu.map(|cpu| cpu.clients)),
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
        "CPU us/token, alone: engine+client",
        "GATEWAY: engine+platform+client",
    ]);
    for row in rows {
        let Row { engine, gateway, .. } = row;
        let pair = |engine, gateway| format!("{}/{}", report::ms(engine), report::ms(gateway));
        let cpu = |parts: &[Option<f64>]| {
            let parts: Vec<_> = parts.iter().map(|part| report::rate(*part)).collect();
            parts.join("+")
        };
        table.row([
            row.clients.to_string(),
            row.adapters.to_string(),
            report::rate(engine.tokens_per_second),
            report::rate(gateway.tokens_per_second),
            report::percent(row.ratio),
            pair(engine.ttft_p95_seconds, gateway.ttft_p95_seconds),
            pair(engine.itl_p50_seconds, gateway.itl_p50_seconds),
            cpu(&[engine.engine_cpu_us, engine.client_cpu_us]),
            cpu(&[gateway.engine_cpu_us, gateway.platform_cpu_us, gateway.client_cpu_us]),
        ]);
    }
    table
}
