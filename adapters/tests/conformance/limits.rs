//! Every limit can be hit, and says so.

use adapters::{Code, Files, Limits, LoraConfig};
use bytes::Bytes;
use serde_json::json;

use crate::synthetic::*;

#[track_caller]
fn hit(adapter: &Adapter, limits: Limits) -> Vec<Code> {
    adapter.judge_within(&LLAMA, &Limits::default()).expect("fits the default limits");
    codes(&adapter.judge_within(&LLAMA, &limits).unwrap_err())
}

#[test]
fn f10_rank() {
    let limits = Limits { rank_max: 1, ..Limits::default() };
    assert_eq!(hit(&Adapter::plain(), limits.clone()), [Code::Quota]);
    let by_pattern = Adapter::plain().with("rank_pattern", json!({"down_proj": 2000}));
    assert_eq!(by_pattern.refused(&LLAMA), [Code::Quota]);
}

#[test]
fn f10_config_bytes_and_depth() {
    assert_eq!(hit(&Adapter::plain(), Limits { config_bytes_max: 20, ..Limits::default() }), [Code::Quota]);
    let nested = Adapter::plain().with("auto_mapping", json!([[[1]]]));
    assert_eq!(hit(&nested, Limits { json_depth_max: 3, ..Limits::default() }), [Code::Config]);
    assert!(nested.judge_within(&LLAMA, &Limits { json_depth_max: 4, ..Limits::default() }).is_ok());
}

#[test]
fn f10_patterns() {
    assert_eq!(hit(&Adapter::plain(), Limits { patterns_max: 1, ..Limits::default() })[0], Code::Quota);
    let named = Adapter::plain().with("alpha_pattern", json!({"(up|down)_proj": 1}));
    assert_eq!(hit(&named, Limits { pattern_bytes_max: 5, ..Limits::default() }), [Code::Pattern]);
    let looking = json!({"(?=u)up_proj": 1, "(?=d)down_proj": 1, "gate_proj": 1});
    let looking = Adapter::plain().with("alpha_pattern", looking);
    assert_eq!(hit(&looking, Limits { backtracking_patterns_max: 1, ..Limits::default() }), [Code::Pattern]);
    assert!(looking.judge_within(&LLAMA, &Limits { backtracking_patterns_max: 2, ..Limits::default() }).is_ok());
    let hard = Adapter::plain().with("target_modules", json!(r"(?:(?!x).)*[qv]_proj"));
    assert_eq!(hit(&hard, Limits { backtrack_max: 3, ..Limits::default() }), [Code::Pattern]);
}

#[test]
fn f10_private_bytes() {
    let adapter = Adapter::plain()
        .with("modules_to_save", json!(["lm_head"]))
        .tensor("lm_head.weight", Tensor::random(&[VOCAB, HIDDEN], 5));
    let bytes = (VOCAB * HIDDEN * 4) as u64;
    assert_eq!(hit(&adapter, Limits { private_bytes_max: bytes - 1, ..Limits::default() }), [Code::Quota]);
    assert!(adapter.judge_within(&LLAMA, &Limits { private_bytes_max: bytes, ..Limits::default() }).is_ok());
}

#[test]
fn f10_file_bytes() {
    let adapter = Adapter::plain();
    let (config, weights) = (adapter.config.to_string().into_bytes(), safetensors(&adapter.tensors));
    for limits in [
        Limits { config_bytes_max: config.len() - 1, ..Limits::default() },
        Limits { weights_bytes_max: weights.len() as u64 - 1, ..Limits::default() },
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("adapter_config.json"), &config).unwrap();
        std::fs::write(dir.path().join("adapter_model.safetensors"), &weights).unwrap();
        assert!(codes(&Files::read(dir.path(), &limits).unwrap_err()).contains(&Code::Quota));
        let upload = [("adapter_config.json", &config), ("adapter_model.safetensors", &weights)];
        let upload = upload.map(|(name, bytes)| (name.to_owned(), Bytes::from(bytes.clone())));
        assert_eq!(codes(&Files::from_upload(upload, &limits).unwrap_err()), [Code::Quota]);
    }
}

#[test]
fn f10_refusals_are_bounded() {
    let mut many = Adapter::plain();
    for index in 0..1000 {
        many = many.tensor(&format!("stranger{index}"), Tensor::zeros(&[1]));
    }
    let refusals = many.judge(&LLAMA).unwrap_err();
    assert_eq!(refusals.len(), 100);
    assert!(refusals[99].message.contains("900 more"));
    let long = Adapter::plain().with(&"x".repeat(5000), json!(1)).judge(&LLAMA).unwrap_err();
    assert!(long[0].subject.chars().count() < 300);
}

#[test]
fn limits_can_be_configured_by_name() {
    let limits: Limits = serde_json::from_value(json!({"rank_max": 64})).unwrap();
    assert_eq!(limits, Limits { rank_max: 64, ..Limits::default() });
    assert!(serde_json::from_value::<Limits>(json!({"rank_maximum": 64})).is_err());
    assert!(LoraConfig::read(b"{}", &limits).config.is_none());
}

#[test]
fn f10_the_costliest_config_is_judged_in_bounded_work() {
    // as many hard patterns as are allowed, each of which fails on every module after many steps
    let keys: serde_json::Map<String, serde_json::Value> =
        (0..32).map(|index| (format!(r"(?:(?=.)(?:\w|\.)){{0,40}}(?!x){index}!"), json!(index + 1))).collect();
    let adapter = Adapter::plain().with("alpha_pattern", json!(keys));
    match adapter.judge(&LLAMA) {
        Ok(plan) => assert_eq!(plan.modules[0].alpha, 4.0),
        Err(refusals) => assert_eq!(codes(&refusals), [Code::Pattern]),
    }
}
