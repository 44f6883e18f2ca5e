//! `banyan score` against golden log-probabilities made with transformers and peft (`tests/golden/make.py`).

use std::{fs, path::Path};

use serde_json::Value;

use crate::command::{repository, run, run_with_input, text};

/// f32 here and there; the sums are taken in other orders.
const TOLERANCE: f64 = 1e-4;

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn base() -> String {
    text(&repository("adapters/seed/base")).to_owned()
}

/// Logprobs of each line but the last.
fn logprobs(lines: &[Value]) -> Vec<Vec<f64>> {
    let numbers = |line: &Value| line["logprobs"].as_array().expect("array").iter().filter_map(Value::as_f64).collect();
    lines[..lines.len() - 1].iter().map(numbers).collect()
}

fn assert_close(found: &[Vec<f64>], key: &str) {
    let expected: Vec<Value> = serde_json::from_str(&golden("logprobs.json")).expect("JSON");
    assert_eq!(found.len(), expected.len());
    for (line, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let expected: Vec<f64> = expected[key].as_array().expect("array").iter().filter_map(Value::as_f64).collect();
        assert_eq!(found.len(), expected.len(), "line {}", line + 1);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < TOLERANCE, "line {}: {found} is not {expected}", line + 1);
        }
    }
}

/// The golden adapters of each line, as paths.
fn adapters() -> Vec<String> {
    let path = |name: &str| match name {
        "base" => "base".to_owned(),
        name => text(&repository("adapters/industries").join(name)).to_owned(),
    };
    golden("adapters.txt").lines().map(path).collect()
}

#[test]
fn the_base_scores_as_transformers_does() {
    let lines = run_with_input(&["score", "--base", &base(), "-"], &golden("lines.jsonl")).json_lines();
    let found = logprobs(&lines);
    assert_close(&found, "base");
    let all: Vec<f64> = found.concat();
    let perplexity = (-all.iter().sum::<f64>() / all.len() as f64).exp();
    let last = lines.last().expect("a last line");
    assert!((last["perplexity"].as_f64().expect("number") / perplexity - 1.0).abs() < 1e-6, "{last}");
    assert_eq!(last["tokens"], all.len());
}

#[test]
fn a_mixed_batch_of_adapters_scores_as_peft_does_and_as_each_line_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let (as_lines, as_json) = (folder.path().join("adapters.txt"), folder.path().join("adapters.json"));
    fs::write(&as_lines, adapters().join("\n")).expect("written");
    fs::write(&as_json, serde_json::to_string(&adapters()).expect("JSON")).expect("written");
    let input = golden("lines.jsonl");
    let mixed = |file: &Path, batch: &str| {
        let arguments = ["score", "--base", &base(), "--adapters", text(file), "--batch", batch, "-"];
        run_with_input(&arguments, &input).json_lines()
    };
    let lines = mixed(&as_lines, "16");
    assert_close(&logprobs(&lines), "adapter");
    assert_eq!(lines, mixed(&as_json, "16"));
    assert_eq!(logprobs(&lines), logprobs(&mixed(&as_lines, "1")), "bit for bit, whoever shares the batch");

    for (at, (line, adapter)) in input.lines().zip(adapters()).enumerate().filter(|(_, (_, name))| name != "base") {
        let alone = run_with_input(&["score", "--base", &base(), "--adapter", &adapter, "-"], line).json_lines();
        assert_eq!(logprobs(&alone)[0], logprobs(&lines)[at], "line {}", at + 1);
    }
}

#[test]
fn bf16_is_near_f32() {
    let input = golden("lines.jsonl");
    let of =
        |dtype| logprobs(&run_with_input(&["score", "--base", &base(), "--dtype", dtype, "-"], &input).json_lines());
    let (f32, bf16) = (of("f32"), of("bf16"));
    // The shipped weights are bf16 already, so holding them so loses nothing.
    let furthest = f32.concat().iter().zip(bf16.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest < 0.5, "{furthest}");
}

#[test]
fn prompt_and_completion_are_scored_as_one_text() {
    let pair = r#"{"prompt":"What does E-17","completion":" mean?"}"#;
    let whole = r#"{"text":"What does E-17 mean?"}"#;
    let lines = run_with_input(&["score", "--base", &base(), "-"], &format!("{pair}\n{whole}\n")).json_lines();
    assert_eq!(lines[0]["logprobs"], lines[1]["logprobs"]);
    let start = lines[0]["completion_start"].as_u64().expect("an index") as usize;
    let completion = &logprobs(&lines)[0][start..];
    let mean = completion.iter().sum::<f64>() / completion.len() as f64;
    let stated = lines[2]["completion_perplexity"].as_f64().expect("number");
    assert!((stated / (-mean).exp() - 1.0).abs() < 1e-6);
    assert_eq!(lines[2]["completion_tokens"], completion.len());
}

#[test]
fn every_wrong_line_is_named_before_anything_is_computed() {
    let input = "{\"tokens\":[1,4096]}\n{\"tokens\":[1,2]}\n{\"words\":1}\n";
    let done = run_with_input(&["score", "--base", &base(), "-"], input);
    assert!(done.code == 1 && done.out.is_empty() && done.err.contains("line 3"), "{done:?}");
    let done = run_with_input(&["score", "--base", &base(), "-"], &input.replace("words\":1", "text\":\"a\""));
    assert!(done.err.contains("line 1") && done.err.contains("4096") && !done.err.contains("line 2"), "{done:?}");
    let long = format!("{{\"tokens\":{:?}}}", vec![1; 513]);
    let done = run_with_input(&["score", "--base", &base(), "-"], &long);
    assert!(done.code == 1 && done.err.contains("513 tokens do not fit"), "{done:?}");
    let done = run(&["score", "--base", &base(), "/no/such/file"]);
    assert!(done.code == 1 && done.err.contains("/no/such/file"), "{done:?}");
}

#[test]
fn a_checkpoint_without_a_tokenizer_scores_token_ids() {
    let bare = tempfile::tempdir().expect("folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(&base()).join(file), bare.path().join(file)).expect("copied");
    }
    let ids = "{\"tokens\":[5,900,17,4095,1,2,300]}";
    let of = |base: &str| logprobs(&run_with_input(&["score", "--base", base, "-"], ids).json_lines());
    assert_eq!(of(text(bare.path())), of(&base()));
    let done = run_with_input(&["score", "--base", text(bare.path()), "-"], &format!("{ids}\n{{\"text\":\"a\"}}"));
    assert!(done.code == 1 && done.err.contains("line 2") && done.err.contains("tokenizer.json"), "{done:?}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_its_reasons() {
    let adapter = repository("tests/golden/bases/llama");
    let done = run_with_input(&["score", "--base", &base(), "--adapter", text(&adapter), "-"], "{\"tokens\":[1,2]}");
    assert!(done.code == 1 && done.err.contains("E_"), "{done:?}");
}
