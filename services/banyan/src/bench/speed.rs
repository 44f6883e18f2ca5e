//! `banyan bench speed`: prefill and decode by batch, adapters, rank and dtype.

use std::{collections::HashMap, time::Instant};

use engine::{AdapterKey, EngineHandle};
use futures::{executor, future};
use serde::Serialize;
use serde_json::json;

use super::{
    ceilings::Ceilings,
    client::{self, Answer, ask},
    percentile::Sorted,
    pool::Pool,
    report, residency,
    roofline::{Ceiling, Demand, Work},
    subject::{self, Room, Subject, check_lengths, prompt},
    synthetic::adapter_weights,
};
use crate::{
    cli::{DtypeArg, PhaseArg, SpeedBenchArgs},
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Case {
    #[serde(serialize_with = "super::serialize_dtype")]
    dtype: DtypeArg,
    batch: usize,
    /// Sequences of the batch that use no adapter.
    base_rows: usize,
    /// Distinct ones, over the other sequences.
    adapters: usize,
    /// None without adapters.
    rank: Option<usize>,
}

/// A case with the engine that runs it.
struct Plan {
    case: Case,
    engine: EngineHandle,
    demand: Demand,
    keys: Vec<AdapterKey>,
    adapter_weights: f64,
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

/// Tokens per second over the whole batch, and the fraction of the roofline.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    case: Case,
    prefill_tokens_per_second: Option<f64>,
    prefill_of_roofline: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    decode_of_roofline: Option<f64>,
    /// Of one decode step.
    step_seconds: Option<f64>,
}

/// # Errors
/// A base that cannot be loaded, or sizes that do not fit its context.
pub fn speed(args: &SpeedBenchArgs, as_json: bool) -> Outcome {
    check_lengths(args.prompt_tokens, args.decode_tokens)?;
    let mut plans = Vec::new();
    for &dtype in &args.dtype {
        plans.extend(plan(args, dtype)?);
    }
    let ceilings =
        plans.first().map(|plan: &Plan| Ceilings::measure(args.ceilings, plan.engine.model().cpu(), &args.dtype));
    let ceilings = ceilings.unwrap_or_default();
    let bar = report::progress(plans.len() * args.repeats as usize);
    for repeat in 0..args.repeats as usize {
        for plan in &mut plans {
            let Case { dtype, batch, adapters, .. } = plan.case;
            bar.set_message(format!("{}, batch {batch}, {adapters} adapters", dtype_name(dtype)));
            executor::block_on(measure(plan, args, repeat))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let rows: Vec<_> = plans.iter().map(|plan| row(plan, args, &ceilings)).collect();
    for plan in &plans {
        plan.engine.shutdown();
    }
    let facts = json!({
        "base": subject::name(&args.model),
        "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens,
        "median_of": args.repeats,
        "ceilings": ceilings.facts(),
    });
    report::print("speed", facts, &rows, &table(&rows), as_json)
}

/// One engine for a dtype, and its cases with their adapters in memory.
fn plan(args: &SpeedBenchArgs, dtype: DtypeArg) -> Result<Vec<Plan>, Failure> {
    let subject = Subject::load(&args.model, dtype)?;
    let base = subject.model.base();
    let batch_max = args.batch.iter().copied().max().unwrap_or(1);
    let adapters_max = args.adapters.iter().copied().filter(|n| *n <= batch_max).max().unwrap_or(0);
    let mut pools = HashMap::new();
    let mut plans = Vec::new();
    for &rank in &args.rank {
        let pool = Pool::new(base, rank, adapters_max.max(1), adapters_max.max(1))?;
        let room = Room {
            sequences: batch_max,
            tokens_each: args.prompt_tokens + args.decode_tokens,
            waiting: batch_max,
            adapter_bytes: Some(1 << 40),
        };
        // One engine for each rank: an engine asks one source.
        let engine = subject.start(&args.model, &room, pool.clone())?;
        pools.insert(rank, (pool, engine));
    }
    for case in cases(args, dtype) {
        let rank = case.rank.or(args.rank.first().copied());
        let Some((rank, (pool, engine))) = rank.and_then(|rank| Some((rank, pools.get(&rank)?))) else { continue };
        plans.push(Plan {
            case,
            engine: engine.clone(),
            demand: Demand::of(&subject.model),
            keys: pool.keys(case.adapters),
            adapter_weights: adapter_weights(base, rank) as f64,
            prefill: Vec::new(),
            decode: Vec::new(),
        });
    }
    for plan in &plans {
        executor::block_on(run(plan, args, 0, 2))?;
    }
    Ok(plans)
}

/// What can be: no more adapters than sequences that may use one, and ranks only where there are adapters.
fn cases(args: &SpeedBenchArgs, dtype: DtypeArg) -> Vec<Case> {
    let mut cases = Vec::new();
    for &batch in &args.batch {
        for &adapters in &args.adapters {
            if adapters == 0 {
                cases.push(Case { dtype, batch, base_rows: batch, adapters, rank: None });
                continue;
            }
            for &base_rows in args.base_rows.iter().filter(|base_rows| **base_rows + adapters <= batch) {
                let with = |rank: &usize| Case { dtype, batch, base_rows, adapters, rank: Some(*rank) };
                cases.extend(args.rank.iter().map(with));
            }
        }
    }
    cases
}

async fn measure(plan: &mut Plan, args: &SpeedBenchArgs, repeat: usize) -> Result<(), Failure> {
    if args.phase.contains(&PhaseArg::Prefill) {
        let begin = Instant::now();
        let answers = run(plan, args, repeat, 1).await?;
        let end = answers.iter().filter_map(Answer::last).max().unwrap_or(begin);
        let tokens = plan.case.batch as f64 * f64::from(args.prompt_tokens);
        plan.prefill.push(tokens / end.saturating_duration_since(begin).as_secs_f64());
    }
    if args.phase.contains(&PhaseArg::Decode) {
        let answers = run(plan, args, repeat, args.decode_tokens).await?;
        plan.decode.extend(decode_rate(&answers));
    }
    Ok(())
}

/// Tokens per second while every sequence decodes: from the last first token to the first end.
fn decode_rate(answers: &[Answer]) -> Option<f64> {
    let begin = answers.iter().filter_map(Answer::first).max()?;
    let end = answers.iter().filter_map(Answer::last).min()?;
    let tokens: usize = answers.iter().map(|answer| answer.tokens_between(begin, end)).sum();
    let seconds = end.checked_duration_since(begin)?.as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}

async fn run(plan: &Plan, args: &SpeedBenchArgs, repeat: usize, max_tokens: u32) -> Result<Vec<Answer>, Failure> {
    let vocab_size = plan.engine.model().config().vocab_size;
    let asked = (0..plan.case.batch).map(|index| {
        // The sequences without an adapter come last.
        let adapter = (index < plan.case.batch - plan.case.base_rows).then(|| plan.keys[index % plan.keys.len()]);
        let prompt = prompt(repeat * plan.case.batch + index, args.prompt_tokens, vocab_size);
        ask(&plan.engine, client::request(adapter, prompt, max_tokens))
    });
    future::try_join_all(asked).await.map_err(|fault| Failure::Failed(fault.to_string()))
}

fn row(plan: &Plan, args: &SpeedBenchArgs, ceilings: &Ceilings) -> Row {
    let prefill = Sorted::new(plan.prefill.iter().copied()).median();
    let decode = Sorted::new(plan.decode.iter().copied()).median();
    let ceiling = ceilings.of(plan.case.dtype);
    let (batch, prompt) = (plan.case.batch as f64, f64::from(args.prompt_tokens));
    let of_roofline = |work: &Work, tokens: f64, rate: Option<f64>, ceiling: Option<Ceiling>| {
        Some(plan.demand.least_seconds(work, ceiling?) * rate? / tokens)
    };
    Row {
        case: plan.case,
        prefill_tokens_per_second: prefill,
        prefill_of_roofline: of_roofline(&prefill_work(plan, args), batch * prompt, prefill, ceiling),
        decode_tokens_per_second: decode,
        decode_of_roofline: of_roofline(&decode_work(plan, args), batch, decode, ceiling),
        step_seconds: decode.map(|rate| batch / rate),
    }
}

/// One step in the middle of the answers.
fn decode_work(plan: &Plan, args: &SpeedBenchArgs) -> Work {
    let batch = plan.case.batch as f64;
    let context = f64::from(args.prompt_tokens) + f64::from(args.decode_tokens) / 2.0;
    Work {
        passes: 1.0,
        rows: batch,
        logits_rows: batch,
        attended: batch * context,
        kv_tokens: batch * context,
        ..adapters_work(plan, 1.0)
    }
}

/// All prompts, in as few passes as the engine's step takes tokens.
fn prefill_work(plan: &Plan, args: &SpeedBenchArgs) -> Work {
    let (batch, prompt) = (plan.case.batch as f64, f64::from(args.prompt_tokens));
    let rows = batch * prompt;
    let rows_max = engine::EngineConfig::default().prefill_tokens_max as f64;
    Work {
        passes: (rows / rows_max).ceil(),
        rows,
        logits_rows: batch,
        attended: batch * prompt * (prompt + 1.0) / 2.0,
        kv_tokens: 0.0,
        ..adapters_work(plan, prompt)
    }
}

/// `rows` of each sequence.
fn adapters_work(plan: &Plan, rows: f64) -> Work {
    Work {
        adapted_rows: (plan.case.batch - plan.case.base_rows) as f64 * rows,
        adapter_weights: plan.adapter_weights,
        adapter_bytes: executor::block_on(residency::bytes(&plan.engine, &plan.keys)) as f64,
        ..Work::default()
    }
}

fn table(rows: &[Row]) -> Table {
    let head = [
        "DTYPE",
        "BATCH",
        "BASE ROWS",
        "ADAPTERS",
        "RANK",
        "PREFILL tokens/s",
        "ROOF",
        "DECODE tokens/s",
        "ROOF",
        "STEP ms",
    ];
    let mut table = Table::new(&head);
    for row in rows {
        table.row([
            dtype_name(row.case.dtype).to_owned(),
            row.case.batch.to_string(),
            row.case.base_rows.to_string(),
            row.case.adapters.to_string(),
            row.case.rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string()),
            report::rate(row.prefill_tokens_per_second),
            report::percent(row.prefill_of_roofline),
            report::rate(row.decode_tokens_per_second),
            report::percent(row.decode_of_roofline),
            report::ms(row.step_seconds),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::client::Arrival, *};

    #[test]
    fn decode_is_measured_while_every_sequence_decodes() {
        let sent = Instant::now();
        let answer = |first: u64, step: u64, count: u64| Answer {
            sent,
            arrivals: (0..count)
                .map(|n| Arrival { at: sent + Duration::from_millis(first + n * step), tokens: 1 })
                .collect(),
            tokens: Vec::new(),
            adapter_digest: None,
        };
        // The second one begins at 200 ms and the first one ends at 500 ms: 3 + 3 tokens in 300 ms.
        let rate = decode_rate(&[answer(0, 100, 6), answer(200, 100, 6)]).expect("they overlap");
        assert!((rate - 20.0).abs() < 1e-9, "{rate}");
        // They never decode together.
        assert!(decode_rate(&[answer(0, 10, 3), answer(500, 10, 3)]).is_none());
    }
}
