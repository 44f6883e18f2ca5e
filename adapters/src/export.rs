//! An adapter as PEFT writes it, from a config and trained factors: what is exported loads in PEFT and here alike.
//!
//! Targets are written as names and every exception of rank or alpha by the full path of its module, anchored, so that no
//! two keys fit one module and no order of keys matters.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::base::{Base, ModuleKind};
use crate::config::LoraConfig;
use crate::container::{NewTensor, write};
use crate::files::Files;
use crate::resolve::ModuleOutline;

/// `adapter_config.json` of a plain low-rank change of `modules`: whatever wording `config` had, what it means for `base`.
pub fn config_text(config: &LoraConfig, modules: &[ModuleOutline], base: &Base) -> Bytes {
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for ModuleOutline { module, rank, alpha, .. } in modules {
        let key = || format!("^{}", module.replace('.', r"\."));
        if *rank != config.rank {
            ranks.insert(key(), json!(rank));
        }
        if *alpha != config.alpha {
            alphas.insert(key(), number(*alpha));
        }
    }
    let mut fields = json!({
        "alpha_pattern": alphas,
        "auto_mapping": null,
        "base_model_name_or_path": config.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(config.alpha),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": ranks,
        "target_modules": target_names(modules, base),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    });
    fields.sort_all_objects();
    format!("{fields:#}\n").into()
}

/// The two files of an adapter. `factors` gives A `[rank, in]` and B `[out, rank]` of a module, row-major; of an embedding
/// `[rank, vocab]` and `[dim, rank]`.
pub fn files(
    config: Bytes,
    modules: &[ModuleOutline],
    mut factors: impl FnMut(&ModuleOutline) -> [Vec<f32>; 2],
) -> Files {
    let mut tensors = Vec::with_capacity(2 * modules.len());
    for outline in modules {
        let (inputs, outputs, [a_name, b_name]) = match outline.kind {
            ModuleKind::Linear { in_features, out_features, .. } => {
                (in_features, out_features, ["lora_A.weight", "lora_B.weight"])
            }
            ModuleKind::Embedding { vocab, dim } => (vocab, dim, ["lora_embedding_A", "lora_embedding_B"]),
            ModuleKind::Norm { .. } => unreachable!("an outline has no norms"),
        };
        let [a, b] = factors(outline);
        let name = |part| format!("base_model.model.{}.{part}", outline.module);
        let tensor = |name, shape, values: Vec<f32>| NewTensor { name, shape, values: values.into() };
        tensors.push(tensor(name(a_name), vec![outline.rank, inputs], a));
        tensors.push(tensor(name(b_name), vec![outline.rank, outputs].into_iter().rev().collect(), b));
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    Files { config, weights: write(tensors, &metadata), notes: Vec::new() }
}

/// The last name of a path where all modules of that name are meant, else full paths.
fn target_names(modules: &[ModuleOutline], base: &Base) -> BTreeSet<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let meant: BTreeSet<&str> = modules.iter().map(|outline| outline.module.as_str()).collect();
    let others: BTreeSet<String> =
        base.modules().keys().filter(|path| !meant.contains(path.as_str())).map(|path| last(path)).collect();
    let name = |path: &&str| if others.contains(&last(path)) { (*path).to_owned() } else { last(path) };
    meant.iter().map(name).collect()
}

/// Whole numbers as PEFT writes them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
