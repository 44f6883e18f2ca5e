//! Adapters that PEFT itself wrote (see `make.py`): the plan must say what the loaded PEFT model says.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use adapters::{Base, Files, Limits, Refusal, Resolved};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    accepted: BTreeMap<String, Accepted>,
    refused: BTreeMap<String, Refused>,
}

#[derive(Deserialize)]
struct Accepted {
    base: String,
    modules: BTreeMap<String, Facts>,
    input_changed: bool,
    output_changed: bool,
}

#[derive(Deserialize)]
struct Facts {
    rank: usize,
    alpha: f64,
    scale: f64,
    delta_norm: f64,
    dora: bool,
    lora_bias: bool,
}

#[derive(Deserialize)]
struct Refused {
    base: String,
    code: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peft_written")
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

static BASES: LazyLock<BTreeMap<String, Base>> = LazyLock::new(|| {
    let read = |name: &str| {
        let base = Base::read(&folder().join("bases").join(name)).unwrap();
        (name.to_owned(), base.with_names([name.to_owned()]))
    };
    ["tiny-llama", "tiny-qwen3"].map(read).into()
});

fn judge(base: &str, name: &str) -> Result<Resolved, Vec<Refusal>> {
    let files = Files::read(&folder().join("adapters").join(name), &Limits::default())?;
    files.resolve(&BASES[base], &Limits::default())
}

#[test]
fn every_kind_of_adapter_resolves_to_what_peft_loads() {
    let expected = expected().accepted;
    assert!(expected.len() > 30);
    for (name, peft) in expected {
        let plan = judge(&peft.base, &name).unwrap_or_else(|refusals| panic!("{name}: {refusals:#?}"));
        let planned: Vec<&str> = plan.modules.iter().map(|module| module.module.as_str()).collect();
        assert_eq!(planned, peft.modules.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        let measured = plan.receipt.modules.iter().map(|module| module.delta_norm);
        for ((module, norm), facts) in plan.modules.iter().zip(measured).zip(peft.modules.values()) {
            let subject = format!("{name}: {}", module.module);
            assert_eq!((module.rank, module.alpha, module.scale), (facts.rank, facts.alpha, facts.scale), "{subject}");
            assert_eq!(
                (module.magnitude.is_some(), module.lora_bias.is_some()),
                (facts.dora, facts.lora_bias),
                "{subject}"
            );
            let error = (norm - facts.delta_norm).abs() / facts.delta_norm;
            assert!(error < 1e-6, "{subject}: {norm} and {}", facts.delta_norm);
        }
        let touches = |path: &str| {
            plan.private.iter().any(|module| module.module == path)
                || plan.modules.iter().any(|module| module.module == path)
        };
        assert_eq!(touches("model.embed_tokens"), peft.input_changed, "{name}");
        assert_eq!(touches("lm_head"), peft.output_changed, "{name}");
    }
}

#[test]
fn private_modules_and_trained_biases_are_planned() {
    let private = |base: &str, name: &str| -> Vec<String> {
        judge(base, name).unwrap().plan.private.into_iter().map(|module| module.module).collect()
    };
    assert_eq!(private("tiny-llama", "save-both"), ["lm_head", "model.embed_tokens"]);
    assert_eq!(private("tiny-qwen3", "save-embeddings-tied"), ["model.embed_tokens"]);
    assert_eq!(private("tiny-qwen3", "save-lm-head-tied"), ["lm_head"]);
    assert!(private("tiny-llama", "embeddings").is_empty());
    let biases = |base: &str, name: &str| judge(base, name).unwrap().biases.len();
    assert_eq!(biases("tiny-llama", "bias-all"), 14);
    assert_eq!(biases("tiny-llama", "bias-lora-only"), 4);
    assert_eq!(biases("tiny-qwen3", "bias-all-without-biases"), 0);
}

#[test]
fn what_must_not_be_served_is_refused_with_its_code() {
    for (name, peft) in expected().refused {
        let refusals = judge(&peft.base, &name).expect_err(&name);
        assert!(refusals.iter().any(|refusal| refusal.code.as_str() == peft.code), "{name}: {refusals:#?}");
    }
}

#[test]
fn an_adapter_of_one_base_is_refused_by_the_other() {
    for (name, peft) in expected().accepted {
        let other = if peft.base == "tiny-llama" { "tiny-qwen3" } else { "tiny-llama" };
        let refusals = judge(other, &name).expect_err(&name);
        assert!(refusals.iter().any(|refusal| refusal.code.as_str() == "E_BASE_MISMATCH"), "{name}");
    }
}
