//! `banyan inspect`: exit codes, receipts and refusals.

use std::fs;

use crate::command::{repository, run, text};

#[test]
fn an_adapter_that_fits_shows_its_receipt() {
    let (dir, base) = (repository("adapters/industries/legal"), repository("adapters/seed/base"));
    let done = run(&["inspect", text(&dir), "--base", text(&base), "--json"]);
    let answer = done.json();
    assert_eq!((done.code, &answer["accepted"]), (0, &true.into()));
    assert_eq!(answer["receipt"]["modules"].as_array().map(Vec::len), Some(44));
    assert!(answer["receipt"]["modules"][0]["delta_norm"].as_f64().is_some_and(|norm| norm > 0.0));
    let table = run(&["inspect", text(&dir), "--base", text(&base)]).ok();
    assert!(table.contains("model.layers.5.self_attn.q_proj"), "{table}");
}

#[test]
fn a_checkpoint_without_a_tokenizer_can_be_inspected_against() {
    let base = repository("tests/golden/bases");
    let base = fs::read_dir(base).expect("golden bases").flatten().map(|entry| entry.path()).min().expect("one");
    let bare = tempfile::tempdir().expect("folder");
    for entry in fs::read_dir(&base).expect("a base").flatten() {
        let name = entry.file_name();
        if entry.path().is_file() && name.to_str().is_some_and(|name| !name.starts_with("tokenizer")) {
            fs::copy(entry.path(), bare.path().join(name)).expect("copied");
        }
    }
    let none = tempfile::tempdir().expect("folder");
    let done = run(&["inspect", text(none.path()), "--base", text(bare.path()), "--json"]);
    assert_eq!(done.json()["accepted"], false, "it is judged, and an empty folder is no adapter: {done:?}");
}

#[test]
fn every_refusal_is_printed_with_its_code() {
    let (source, base) = (repository("adapters/industries/legal"), repository("adapters/seed/base"));
    let dir = tempfile::tempdir().expect("folder");
    let config = fs::read_to_string(source.join("adapter_config.json")).expect("config");
    let wrong = config.replace("\"r\": 16", "\"r\": 8").replace("banyan-seed", "another-base");
    assert_ne!(config, wrong);
    fs::write(dir.path().join("adapter_config.json"), wrong).expect("written");
    fs::copy(source.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors")).expect("copied");
    let arguments = ["inspect", text(dir.path()), "--base", text(&base), "--base-name", "banyan-seed"];
    let done = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(done.code, 1);
    let answer = done.json();
    let codes: Vec<_> =
        answer["refusals"].as_array().expect("array").iter().filter_map(|refusal| refusal["code"].as_str()).collect();
    assert!(codes.contains(&"E_RANK_CONFLICT") && codes.contains(&"E_BASE_MISMATCH"), "{codes:?}");
    let done = run(&arguments);
    assert!(done.code == 1 && codes.iter().all(|code| done.out.contains(code)), "{done:?}");
}

#[test]
fn a_base_that_cannot_be_read_is_a_failure_of_its_own() {
    let dir = repository("adapters/industries/legal");
    let done = run(&["inspect", text(&dir), "--base", text(&dir)]);
    assert!(done.code == 1 && done.err.contains("--base"), "{done:?}");
}
