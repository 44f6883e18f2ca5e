//! Pattern semantics, against PEFT's own verdicts (`tests/peft_written/patterns.json`, written by `make.py`).

use adapters::patterns::{LayersPattern, Pattern, PatternMap, Selector, Targets, Verdict};
use adapters::{Code, Limits};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::synthetic::*;

#[derive(Deserialize)]
struct Table {
    names: Vec<NameCase>,
    saved: Vec<SavedCase>,
    keys: Vec<KeyCase>,
}

#[derive(Debug, Deserialize)]
struct NameCase {
    module: String,
    target: Value,
    exclude: Value,
    layers: Value,
    layers_pattern: Value,
    peft: String,
}

#[derive(Debug, Deserialize)]
struct SavedCase {
    module: String,
    saved: Vec<String>,
    excluded: bool,
}

#[derive(Debug, Deserialize)]
struct KeyCase {
    module: String,
    keys: Vec<String>,
    peft: Option<String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("../peft_written/patterns.json")).unwrap()
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
        _ => Vec::new(),
    }
}

fn selector(value: &Value) -> Option<Selector> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Selector::Pattern(Pattern::full(text, &Limits::default()).unwrap())),
        list => Some(Selector::names(names(list))),
    }
}

#[test]
fn p_targets_match_as_peft_matches_them() {
    let cases = table().names;
    assert!(cases.len() > 60);
    for case in &cases {
        let layers = match &case.layers {
            Value::Null => None,
            Value::Number(layer) => Some([layer.as_i64().unwrap()].into()),
            list => Some(list.as_array().unwrap().iter().map(|layer| layer.as_i64().unwrap()).collect()),
        };
        let targets = Targets {
            target: selector(&case.target).unwrap(),
            exclude: selector(&case.exclude),
            saved: Vec::new(),
            layers,
            layers_pattern: LayersPattern::compile(&names(&case.layers_pattern), &Limits::default()).unwrap(),
        };
        let verdict = match targets.judge(&case.module).unwrap() {
            Verdict::Targeted => "targeted",
            Verdict::Excluded => "excluded",
            Verdict::Unmatched => "unmatched",
        };
        assert_eq!(verdict, case.peft, "{case:?}");
    }
    for verdict in ["targeted", "excluded", "unmatched"] {
        assert!(cases.iter().any(|case| case.peft == verdict), "the table holds {verdict}");
    }
}

#[test]
fn p_saved_modules_exclude_as_in_peft() {
    for case in table().saved {
        let saved = case.saved.iter().map(|name| Pattern::saved(name, &Limits::default()).unwrap()).collect();
        let targets = Targets {
            target: Selector::Pattern(Pattern::full(".*", &Limits::default()).unwrap()),
            exclude: None,
            saved,
            layers: None,
            layers_pattern: LayersPattern::compile(&[], &Limits::default()).unwrap(),
        };
        assert_eq!(targets.judge(&case.module).unwrap() == Verdict::Excluded, case.excluded, "{case:?}");
    }
}

#[test]
fn p_the_first_key_that_fits_wins_as_in_peft() {
    for case in table().keys {
        let entries = case.keys.iter().cloned().enumerate().map(|(index, key)| (key, index));
        let map = PatternMap::compile(entries, &Limits::default());
        let found = map.and_then(|map| Ok(map.matches(&case.module)?.first().map(|(key, _)| (*key).to_owned())));
        match (&case.peft, found) {
            (Some(error), Err(_)) if error == "error" => {}
            (expected, found) => assert_eq!(found.unwrap(), *expected, "{case:?}", case = case.keys),
        }
    }
}

#[test]
fn p_alpha_keys_that_fit_and_disagree_are_refused() {
    let overlap = json!({"layers.0.self_attn.q_proj": 128, "q_proj": 32});
    let adapter = Adapter::plain().with("alpha_pattern", overlap);
    let refusals = adapter.judge(&LLAMA).unwrap_err();
    assert_eq!(codes(&refusals), [Code::PatternAmbiguous]);
    assert_eq!(refusals.len(), 1, "layer 1 is not in doubt");
    assert_eq!(refusals[0].subject, "model.layers.0.self_attn.q_proj");
    let agreeing = json!({"layers.0.self_attn.q_proj": 32.0, "q_proj": 32});
    assert_eq!(Adapter::plain().with("alpha_pattern", agreeing).accepted(&LLAMA).modules[0].alpha, 32.0);
    let apart = json!({"^model\\.layers\\.0\\.self_attn\\.q_proj": 128, "layers.1.self_attn.q_proj": 32});
    let plan = Adapter::plain().with("alpha_pattern", apart).accepted(&LLAMA);
    assert_eq!((plan.modules[0].alpha, plan.modules[2].alpha), (128.0, 32.0));
}

#[test]
fn p_overlapping_rank_keys_are_betrayed_by_the_shapes() {
    let path = "model.layers.0.self_attn.q_proj";
    let trained = |rank: usize| {
        let mut adapter = Adapter::plain()
            .with("rank_pattern", json!({"layers.0.self_attn.q_proj": 3, "layers.0.self_attn.q_pro.": 5}));
        adapter.pair(path, LLAMA.module(path).unwrap().kind, rank);
        adapter
    };
    // the order of the file decides, as it does when PEFT loads it
    let order: Vec<String> = trained(3).config["rank_pattern"].as_object().unwrap().keys().cloned().collect();
    let (first, second) = if order[0].ends_with('.') { (5, 3) } else { (3, 5) };
    assert_eq!(trained(first).accepted(&LLAMA).modules[0].rank, first);
    assert_eq!(trained(second).refused(&LLAMA), [Code::RankConflict]);
}

#[test]
fn p_targets_that_reach_norms_or_groups_are_refused() {
    for target in [
        json!(["q_proj", "v_proj", "input_layernorm"]),
        json!(["q_proj", "v_proj", "self_attn"]),
        json!(".*self_attn.*"),
    ] {
        let codes = Adapter::plain().with("target_modules", target.clone()).refused(&LLAMA);
        assert!(codes.contains(&Code::Unsupported), "{target}");
    }
}
