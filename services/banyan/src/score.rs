//! `banyan score`: the log-probability of every token of a file's lines, computed by the serving engine: the same
//! scheduler, batch, adapters and kernels that answer requests.

mod encode;
mod lines;
mod report;

use std::{
    collections::HashMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use adapters::{Files, Limits};
use engine::{
    AdapterKey, Engine, EngineConfig, EngineHandle, GenerateRequest,
    model::{BLOCK_TOKENS, Dtype, Model, ModelOptions},
};
use futures::{StreamExt as _, TryStreamExt as _, executor, stream};
use trainer::{LocalAdapters, nobody};

use self::{
    encode::Encoded,
    report::{Report, Scored},
};
use crate::{
    cli::{DtypeArg, ScoreArgs},
    failure::{Failure, Outcome},
    local_base::Checkpoint,
};

/// More KV memory than this is taken only for a single line that needs it.
const KV_BYTES_MAX: u64 = 2 << 30;

/// # Errors
/// A line, adapter or checkpoint that cannot be used, before anything is printed; or what the engine refuses.
pub fn score(args: &ScoreArgs) -> Outcome {
    let text = read(&args.file)?;
    let lines = lines::parse(&text).map_err(|faults| Failure::Failed(faults.to_string()))?;
    let folders = folders(args, lines.len())?;
    let checkpoint = Checkpoint::open(&args.base)?;
    let options = ModelOptions { adapter_dtype: args.adapter_dtype.map(dtype), ..ModelOptions::new(dtype(args.dtype)) };
    let model = Model::load(checkpoint.dir(), &options).map_err(|error| Failure::Failed(format!("--base: {error}")))?;
    let encoded = encode::encode(&lines, checkpoint.text(), checkpoint.has_tokenizer(), model.config())
        .map_err(|faults| Failure::Failed(faults.to_string()))?;
    let (source, keys) = adapters(&folders, &model)?;
    let config = config(args.batch, &encoded, &model, &source);
    let text = checkpoint.text().clone();
    let engine = Engine::start(Arc::new(model), text, config, Box::new(source))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let scored = executor::block_on(run(&engine, encoded, keys, args.batch as usize));
    engine.shutdown();
    scored
}

/// Lines in flight at a time are one batch of the engine; they are printed in the order of the input.
async fn run(engine: &EngineHandle, lines: Vec<Encoded>, keys: Vec<Option<AdapterKey>>, batch: usize) -> Outcome {
    let mut scored =
        stream::iter(lines.into_iter().zip(keys)).map(|(line, key)| one(engine, line, key)).buffered(batch);
    let mut report = Report::default();
    while let Some(line) = scored.try_next().await? {
        report.line(&line)?;
    }
    report.end()
}

async fn one(engine: &EngineHandle, line: Encoded, adapter: Option<AdapterKey>) -> Result<Scored, Failure> {
    let Encoded { number, ids, completion_start } = line;
    // The first token has no probability; without a second there is nothing to compute.
    if ids.len() < 2 {
        return Ok(Scored { number, logprobs: Vec::new(), completion_start });
    }
    let request = GenerateRequest { adapter, ..GenerateRequest::greedy(nobody(), ids, 0) };
    match engine.score(request).await {
        Ok(logprobs) => Ok(Scored { number, logprobs, completion_start }),
        Err(fault) => Err(Failure::Failed(format!("line {number}: {fault}"))),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// The adapter folder of each line.
fn folders(args: &ScoreArgs, lines: usize) -> Result<Vec<Option<PathBuf>>, Failure> {
    match &args.adapters {
        None => Ok(vec![args.adapter.clone(); lines]),
        Some(file) => lines::parse_adapters(&read(file)?, lines)
            .map_err(|fault| Failure::Failed(format!("--adapters {}: {fault}", file.display()))),
    }
}

/// Each folder is read and judged once.
fn adapters(folders: &[Option<PathBuf>], model: &Model) -> Result<(LocalAdapters, Vec<Option<AdapterKey>>), Failure> {
    let limits = Limits::default();
    let mut source = LocalAdapters::default();
    let mut known: HashMap<&Path, AdapterKey> = HashMap::new();
    let mut keys = Vec::with_capacity(folders.len());
    for folder in folders {
        let Some(folder) = folder else {
            keys.push(None);
            continue;
        };
        let key = match known.get(folder.as_path()) {
            Some(key) => *key,
            None => {
                let judged = Files::read(folder, &limits).and_then(|files| source.add(files, model.base(), &limits));
                let key = judged.map_err(|refusals| {
                    let reasons: Vec<_> = refusals.iter().map(|refusal| format!("\n  {refusal}")).collect();
                    Failure::Failed(format!("adapter {} is refused:{}", folder.display(), reasons.concat()))
                })?;
                known.insert(folder, key);
                key
            }
        };
        keys.push(Some(key));
    }
    Ok((source, keys))
}

/// The serving configuration, with room for `batch` of the longest lines.
fn config(batch: u32, lines: &[Encoded], model: &Model, source: &LocalAdapters) -> EngineConfig {
    let default = EngineConfig::default();
    let batch = batch as usize;
    let longest = lines.iter().map(|line| line.ids.len()).max().unwrap_or(0);
    let line_bytes = ((longest.div_ceil(BLOCK_TOKENS) + 1) * model.block_bytes()) as u64;
    EngineConfig {
        kv_bytes_max: line_bytes.saturating_mul(batch as u64).min(KV_BYTES_MAX.max(line_bytes)),
        running_max: batch,
        // Preempted lines wait beside those that were just handed in.
        waiting_max: 2 * batch,
        adapter_bytes_max: default.adapter_bytes_max.max(source.loaded_bytes_max()),
        ..default
    }
}

/// As the engine knows it.
pub const fn dtype(dtype: DtypeArg) -> Dtype {
    match dtype {
        DtypeArg::F32 => Dtype::F32,
        DtypeArg::Bf16 => Dtype::Bf16,
        DtypeArg::Int8 => Dtype::Int8,
    }
}
