//! `banyan bench fairness`: what one tenant's flood costs the others. Some tenants send one request at a time, each after
//! the answer to the one before; beside them, one tenant keeps many streams with long prompts going. The same load with
//! one tenant id for all is what first come, first served would give.

use std::time::{Duration, Instant};

use domain::TenantId;
use engine::{EngineHandle, GenerateRequest, Share};
use futures::future;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    client::{Answer, ask, first_times},
    percentile::Sorted,
    pool::Pool,
    report,
    subject::{self, Room, Subject, check_lengths, prompt},
};
use crate::{
    cli::FairnessBenchArgs,
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// Nobody floods.
    Quiet,
    /// Every tenant under its own id.
    Fair,
    /// All under one id: first come, first served.
    Fcfs,
}

const PHASES: [Phase; 3] = [Phase::Quiet, Phase::Fair, Phase::Fcfs];

/// Medians over the turns of one phase.
#[derive(Serialize)]
struct Row {
    phase: Phase,
    /// Of those who send one at a time, over all turns.
    requests: usize,
    ttft_p50_seconds: Option<f64>,
    ttft_p95_seconds: Option<f64>,
    /// Over that of the quiet phase, turn by turn.
    ttft_p95_of_quiet: Option<f64>,
    /// Of the flood, over all turns.
    flood_requests: usize,
    flood_ttft_p50_seconds: Option<f64>,
    /// Of all tenants: of answers, and of prompts whose answer began.
    output_tokens_per_second: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    /// Both together.
    tokens_per_second: Option<f64>,
    /// Over that of first come, first served, turn by turn.
    tokens_of_fcfs: Option<f64>,
    failed: usize,
}

/// One turn of a phase.
struct Turn {
    first: Sorted,
    flood_first: Sorted,
    requests: usize,
    flood_requests: usize,
    output_rate: f64,
    prompt_rate: f64,
    failed: usize,
}

/// Who sends: a tenant, with prompts of this length and answers of that.
#[derive(Clone, Copy)]
struct Client {
    share: Share,
    prompt_tokens: u32,
    decode_tokens: u32,
    /// No two clients send the same prompt.
    seed: usize,
}

/// # Errors
/// Numbers that do not fit each other, or a base that cannot be loaded.
pub fn fairness(args: &FairnessBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?
        .max(check_lengths(args.flood_prompt_tokens, args.flood_decode_tokens)?);
    let subject = Subject::load(&args.model, args.dtype)?;
    let sequences = args.tenants + args.flood;
    let room = Room { sequences, tokens_each, waiting: sequences, adapter_bytes: None };
    let engine = subject.start(&args.model, &room, Pool::new(subject.model.base(), 4, 0, 0)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let bar = report::progress(PHASES.len() * args.repeats as usize);
    let mut turns = PHASES.map(|_| Vec::new());
    for _ in 0..args.repeats {
        for (phase, turns) in PHASES.into_iter().zip(&mut turns) {
            bar.set_message(format!("{phase:?}").to_lowercase());
            turns.push(runtime.block_on(measure(args, &engine, phase)));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    engine.shutdown();
    if turns.iter().flatten().all(|turn| turn.requests == 0) {
        return Err(Failure::Failed("no request was answered in the measured time".to_owned()));
    }
    let rows = rows(&turns);
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "tenants": args.tenants,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "pause_ms": args.pause_ms,
        "flood_streams": args.flood,
        "flood_prompt_tokens": args.flood_prompt_tokens,
        "flood_decode_tokens": args.flood_decode_tokens,
        "seconds_each": args.seconds,
        "median_of": args.repeats,
    });
    report::print("fairness", facts, &rows, &table(&rows), as_json)
}

async fn measure(args: &FairnessBenchArgs, engine: &EngineHandle, phase: Phase) -> Turn {
    let tenant = |n: usize| match phase {
        Phase::Fcfs => TenantId::new(Uuid::from_u128(1)),
        Phase::Quiet | Phase::Fair => TenantId::new(Uuid::from_u128(n as u128 + 1)),
    };
    let flood = if phase == Phase::Quiet { 0 } else { args.flood };
    let client = |n: usize| Client {
        share: Share::of(tenant(n)),
        prompt_tokens: args.prompt_tokens,
        decode_tokens: args.decode_tokens,
        seed: n,
    };
    let flooding = |n: usize| Client {
        share: Share::of(tenant(args.tenants)),
        prompt_tokens: args.flood_prompt_tokens,
        decode_tokens: args.flood_decode_tokens,
        seed: args.tenants + n,
    };
    let begin = Instant::now() + Duration::from_secs_f64(args.warm_up_seconds);
    let end = begin + Duration::from_secs_f64(args.seconds);
    let pause = Duration::from_millis(args.pause_ms);
    let others = future::join_all((0..args.tenants).map(|n| keep_asking(engine, client(n), pause, end)));
    let floods = future::join_all((0..flood).map(|n| keep_asking(engine, flooding(n), Duration::ZERO, end)));
    let (others, floods) = tokio::join!(others, floods);
    let failed = others.iter().chain(&floods).map(|(_, failed)| failed).sum();
    let flat = |of: Vec<(Vec<Answer>, usize)>| of.into_iter().flat_map(|(answers, _)| answers).collect::<Vec<_>>();
    let (others, floods) = (flat(others), flat(floods));
    let output = |answers: &[Answer]| answers.iter().map(|answer| answer.tokens_between(begin, end)).sum::<usize>();
    let began = |answer: &&Answer| answer.first().is_some_and(|first| first > begin && first <= end);
    let prompts = |answers: &[Answer], each: u32| answers.iter().filter(began).count() as f64 * f64::from(each);
    let prompt_tokens = prompts(&others, args.prompt_tokens) + prompts(&floods, args.flood_prompt_tokens);
    let measured = |answer: &&Answer| answer.sent >= begin && answer.sent < end;
    Turn {
        first: first_times(others.iter().filter(measured)),
        flood_first: first_times(floods.iter().filter(measured)),
        requests: others.iter().filter(measured).count(),
        flood_requests: floods.iter().filter(measured).count(),
        output_rate: (output(&others) + output(&floods)) as f64 / args.seconds,
        prompt_rate: prompt_tokens / args.seconds,
        failed,
    }
}

/// One request after the other until `end`; the answers, and how many there were not.
async fn keep_asking(engine: &EngineHandle, client: Client, pause: Duration, end: Instant) -> (Vec<Answer>, usize) {
    let (mut answers, mut turn) = (Vec::new(), client.seed);
    while Instant::now() < end {
        let prompt = prompt(turn, client.prompt_tokens, engine.model().config().vocab_size);
        turn += 1000;
        let tenant = client.share.tenant;
        let request = GenerateRequest::greedy(tenant, prompt, client.decode_tokens);
        match ask(engine, GenerateRequest { share: client.share, ignore_eos: true, ..request }).await {
            Ok(answer) => answers.push(answer),
            Err(fault) => {
                report::note(&format!("failed: {fault}"));
                return (answers, 1);
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    (answers, 0)
}

fn rows(turns: &[Vec<Turn>; PHASES.len()]) -> Vec<Row> {
    let [quiet, _, fcfs] = turns;
    let total = |turn: &Turn| turn.output_rate + turn.prompt_rate;
    let row = |(phase, own): (Phase, &Vec<Turn>)| {
        let median = |of: &dyn Fn(&Turn) -> Option<f64>| Sorted::new(own.iter().filter_map(of)).median();
        let ratios = |others: &[Turn], of: &dyn Fn(&Turn) -> Option<f64>| {
            let pairs = own.iter().zip(others).filter_map(|(own, other)| Some(of(own)? / of(other)?));
            Sorted::new(pairs).median()
        };
        Row {
            phase,
            requests: own.iter().map(|turn| turn.requests).sum(),
            ttft_p50_seconds: median(&|turn| turn.first.at(0.5)),
            ttft_p95_seconds: median(&|turn| turn.first.at(0.95)),
            ttft_p95_of_quiet: ratios(quiet, &|turn| turn.first.at(0.95)),
            flood_requests: own.iter().map(|turn| turn.flood_requests).sum(),
            flood_ttft_p50_seconds: median(&|turn| turn.flood_first.at(0.5)),
            output_tokens_per_second: median(&|turn| Some(turn.output_rate)),
            prompt_tokens_per_second: median(&|turn| Some(turn.prompt_rate)),
            tokens_per_second: median(&|turn| Some(total(turn))),
            tokens_of_fcfs: (phase != Phase::Quiet).then(|| ratios(fcfs, &|turn| Some(total(turn)))).flatten(),
            failed: own.iter().map(|turn| turn.failed).sum(),
        }
    };
    PHASES.into_iter().zip(turns).map(row).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "FLOOD",
        "REQUESTS",
        "TTFT p50/p95 ms",
        "p95 OF QUIET",
        "FLOOD'S REQUESTS",
        "FLOOD'S TTFT p50 ms",
        "TOKENS/s prompt + output",
        "OF FCFS",
        "FAILED",
    ]);
    for row in rows {
        let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let [prompt, output] = [row.prompt_tokens_per_second, row.output_tokens_per_second].map(report::rate);
        table.row([
            match row.phase {
                Phase::Quiet => "none",
                Phase::Fair => "by one tenant",
                Phase::Fcfs => "first come, first served",
            }
            .to_owned(),
            row.requests.to_string(),
            [row.ttft_p50_seconds, row.ttft_p95_seconds].map(report::ms).join("/"),
            ratio(row.ttft_p95_of_quiet),
            row.flood_requests.to_string(),
            report::ms(row.flood_ttft_p50_seconds),
            format!("{} ({prompt} + {output})", report::rate(row.tokens_per_second)),
            ratio(row.tokens_of_fcfs),
            row.failed.to_string(),
        ]);
    }
    table
}
