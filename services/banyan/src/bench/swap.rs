//! `banyan bench swap`: names of adapters move to other versions under full load. A request is pinned to the version
//! that its name has when it is sent; its answer must be that version's, whatever the name does meanwhile.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use engine::{AdapterKey, EngineHandle};
use futures::{executor, future};
use serde::Serialize;
use serde_json::json;

use super::{
    client::{self, Answer, ask, first_times, gaps},
    pool::Pool,
    report,
    subject::{self, Room, Subject, check_lengths, prompt},
};
use crate::{
    cli::SwapBenchArgs,
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

#[derive(Serialize)]
struct Row {
    requests: usize,
    failed: usize,
    moves: u64,
    /// Requests during which their name moved.
    moved_while_answered: usize,
    /// Answers whose receipt names another version than the pinned one.
    other_version: usize,
    /// Answers computed again alone.
    sampled: usize,
    /// Of those, answers that differ.
    sampled_different: usize,
    /// Of those, answers that the next version of the name would have given too: they prove nothing.
    sampled_undecided: usize,
    tokens_per_second: f64,
    ttft_p95_seconds: Option<f64>,
    itl_p99_seconds: Option<f64>,
}

/// A name for a version that moves. All on one thread.
struct Name {
    versions: Vec<AdapterKey>,
    moves: Cell<usize>,
}

impl Name {
    fn version(&self) -> AdapterKey {
        self.versions[self.moves.get() % self.versions.len()]
    }
}

/// One request of a client.
struct Asked {
    turn: usize,
    name: usize,
    pinned: AdapterKey,
    moved: bool,
    answer: Option<Answer>,
}

/// # Errors
/// A base that cannot be loaded; any answer that failed or is not of the version that it was given.
pub fn swap(args: &SwapBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let subject = Subject::load(&args.model, args.dtype)?;
    // Names may share no version: each has a run of its own.
    let all = args.names * args.versions;
    let pool = Pool::new(subject.model.base(), args.rank, all, all)?;
    let room = Room { sequences: args.clients, tokens_each, waiting: args.clients, adapter_bytes: None };
    let engine = subject.start(&args.model, &room, pool.clone())?;
    let names: Vec<_> = (0..args.names)
        .map(|name| Name {
            versions: (0..args.versions).map(|version| pool.key(name * args.versions + version)).collect(),
            moves: Cell::new(0),
        })
        .collect();
    let bar = report::progress(args.seconds.ceil() as usize);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (asked, seconds) = runtime.block_on(storm(args, &engine, &names, &bar));
    bar.set_message("computing a sample again");
    let row = judge(args, &engine, &names, &asked, seconds)?;
    bar.finish_and_clear();
    engine.shutdown();
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "clients": args.clients,
        "names": args.names,
        "versions_each": args.versions,
        "a_move_every_ms": args.every_ms,
        "seconds": args.seconds,
        "adapter_rank": args.rank,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
    });
    let wrong = row.failed + row.other_version + row.sampled_different;
    let rows = [row];
    report::print("swap", facts, &rows, &table(&rows), as_json)?;
    if wrong > 0 { Err(Failure::Failed(format!("{wrong} answers failed or are of another version"))) } else { Ok(()) }
}

async fn storm(
    args: &SwapBenchArgs,
    engine: &EngineHandle,
    names: &[Name],
    bar: &indicatif::ProgressBar,
) -> (Vec<Asked>, f64) {
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(args.seconds);
    let clients = future::join_all((0..args.clients).map(|client| client_loop(args, engine, names, client, end)));
    let moving = async {
        let mut every = tokio::time::interval(Duration::from_millis(args.every_ms));
        for turn in 0.. {
            every.tick().await;
            bar.set_position(begin.elapsed().as_secs());
            if Instant::now() >= end {
                break;
            }
            let name = &names[turn % names.len()];
            name.moves.set(name.moves.get() + 1);
        }
    };
    let (asked, ()) = tokio::join!(clients, moving);
    (asked.into_iter().flatten().collect(), begin.elapsed().as_secs_f64())
}

async fn client_loop(
    args: &SwapBenchArgs,
    engine: &EngineHandle,
    names: &[Name],
    client: usize,
    end: Instant,
) -> Vec<Asked> {
    let mut asked = Vec::new();
    while Instant::now() < end {
        let turn = asked.len() * args.clients + client;
        let name = turn % names.len();
        let (pinned, moves) = (names[name].version(), names[name].moves.get());
        let answer = ask(engine, request(args, engine, pinned, turn)).await;
        if let Err(fault) = &answer {
            report::note(&format!("failed: {fault}"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let moved = names[name].moves.get() != moves;
        asked.push(Asked { turn, name, pinned, moved, answer: answer.ok() });
    }
    asked
}

fn request(args: &SwapBenchArgs, engine: &EngineHandle, key: AdapterKey, turn: usize) -> engine::GenerateRequest {
    let prompt = prompt(turn, args.prompt_tokens, engine.model().config().vocab_size);
    client::request(Some(key), prompt, args.decode_tokens)
}

/// Compares receipts with pins, and sampled answers with what the pinned version says alone.
fn judge(
    args: &SwapBenchArgs,
    engine: &EngineHandle,
    names: &[Name],
    asked: &[Asked],
    seconds: f64,
) -> Result<Row, Failure> {
    let answers: Vec<_> = asked.iter().filter_map(|asked| Some((asked, asked.answer.as_ref()?))).collect();
    let alone = |key, turn| executor::block_on(ask(engine, request(args, engine, key, turn)));
    let (mut sampled, mut different, mut undecided) = (0, 0, 0);
    // Spread over the whole run.
    for (asked, answer) in answers.iter().step_by((answers.len() / args.sample).max(1)).take(args.sample) {
        let again = |key| alone(key, asked.turn).map_err(|fault| Failure::Failed(fault.to_string()));
        sampled += 1;
        different += usize::from(again(asked.pinned)?.tokens != answer.tokens);
        let versions = &names[asked.name].versions;
        let at = versions.iter().position(|key| *key == asked.pinned).unwrap_or(0);
        undecided += usize::from(again(versions[(at + 1) % versions.len()])?.tokens == answer.tokens);
    }
    let tokens: usize = answers.iter().map(|(_, answer)| answer.tokens.len()).sum();
    let other = |(asked, answer): &&(&Asked, &Answer)| answer.adapter_digest != Some(asked.pinned.digest);
    Ok(Row {
        requests: asked.len(),
        failed: asked.len() - answers.len(),
        moves: names.iter().map(|name| name.moves.get() as u64).sum(),
        moved_while_answered: asked.iter().filter(|asked| asked.moved).count(),
        other_version: answers.iter().filter(other).count(),
        sampled,
        sampled_different: different,
        sampled_undecided: undecided,
        tokens_per_second: tokens as f64 / seconds,
        ttft_p95_seconds: first_times(answers.iter().map(|(_, answer)| *answer)).at(0.95),
        itl_p99_seconds: gaps(answers.iter().map(|(_, answer)| *answer)).at(0.99),
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "REQUESTS",
        "FAILED",
        "MOVES",
        "MOVED WHILE ANSWERED",
        "OTHER VERSION",
        "SAMPLED",
        "DIFFERENT",
        "UNDECIDED",
        "OUTPUT tokens/s",
        "TTFT p95 ms",
        "ITL p99 ms",
    ]);
    for row in rows {
        table.row([
            row.requests.to_string(),
            row.failed.to_string(),
            row.moves.to_string(),
            row.moved_while_answered.to_string(),
            row.other_version.to_string(),
            row.sampled.to_string(),
            row.sampled_different.to_string(),
            row.sampled_undecided.to_string(),
            report::rate(Some(row.tokens_per_second)),
            report::ms(row.ttft_p95_seconds),
            report::ms(row.itl_p99_seconds),
        ]);
    }
    table
}
