//! `banyan bench`: tokens per second of the serving engine, prefill and decode, for batches with none, one and many
//! adapters. It measures what requests get (scheduler, sampler and text included), not kernels alone.

mod machine;
mod measure;
mod synthetic;

use std::{path::PathBuf, sync::Arc};

use adapters::{Files, Limits};
use engine::{
    AdapterKey, Engine, EngineConfig,
    model::{BLOCK_TOKENS, Model, ModelOptions},
};
use futures::executor;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use self::{
    machine::Machine,
    measure::{Case, Measured, measure},
};
use crate::{
    cli::BenchArgs,
    failure::{Failure, Outcome},
    local_adapter::LocalAdapters,
    local_base::Checkpoint,
    output::{self, Table},
    score,
    up::shipped,
};

const BATCHES: [usize; 3] = [1, 8, 16];
const ADAPTERS: [usize; 3] = [0, 1, 16];

/// One line of the result.
#[derive(Serialize)]
struct Row {
    batch: usize,
    adapters: usize,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

/// # Errors
/// A base that cannot be loaded, or sizes that do not fit its context.
pub fn bench(args: &BenchArgs, as_json: bool) -> Outcome {
    let (dir, _kept) = base(args)?;
    let checkpoint = Checkpoint::open(&dir)?;
    let model = Model::load(checkpoint.dir(), &ModelOptions::new(score::dtype(args.dtype)))
        .map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))?;
    check(args, &model)?;
    let (source, keys) = adapters(&model)?;
    let vocab_size = model.config().vocab_size;
    let config = config(args, &model);
    let text = checkpoint.text().clone();
    let engine = Engine::start(Arc::new(model), text, config, Box::new(source))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let cases = BATCHES.into_iter().flat_map(|batch| ADAPTERS.map(|adapters| (batch, adapters)));
    let bar = progress(BATCHES.len() * ADAPTERS.len());
    let mut rows = Vec::new();
    for (batch, adapters) in cases {
        bar.set_message(format!("batch {batch}, {adapters} adapters"));
        let case = Case {
            batch,
            adapters: &keys[..adapters],
            prompt_tokens: args.prompt_tokens as usize,
            decode_tokens: args.decode_tokens,
            repeats: args.repeats as usize,
            vocab_size,
        };
        let Measured { prefill, decode } = executor::block_on(measure(&engine, &case))?;
        rows.push(Row { batch, adapters, prefill_tokens_per_second: prefill, decode_tokens_per_second: decode });
        bar.inc(1);
    }
    bar.finish_and_clear();
    engine.shutdown();
    print(args, &rows, as_json)
}

/// The folder to load, and what must live as long as it.
fn base(args: &BenchArgs) -> Result<(PathBuf, Option<TempDir>), Failure> {
    let Some(shape) = args.shape else {
        return Ok((args.base.clone().unwrap_or_else(shipped::base), None));
    };
    let dir = TempDir::with_prefix("banyan-bench-")?;
    synthetic::checkpoint(dir.path(), shape)?;
    Ok((dir.path().to_owned(), Some(dir)))
}

fn check(args: &BenchArgs, model: &Model) -> Outcome {
    let context = model.config().context_length;
    if args.prompt_tokens == 0 || args.decode_tokens < 2 {
        return Err(Failure::Usage("--prompt-tokens must be at least 1, --decode-tokens at least 2".to_owned()));
    }
    if (args.prompt_tokens + args.decode_tokens) as usize > context {
        return Err(Failure::Usage(format!("--prompt-tokens plus --decode-tokens must fit the context of {context}")));
    }
    Ok(())
}

fn adapters(model: &Model) -> Result<(LocalAdapters, Vec<AdapterKey>), Failure> {
    let mut source = LocalAdapters::default();
    let mut keys = Vec::new();
    for seed in 0..ADAPTERS.into_iter().max().unwrap_or(0) {
        let made = synthetic::adapter(model.base(), seed as u64);
        let files = Files { config: made.config.into(), weights: made.weights.into(), notes: Vec::new() };
        let key = source.add(files, model.base(), &Limits::default()).map_err(|refusals| {
            let reasons: Vec<_> = refusals.iter().map(ToString::to_string).collect();
            Failure::Failed(format!("a synthetic adapter is refused: {}", reasons.join("; ")))
        })?;
        keys.push(key);
    }
    Ok((source, keys))
}

/// The serving defaults, with room for the largest batch; without the prefix cache, which would hide the prefill, and
/// without guessed tokens, which would hide what a step costs.
fn config(args: &BenchArgs, model: &Model) -> EngineConfig {
    let batch = BATCHES.into_iter().max().unwrap_or(1);
    let blocks = ((args.prompt_tokens + args.decode_tokens) as usize).div_ceil(BLOCK_TOKENS) + 1;
    let default = EngineConfig::default();
    EngineConfig {
        kv_bytes_max: default.kv_bytes_max.max((batch * blocks * model.block_bytes()) as u64),
        prefix_cache: false,
        speculative_tokens_max: 0,
        adapter_bytes_max: 64 << 30,
        ..default
    }
}

/// Hidden when standard error is no terminal.
fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn print(args: &BenchArgs, rows: &[Row], as_json: bool) -> Outcome {
    let machine = Machine::read();
    let base = match (&args.shape, &args.base) {
        (Some(shape), _) => format!("{shape:?}"),
        (None, Some(dir)) => dir.display().to_string(),
        (None, None) => "bundled".to_owned(),
    };
    let dtype = crate::process::dtype_name(args.dtype);
    if as_json {
        let result = json!({
            "machine": machine,
            "base": base,
            "dtype": dtype,
            "prompt_tokens": args.prompt_tokens,
            "decode_tokens": args.decode_tokens,
            "repeats": args.repeats,
            "adapter_rank": synthetic::RANK,
            "rows": rows,
        });
        return Ok(output::print_json(&result)?);
    }
    output::line(&machine.line())?;
    output::line(&format!(
        "base {base}, {dtype}, prompts of {} tokens, {} decoded, rank {}, median of {}\n",
        args.prompt_tokens,
        args.decode_tokens,
        synthetic::RANK,
        args.repeats
    ))?;
    let mut table = Table::new(&["BATCH", "ADAPTERS", "PREFILL tokens/s", "DECODE tokens/s"]);
    for row in rows {
        table.row([
            row.batch.to_string(),
            row.adapters.to_string(),
            format!("{:.0}", row.prefill_tokens_per_second),
            format!("{:.0}", row.decode_tokens_per_second),
        ]);
    }
    Ok(table.print()?)
}
