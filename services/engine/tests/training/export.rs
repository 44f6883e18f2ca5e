//! What is exported is what PEFT writes, what our own loader takes whole, and what was trained.

use adapters::config::TargetModules;
use adapters::{Base, Container, Files, Limits, LoraConfig};
use engine::model::{Adapter, BLOCK_TOKENS, Batch, BlockId, LogitsRows, Model, SequenceSlice};
use engine::train::{OptimiserConfig, Part, Run, Sequence};

use crate::support::{golden, golden_run, model, recipe, sequence, step, trainer};

fn tensors(files: &Files) -> Vec<(String, Vec<usize>)> {
    let container = Container::parse(files.weights.clone(), &Limits::default()).unwrap();
    container.names().map(|name| (name.to_owned(), container.get(name).unwrap().shape.to_vec())).collect()
}

/// What the config means: modules, ranks, alphas, scales.
fn meaning(files: &Files, base: &Base) -> Vec<adapters::ModuleOutline> {
    let reading = LoraConfig::read(&files.config, &Limits::default());
    assert!(reading.refusals.is_empty(), "{:?}", reading.refusals);
    adapters::outline(&reading.config.unwrap(), base, &Limits::default()).unwrap()
}

#[test]
fn an_exported_adapter_has_the_tensors_and_the_meaning_of_what_peft_wrote() {
    for (base, variants) in [
        ("qwen3", &["plain", "rslora", "patterns", "subset", "ends"]),
        ("llama", &["plain", "rslora", "patterns", "subset", "ends"]),
    ] {
        let model = model(base);
        for variant in variants {
            let folder = golden().join("train").join(base).join(variant);
            let (written, run) = golden_run(&model, &folder, OptimiserConfig::default());
            let exported = run.export();
            assert_eq!(tensors(&exported), tensors(&written), "{base}, {variant}");
            assert_eq!(meaning(&exported, model.base()), meaning(&written, model.base()), "{base}, {variant}");
            let [ours, theirs] =
                [&exported, &written].map(|files| Container::parse(files.weights.clone(), &Limits::default()).unwrap());
            for name in theirs.names() {
                assert_eq!(
                    ours.get(name).unwrap().to_f32(),
                    theirs.get(name).unwrap().to_f32(),
                    "{base}, {variant}, {name}"
                );
            }
            let fields = |files: &Files| -> serde_json::Value { serde_json::from_slice(&files.config).unwrap() };
            for (field, value) in fields(&exported).as_object().unwrap() {
                assert!(fields(&written).get(field).is_some(), "PEFT knows no {field}: {value}");
            }
        }
    }
}

#[test]
fn an_exported_adapter_serves_what_was_trained_bit_for_bit() {
    let limits = Limits::default();
    for base in ["qwen3", "llama", "mistral", "qwen2"] {
        let model = model(base);
        let mut trainer = trainer(&model, 2, u64::MAX);
        let names = ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj", "embed_tokens", "lm_head"];
        let lora = LoraConfig {
            target_modules: TargetModules::Names(names.into_iter().map(str::to_owned).collect()),
            alpha_pattern: vec![("k_proj".into(), 2.5)],
            base_model: Some("tiny".into()),
            ..LoraConfig::default()
        };
        let mut run = Run::new(model.base(), recipe(lora, 5), &limits).unwrap();
        let data = [sequence(30, 1), sequence(17, 2)];
        for _ in 0..4 {
            step(&mut trainer, &mut run, &data);
        }
        let files = run.export();
        let plan = files.judge(model.base(), &limits).unwrap();
        assert_eq!(plan.tensors().len(), tensors(&files).len(), "every tensor is used");
        let weights = Container::parse(files.weights.clone(), &limits).unwrap();
        let adapter = Adapter::load(&model, &plan, &weights).unwrap();
        let trained = trainer.evaluate(&mut [Part { run: &mut run, sequences: &data }]).unwrap()[0];
        assert_eq!(served_loss(&model, &adapter, &data).to_bits(), trained.mean.to_bits(), "{base}");

        let again = Run::from_adapter(
            model.base(),
            recipe(LoraConfig { base_model: Some("tiny".into()), ..LoraConfig::default() }, 0),
            &files,
            &limits,
        )
        .unwrap()
        .export();
        assert!(again.config == files.config && again.weights == files.weights, "a second export differs");
    }
}

/// The mean loss by the steps of serving.
fn served_loss(model: &Model, adapter: &Adapter, data: &[Sequence]) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for Sequence { tokens, weights } in data {
        let blocks: Vec<BlockId> = (0..tokens.len().div_ceil(BLOCK_TOKENS) as u32).map(BlockId).collect();
        let whole = SequenceSlice {
            rows: 0..tokens.len(),
            past: 0,
            blocks: &blocks,
            adapter: Some(adapter),
            logits: LogitsRows::All,
            rope_length: tokens.len(),
        };
        let mut kv = model.new_kv_cache(blocks.len());
        model.forward(&Batch { tokens, sequences: &[whole] }, &mut kv, &mut |rows, logits| {
            for (row, logits) in rows.iter().zip(logits.chunks_exact(model.config().vocab_size)) {
                let Some(next) = tokens.get(row + 1) else { continue };
                let own = f64::from(weights[row + 1]);
                if own > 0.0 {
                    sum += own * (kernels::log_sum_exp(logits) - f64::from(logits[*next as usize]));
                    weight += own;
                }
            }
        });
    }
    sum / weight
}
