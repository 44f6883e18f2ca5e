//! `banyan bench load`: a stream of requests over many registered adapters, of which some are in memory and some are
//! not. It measures what the residency of adapters costs, and whom.

mod drive;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use engine::{AdapterKey, EngineHandle};
use serde::Serialize;
use serde_json::json;

use self::drive::{Asked, Outcome as Answered};
use super::{
    arrivals::Zipf,
    client::{Answer, first_times, gaps},
    packed,
    percentile::Sorted,
    pool::{Loads, Pool, resident_memory},
    report,
    subject::{self, Room, Subject, check_lengths},
};
use crate::{
    cli::LoadBenchArgs,
    failure::{Failure, Outcome},
    output::{Table, bytes_text},
    process::dtype_name,
};

/// Answers that may be under way at a time in an open loop; what arrives beyond is refused by the engine and counted.
const WAITING: usize = 1024;

/// Of one value of `--touched`.
#[derive(Serialize)]
struct Row {
    touched: usize,
    /// Sent in the measured time.
    requests: usize,
    failed: usize,
    tokens_per_second: f64,
    ttft: Percentiles,
    /// Of requests whose adapter was in memory when they came.
    ttft_warm: Percentiles,
    /// Of all others.
    ttft_cold: Percentiles,
    itl_p50_seconds: Option<f64>,
    itl_p99_seconds: Option<f64>,
    adapter_loads: u64,
    adapter_evictions: u64,
    /// Mean time that reading one adapter's files took; judging and packing it comes on top.
    adapter_read_seconds: Option<f64>,
    adapter_bytes_resident: u64,
    resident_memory_bytes: Option<u64>,
    /// This row's throughput over the first row's.
    of_first: f64,
}

#[derive(Serialize)]
struct Percentiles {
    requests: usize,
    p50_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// # Errors
/// Numbers that do not fit each other, a base that cannot be loaded.
pub fn load(args: &LoadBenchArgs, as_json: bool) -> Outcome {
    let tokens_each = check_lengths(args.prompt_tokens, args.decode_tokens)?;
    if args.touched.iter().any(|touched| *touched > args.registered) {
        return Err(Failure::Usage("--touched must not be more than --registered".to_owned()));
    }
    let subject = Subject::load(&args.model, args.dtype)?;
    let begin = Instant::now();
    let pool = Pool::new(subject.model.base(), args.cold_from.rank, args.cold_from.contents, args.registered)?;
    let made_seconds = begin.elapsed().as_secs_f64();
    let sequences = args.clients.unwrap_or(0);
    let room = Room { sequences, tokens_each, waiting: WAITING.max(sequences), adapter_bytes: None };
    let (images, model) = packed::prepare(&args.cold_from, &args.model)?;
    let engine = subject.start(&model, &room, pool.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let each_seconds = (args.warm_up_seconds + args.seconds).ceil() as usize;
    let bar = report::progress(each_seconds * args.touched.len());
    let mut rows: Vec<Row> = Vec::new();
    for &touched in &args.touched {
        let adapters = Touched::new(args, &pool, touched);
        if let Some(images) = &images {
            bar.set_message(format!("packing {touched} adapters"));
            runtime.block_on(images.fill(&engine, &adapters.all()))?;
        }
        bar.set_message(format!("{touched} of {} adapters", args.registered));
        let first = rows.first().map(|row| row.tokens_per_second);
        rows.push(runtime.block_on(measure(args, &engine, &pool, &adapters, first, &bar)));
    }
    bar.finish_and_clear();
    engine.shutdown();
    let facts = json!({
        "base": subject::name(&args.model),
        "dtype": dtype_name(args.dtype),
        "arrivals": match args.clients {
            Some(clients) => format!("closed loop of {clients} clients"),
            None => format!("Poisson, {} requests/s", args.rate),
        },
        "registered": args.registered,
        "zipf": args.zipf,
        "adapter_rank": args.cold_from.rank,
        "adapter_files": args.cold_from.contents,
        "cold_adapters_come_from": packed::source(&args.cold_from),
        "adapter_files_made_in_seconds": (made_seconds * 10.0).round() / 10.0,
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "seconds": args.seconds,
        "adapter_bytes_max": engine.status().adapter_bytes_max,
    });
    report::print("load", facts, &rows, &table(&rows), as_json)
}

/// Which adapters are named, and how often.
pub struct Touched {
    pool: Pool,
    zipf: Zipf,
    registered: usize,
}

impl Touched {
    fn new(args: &LoadBenchArgs, pool: &Pool, touched: usize) -> Self {
        Self { pool: pool.clone(), zipf: Zipf::new(touched, args.zipf), registered: args.registered }
    }

    fn key(&self, random: &mut impl rand::Rng) -> AdapterKey {
        self.of_rank(self.zipf.rank(random))
    }

    /// Every touched one, the most frequent last: it is in memory at the end.
    fn all(&self) -> Vec<AdapterKey> {
        (0..self.zipf.ranks()).rev().map(|rank| self.of_rank(rank)).collect()
    }

    /// The touched ones lie anywhere among the registered: rank k is at `k * stride`, for a stride without a common
    /// divisor.
    fn of_rank(&self, rank: usize) -> AdapterKey {
        self.pool.key((rank as u128 * u128::from(stride(self.registered as u64)) % self.registered as u128) as usize)
    }
}

fn stride(registered: u64) -> u64 {
    const PRIME: u64 = 1_000_003;
    // Below the prime itself and beyond it, only its multiples share a divisor with it.
    if registered.is_multiple_of(PRIME) { 1 } else { PRIME }
}

async fn measure(
    args: &LoadBenchArgs,
    engine: &EngineHandle,
    pool: &Pool,
    adapters: &Touched,
    first: Option<f64>,
    bar: &indicatif::ProgressBar,
) -> Row {
    let begin = Instant::now() + Duration::from_secs_f64(args.warm_up_seconds);
    let end = begin + Duration::from_secs_f64(args.seconds);
    let loading = async {
        tokio::time::sleep_until(begin.into()).await;
        let before = Count::now(engine, pool);
        tokio::time::sleep_until(end.into()).await;
        (before, Count::now(engine, pool))
    };
    let ticking = async {
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
    };
    let ((before, after), asked, ()) = tokio::join!(loading, drive::drive(args, engine, adapters, end), ticking);
    let measured: Vec<_> = asked.iter().filter(|asked| asked.due >= begin).collect();
    let loads = after.loads.since(before.loads);
    let tokens: usize = asked.iter().filter_map(Asked::answer).map(|answer| answer.tokens_between(begin, end)).sum();
    let tokens_per_second = tokens as f64 / args.seconds;
    let failed: Vec<_> = measured.iter().filter(|asked| asked.answer().is_none()).collect();
    say(&failed);
    let gaps = gaps(measured.iter().filter_map(|asked| asked.answer()));
    Row {
        touched: adapters.zipf.ranks(),
        requests: measured.len(),
        failed: failed.len(),
        tokens_per_second,
        ttft: Percentiles::of(measured.iter().filter_map(|asked| asked.answer())),
        ttft_warm: Percentiles::of(measured.iter().filter(|asked| asked.warm).filter_map(|asked| asked.answer())),
        ttft_cold: Percentiles::of(measured.iter().filter(|asked| !asked.warm).filter_map(|asked| asked.answer())),
        itl_p50_seconds: gaps.at(0.5),
        itl_p99_seconds: gaps.at(0.99),
        adapter_loads: loads.loads,
        adapter_evictions: after.evictions.saturating_sub(before.evictions),
        adapter_read_seconds: (loads.loads > 0).then(|| loads.read_nanos as f64 / 1e9 / loads.loads as f64),
        adapter_bytes_resident: after.adapter_bytes,
        resident_memory_bytes: resident_memory().ok(),
        of_first: tokens_per_second / first.unwrap_or(tokens_per_second),
    }
}

/// Counters at one moment.
#[derive(Clone, Copy)]
struct Count {
    loads: Loads,
    evictions: u64,
    adapter_bytes: u64,
}

impl Count {
    fn now(engine: &EngineHandle, pool: &Pool) -> Self {
        let status = engine.status();
        Self { loads: pool.loads(), evictions: status.totals.adapter_evictions, adapter_bytes: status.adapter_bytes }
    }
}

impl Percentiles {
    fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let times: Sorted = first_times(answers);
        Self {
            requests: times.len(),
            p50_seconds: times.at(0.5),
            p95_seconds: times.at(0.95),
            p99_seconds: times.at(0.99),
        }
    }
}

/// Each different failure once.
fn say(failed: &[&&Asked]) {
    let mut seen = HashSet::new();
    for asked in failed {
        if let Answered::Failed(fault) = &asked.outcome
            && seen.insert(fault.reason)
        {
            report::note(&format!("failed: {fault}"));
        }
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "TOUCHED",
        "REQUESTS",
        "FAILED",
        "TOKENS/s",
        "OF FIRST",
        "TTFT p50/p95/p99 ms",
        "WARM",
        "COLD (n)",
        "ITL p50/p99 ms",
        "LOADS",
        "EVICTED",
        "READ ms",
        "RESIDENT",
        "RSS",
    ]);
    for row in rows {
        let three = |p: &Percentiles| [p.p50_seconds, p.p95_seconds, p.p99_seconds].map(report::ms).join("/");
        table.row([
            row.touched.to_string(),
            row.requests.to_string(),
            row.failed.to_string(),
            report::rate(Some(row.tokens_per_second)),
            report::percent(Some(row.of_first)),
            three(&row.ttft),
            three(&row.ttft_warm),
            format!("{} ({})", three(&row.ttft_cold), row.ttft_cold.requests),
            [row.itl_p50_seconds, row.itl_p99_seconds].map(report::ms).join("/"),
            row.adapter_loads.to_string(),
            row.adapter_evictions.to_string(),
            report::ms(row.adapter_read_seconds),
            bytes_text(row.adapter_bytes_resident),
            row.resident_memory_bytes.map_or_else(|| "-".to_owned(), bytes_text),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_ranks_are_different_registered_adapters() {
        for registered in [1_u64, 7, 1000, 100_000, 1_000_003] {
            let step = u128::from(stride(registered));
            let ranks = registered.min(5000);
            let places: HashSet<_> = (0..ranks).map(|rank| u128::from(rank) * step % u128::from(registered)).collect();
            assert_eq!(places.len() as u64, ranks, "of {registered}");
        }
    }
}
