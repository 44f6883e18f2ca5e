//! Adapters that are made here: what a config means before there are tensors is what it means with them, and what is
//! written is accepted.

use adapters::{Base, Files, Limits, LoraConfig, ModuleOutline, ModulePlan, export, outline};
use serde_json::{Value, json};

use crate::synthetic::{Adapter, LLAMA, QWEN3};

/// A file of every module that the outline names, with numbers that are not zero.
fn exported(config: &LoraConfig, base: &Base) -> (Vec<ModuleOutline>, Files) {
    let modules = outline(config, base, &Limits::default()).unwrap();
    let text = export::config_text(config, &modules, base);
    let files = export::files(text, &modules, |module| {
        let [out, input] = module.kind.weight_shape().try_into().unwrap();
        let is_embedding = module.module == adapters::base::EMBED_TOKENS;
        let (input, out) = if is_embedding { (out, input) } else { (input, out) };
        [vec![0.5; module.rank * input], vec![0.25; out * module.rank]]
    });
    (modules, files)
}

fn read(config: &Value) -> LoraConfig {
    let reading = LoraConfig::read(config.to_string().as_bytes(), &Limits::default());
    assert!(reading.refusals.is_empty(), "{:?}", reading.refusals);
    reading.config.unwrap()
}

#[test]
fn what_is_exported_is_accepted_with_the_ranks_and_scales_of_its_outline() {
    let configs = [
        json!({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
        json!({"r": 4, "lora_alpha": 6, "use_rslora": true, "target_modules": ["q_proj", "embed_tokens"]}),
        json!({"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1],
            "rank_pattern": {"q_proj": 5}, "alpha_pattern": {r"layers\.1\.mlp\.up_proj": 2.5}}),
        json!({"r": 3, "target_modules": r".*\.0\.mlp\.(up|down)_proj|lm_head"}),
    ];
    for base in [&*LLAMA, &*QWEN3] {
        for config in &configs {
            let mut config = config.clone();
            config["peft_type"] = json!("LORA");
            let config = read(&config);
            let (modules, files) = exported(&config, base);
            let plan = files.judge(base, &Limits::default()).unwrap_or_else(|refusals| panic!("{refusals:?}"));
            let seen = |plan: &ModulePlan| (plan.module.clone(), plan.rank, plan.alpha, plan.scale);
            let meant = |module: &ModuleOutline| (module.module.clone(), module.rank, module.alpha, module.scale);
            assert_eq!(
                plan.modules.iter().map(seen).collect::<Vec<_>>(),
                modules.iter().map(meant).collect::<Vec<_>>()
            );
            assert_eq!(plan.tensors().len(), 2 * modules.len());
            // The wording is the same whatever wording it came from.
            let again = read(&serde_json::from_slice(&files.config).unwrap());
            assert!(exported(&again, base).1.config == files.config);
        }
    }
}

#[test]
fn an_outline_is_what_a_complete_file_is_judged_by() {
    let adapter = Adapter::lora(&LLAMA, &["k_proj", "down_proj", "lm_head"]);
    let plan = adapter.accepted(&LLAMA).plan;
    let modules = outline(&read(&adapter.config), &LLAMA, &Limits::default()).unwrap();
    let of_plan: Vec<_> = plan.modules.iter().map(|plan| (&plan.module, plan.kind, plan.rank, plan.scale)).collect();
    let of_outline: Vec<_> =
        modules.iter().map(|module| (&module.module, module.kind, module.rank, module.scale)).collect();
    assert_eq!(of_plan, of_outline);
}
