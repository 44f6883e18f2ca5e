//! One table of what the gateway adds, and how many requests a core carries within which bound.

use serde::Serialize;
use serde_json::json;

use super::{Turn, soak::Soak};
use crate::{
    bench::{
        percentile::Sorted,
        report::{self, rate},
    },
    cli::{LoadArgs, LoadCase},
    failure::Outcome,
    output::{self, Table},
};

/// Milliseconds that the slowest of a hundred requests may be delayed.
const BOUNDS_MS: [f64; 3] = [1.0, 5.0, 10.0];

#[derive(Default)]
pub struct Measured {
    pub rows: Vec<Row>,
    /// The gateway's memory before its first request.
    pub idle_bytes: Vec<(LoadCase, u64)>,
    pub soaks: Vec<Soak>,
}

/// One rate; medians over the turns. Times in seconds.
#[derive(Serialize)]
pub struct Row {
    case: LoadCase,
    rate: u32,
    /// What came back through the gateway, of each second.
    answers_per_second: Option<f64>,
    direct_p50: Option<f64>,
    direct_p99: Option<f64>,
    /// Through the gateway less directly, of each pair that ran one after the other.
    added_p50: Option<f64>,
    added_p99: Option<f64>,
    added_first_p50: Option<f64>,
    added_first_p99: Option<f64>,
    gateway_cpu_us: Option<f64>,
    /// At that processor time for a request.
    per_core: Option<f64>,
    /// Of what the bare relay's core carries at this rate.
    of_bare: Option<f64>,
    resident_bytes: u64,
    overrun: bool,
}

impl Row {
    pub fn of(case: LoadCase, rate: u32, turns: &[Turn]) -> Self {
        let median = |of: &dyn Fn(&Turn) -> Option<f64>| Sorted::new(turns.iter().filter_map(of)).median();
        let added = |share: f64| move |turn: &Turn| Some(turn.through.end.at(share)? - turn.direct.end.at(share)?);
        let first = |share: f64| move |turn: &Turn| Some(turn.through.first.at(share)? - turn.direct.first.at(share)?);
        let cpu_us = |turn: &Turn| Some(turn.gateway_cpu.as_secs_f64() * 1e6 / turn.through.end.len() as f64);
        let gateway_cpu_us = median(&cpu_us).filter(|us| *us > 0.0);
        Self {
            case,
            rate,
            answers_per_second: median(&|turn| Some(turn.through.per_second)),
            direct_p50: median(&|turn| turn.direct.end.at(0.5)),
            direct_p99: median(&|turn| turn.direct.end.at(0.99)),
            added_p50: median(&added(0.5)),
            added_p99: median(&added(0.99)),
            added_first_p50: median(&first(0.5)),
            added_first_p99: median(&first(0.99)),
            gateway_cpu_us,
            per_core: gateway_cpu_us.map(|us| 1e6 / us),
            of_bare: None,
            resident_bytes: turns.iter().map(|turn| turn.resident_bytes).max().unwrap_or(0),
            overrun: turns.iter().any(|turn| turn.direct.overrun || turn.through.overrun),
        }
    }

    /// Once all are there.
    pub fn compare_with_bare(rows: &mut [Self]) {
        let bare = |row: &&Self| row.case == LoadCase::Bare;
        let bare: Vec<_> = rows.iter().filter(bare).map(|row| (row.rate, row.per_core)).collect();
        for row in rows {
            let same_rate = bare.iter().find(|(rate, _)| *rate == row.rate);
            let bare = same_rate.and_then(|(_, per_core)| *per_core);
            row.of_bare = row.per_core.zip(bare).map(|(row, bare)| row / bare);
        }
    }

    fn is_within(&self, bound_ms: f64) -> bool {
        !self.overrun && self.added_p99.is_some_and(|added| added * 1e3 <= bound_ms)
    }
}

/// The highest rate of a case whose 99th percentile is within a bound.
#[derive(Serialize)]
struct Frontier {
    case: LoadCase,
    bound_ms: f64,
    rate: Option<u32>,
    per_core: Option<f64>,
}

/// # Errors
/// When standard output is closed.
pub fn print(args: &LoadArgs, measured: &Measured, as_json: bool) -> Outcome {
    let frontier = frontier(&measured.rows);
    let idle: Vec<_> =
        measured.idle_bytes.iter().map(|(case, bytes)| json!({ "case": case, "resident_bytes": bytes })).collect();
    let facts = json!({
        "postgres": if args.postgres.is_some() { "server" } else { "embedded" },
        "seconds": args.seconds,
        "median_of": args.repeats,
        "connections": args.connections,
        "tenants": args.tenants,
        "messages": args.messages,
        "prompt_tokens": args.prompt_tokens,
    });
    if as_json {
        let mut facts = facts;
        facts["frontier"] = serde_json::to_value(&frontier).map_err(std::io::Error::from)?;
        facts["idle"] = idle.into();
        facts["soaks"] = serde_json::to_value(&measured.soaks).map_err(std::io::Error::from)?;
        return report::print("load", facts, &measured.rows, &table(&measured.rows), true);
    }
    report::print("load", facts, &measured.rows, &table(&measured.rows), false)?;
    output::line("")?;
    frontier_table(&frontier).print()?;
    for (case, bytes) in &measured.idle_bytes {
        output::line(&format!("\n{}: {} resident before the first request", name(*case), mebibytes(*bytes)))?;
    }
    for soak in &measured.soaks {
        output::line(&soak_line(soak))?;
    }
    Ok(())
}

fn frontier(rows: &[Row]) -> Vec<Frontier> {
    let mut cases: Vec<_> = rows.iter().map(|row| row.case).collect();
    cases.dedup();
    let of = |case, bound_ms| {
        let best = rows.iter().filter(|row| row.case == case && row.is_within(bound_ms)).max_by_key(|row| row.rate);
        Frontier { case, bound_ms, rate: best.map(|row| row.rate), per_core: best.and_then(|row| row.per_core) }
    };
    cases.into_iter().flat_map(|case| BOUNDS_MS.map(|bound| of(case, bound))).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "CASE",
        "RATE/s",
        "ANSWERS/s",
        "DIRECT p50/p99 ms",
        "ADDED p50/p99 ms",
        "ADDED TTFT p50/p99 ms",
        "GATEWAY CPU us",
        "REQUESTS/s PER CORE",
        "OF BARE",
        "RESIDENT",
    ]);
    for row in rows {
        let pair = |low, high| format!("{}/{}", ms(low), ms(high));
        table.row([
            name(row.case),
            row.rate.to_string(),
            if row.overrun { "overrun".to_owned() } else { rate(row.answers_per_second) },
            pair(row.direct_p50, row.direct_p99),
            pair(row.added_p50, row.added_p99),
            pair(row.added_first_p50, row.added_first_p99),
            rate(row.gateway_cpu_us),
            rate(row.per_core),
            row.of_bare.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0)),
            mebibytes(row.resident_bytes),
        ]);
    }
    table
}

fn frontier_table(frontier: &[Frontier]) -> Table {
    let mut table = Table::new(&["CASE", "ADDED p99 AT MOST", "HIGHEST RATE MEASURED", "REQUESTS/s PER CORE THERE"]);
    for row in frontier {
        let highest = row.rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        table.row([name(row.case), format!("{} ms", row.bound_ms), highest, rate(row.per_core)]);
    }
    table
}

fn soak_line(soak: &Soak) -> String {
    let over_time: Vec<_> = soak.resident_bytes.iter().map(|bytes| mebibytes(*bytes)).collect();
    let growth = soak.bytes_per_hour().map_or_else(String::new, |bytes| {
        format!(", {:+.1} MiB in an hour from the second tenth on", bytes / f64::from(1 << 20))
    });
    format!(
        "{}: {} minutes at {}/s, {} answers; resident after each tenth: {}{growth}",
        name(soak.case),
        soak.minutes,
        soak.rate,
        soak.answers,
        over_time.join(", ")
    )
}

fn name(case: LoadCase) -> String {
    format!("{case:?}").to_lowercase()
}

fn ms(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2}", seconds * 1e3))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::drive::Run;

    fn turn(direct_ms: f64, through_ms: f64) -> Turn {
        let run = |ms: f64| Run {
            first: Sorted::new([ms * 5e-4]),
            end: Sorted::new([ms * 1e-3]),
            per_second: 10.0,
            overrun: false,
        };
        Turn {
            direct: run(direct_ms),
            through: run(through_ms),
            gateway_cpu: Duration::from_micros(200),
            resident_bytes: 1 << 20,
        }
    }

    #[test]
    fn what_is_added_is_the_difference_and_the_frontier_the_highest_rate_within_a_bound() {
        let rows: Vec<_> = [(100, 0.5), (200, 3.0), (400, 7.0)]
            .map(|(rate, added)| Row::of(LoadCase::Local, rate, &[turn(1.0, 1.0 + added)]))
            .into();
        assert!((rows[1].added_p99.expect("known") - 3e-3).abs() < 1e-9);
        assert!((rows[0].per_core.expect("known") - 5000.0).abs() < 1e-6);
        let highest: Vec<_> = frontier(&rows).iter().map(|row| row.rate).collect();
        assert_eq!(highest, [Some(100), Some(200), Some(400)]);
    }

    #[test]
    fn a_case_is_compared_with_the_bare_relay_at_the_same_rate() {
        let mut slow = turn(1.0, 2.0);
        slow.gateway_cpu = Duration::from_micros(800);
        let bare = Row::of(LoadCase::Bare, 100, &[turn(1.0, 1.5)]);
        let (same, other) = (Row::of(LoadCase::Local, 100, &[slow]), Row::of(LoadCase::Local, 200, &[turn(1.0, 2.0)]));
        let mut rows = [bare, same, other];
        Row::compare_with_bare(&mut rows);
        assert_eq!(rows.map(|row| row.of_bare), [Some(1.0), Some(0.25), None]);
    }

    #[test]
    fn a_rate_that_overran_is_in_no_frontier() {
        let mut over = turn(1.0, 1.1);
        over.through.overrun = true;
        assert!(frontier(&[Row::of(LoadCase::Redis, 100, &[over])]).iter().all(|row| row.rate.is_none()));
    }
}
