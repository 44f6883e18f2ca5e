//! Trains an adapter for a moment on a tiny golden checkpoint and writes what `tests/golden/train.py --check DIR` needs: the
//! exported adapter, and the log-probabilities that the serving engine gives under it.
//!
//! `cargo run -p engine --example export_adapter -- DIR [BASE]`

use std::path::Path;
use std::sync::Arc;

use adapters::config::TargetModules;
use adapters::files::{CONFIG, WEIGHTS};
use adapters::{Container, Limits, LoraConfig};
use engine::model::{Adapter, BLOCK_TOKENS, Batch, BlockId, Dtype, LogitsRows, Model, ModelOptions, SequenceSlice};
use engine::train::{OptimiserConfig, Part, Recipe, Run, Sequence, Trainer, TrainerConfig};
use serde_json::json;

const STEPS: u64 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name a folder to write to")?;
    let base = arguments.next().unwrap_or_else(|| "qwen3".to_owned());
    let bases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bases");
    let (model, limits) =
        (Arc::new(Model::load(&bases.join(&base), &ModelOptions::new(Dtype::F32))?), Limits::default());
    let names = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"];
    let lora = LoraConfig {
        base_model: Some(base.clone()),
        rslora: true,
        target_modules: TargetModules::Names(names.into_iter().map(str::to_owned).collect()),
        rank_pattern: vec![("v_proj".into(), 3)],
        alpha_pattern: vec![("layers.1.mlp.up_proj".into(), 2.5)],
        ..LoraConfig::default()
    };
    let optimiser = OptimiserConfig { learning_rate: 0.02, steps: STEPS, ..OptimiserConfig::default() };
    let mut run = Run::new(model.base(), Recipe { lora, optimiser, seed: 7 }, &limits)?;
    let mut trainer = Trainer::new(Arc::clone(&model), TrainerConfig::default())?;
    let vocab = model.config().vocab_size as u32;
    let sequences: Vec<Vec<u32>> =
        (1..4).map(|s| (0..16 * s).map(|i| 1 + (i * i + 31 * s) % (vocab - 1)).collect()).collect();
    let data: Vec<Sequence> = sequences.iter().cloned().map(Sequence::text).collect();
    while !run.is_finished() {
        trainer.accumulate(&mut [Part { run: &mut run, sequences: &data }])?;
        let report = trainer.step(&mut run)?;
        println!("step {}: loss {:.4}", report.step, report.loss.mean);
    }
    let files = run.export();
    let plan = files.judge(model.base(), &limits).map_err(|refusals| format!("{refusals:?}"))?;
    let weights = Container::parse(files.weights.clone(), &limits).map_err(|refusal| refusal.message)?;
    let adapter = Adapter::load(&model, &plan, &weights)?;
    let logprobs: Vec<Vec<f64>> = sequences.iter().map(|tokens| score(&model, &adapter, tokens)).collect();

    let target = Path::new(&folder).join("adapter");
    std::fs::create_dir_all(&target)?;
    std::fs::write(target.join(CONFIG), &files.config)?;
    std::fs::write(target.join(WEIGHTS), &files.weights)?;
    let record = json!({"base": base, "sequences": sequences, "logprobs": logprobs});
    std::fs::write(Path::new(&folder).join("expected.json"), record.to_string())?;
    println!("{folder}: version {}", plan.digest);
    Ok(())
}

/// Natural log-probability of each token after the first.
fn score(model: &Model, adapter: &Adapter, tokens: &[u32]) -> Vec<f64> {
    let blocks: Vec<BlockId> = (0..tokens.len().div_ceil(BLOCK_TOKENS) as u32).map(BlockId).collect();
    let whole = SequenceSlice {
        rows: 0..tokens.len(),
        past: 0,
        blocks: &blocks,
        adapter: Some(adapter),
        logits: LogitsRows::All,
        rope_length: tokens.len(),
    };
    let mut scores = Vec::new();
    let mut kv = model.new_kv_cache(blocks.len());
    model.forward(&Batch { tokens, sequences: &[whole] }, &mut kv, &mut |rows, logits| {
        for (row, logits) in rows.iter().zip(logits.chunks_exact(model.config().vocab_size)) {
            if let Some(next) = tokens.get(row + 1) {
                scores.push(f64::from(logits[*next as usize]) - kernels::log_sum_exp(logits));
            }
        }
    });
    scores
}
