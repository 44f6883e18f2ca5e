//! `banyan dataset`: the account of a file, versions, exit codes, with the bundled base.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::command::{repository, run, text};

fn write(folder: &Path, name: &str, lines: &[String]) -> String {
    let path = folder.join(name);
    fs::write(&path, lines.join("\n")).expect("written");
    text(&path).to_owned()
}

fn pair(question: &str, answer: &str) -> String {
    json!({ "question": question, "answer": answer }).to_string()
}

fn train() -> String {
    text(&repository("adapters/industries/finance/data/train.jsonl")).to_owned()
}

#[test]
fn every_row_of_the_shipped_data_is_accepted_or_says_why_not() {
    let folder = tempfile::tempdir().expect("folder");
    let account = folder.path().join("account.jsonl");
    let held_out = repository("adapters/industries/finance/data/eval.jsonl");
    let arguments =
        ["dataset", "check", &train(), "--held-out", text(&held_out), "--account", text(&account), "--json"];
    let report = run(&arguments).json();
    let outcomes: Vec<Value> = fs::read_to_string(&account)
        .expect("an account")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for (file, rows) in [("held_out", 602), ("rows", 4350)] {
        let found = report["files"].as_array().expect("files").iter().find(|found| found["file"] == file).expect("it");
        assert_eq!(found["rows"], rows);
        assert_eq!(found["accepted"].as_u64().expect("count") + found["refused"].as_u64().expect("count"), rows);
        let of_file = || outcomes.iter().filter(|outcome| outcome["file"] == file);
        assert_eq!(of_file().count() as u64, rows, "each row has its line in the account");
        let accepted = of_file().filter(|outcome| !outcome["accepted"].is_null()).count() as u64;
        assert_eq!(found["accepted"], accepted);
    }
    assert_eq!(report["samples"].as_array().map(Vec::len), Some(3));
    assert!(report["codes"].get("E_TOO_LONG").is_none() && report["codes"].get("E_TEMPLATE").is_none());
}

#[test]
fn columns_are_mapped_reasons_printed_and_what_is_learned_is_marked() {
    let folder = tempfile::tempdir().expect("folder");
    let lines =
        [pair("What is E-17?", "A late fee."), pair("Who pays?", " "), pair("What is E-17? ", "Something else.")];
    let file = write(folder.path(), "faq.jsonl", &lines);
    let done =
        run(&["dataset", "check", &file, "--map", "prompt=question,completion=answer", "--held-out-percent", "0"]);
    let out = done.ok();
    for part in [
        "3 = 2 accepted + 1 refused",
        "shape     prompt",
        "E_EMPTY  refused 1; fill it in or leave the row out",
        "line 2: turn 2 (assistant) is empty",
        "W_CONFLICT  warned 1",
        "⟦A late fee.<|im_end|>⟧",
    ] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
}

#[test]
fn nothing_accepted_and_strictness_exit_with_1_and_write_no_version() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("version");
    let empty = write(folder.path(), "empty.jsonl", &[json!({ "prompt": "a", "completion": "" }).to_string()]);
    let done = run(&["dataset", "check", &empty, "--out", text(&out)]);
    assert!(done.code == 1 && done.out.contains("1 = 0 accepted + 1 refused") && done.err.is_empty(), "{done:?}");
    let good = json!({ "prompt": "a", "completion": "b" }).to_string();
    let mixed = write(folder.path(), "mixed.jsonl", &[good, "no".to_owned()]);
    let strict = run(&["dataset", "check", &mixed, "--out", text(&out), "--strict"]);
    assert!(strict.code == 1 && strict.out.contains("E_JSON"), "{strict:?}");
    assert!(!out.exists());
    assert_eq!(run(&["dataset", "check", &mixed, "--out", text(&out)]).code, 0);
    assert!(out.is_dir());
    let names: Vec<_> = fs::read_dir(folder.path()).expect("folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 3, "nothing else is left: {names:?}");
}

#[test]
fn a_version_is_written_once_shown_and_refused_when_it_was_changed() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("finance-1");
    let check = || run(&["dataset", "check", &train(), "--mask", "--out", text(&out), "--json"]).json();
    let report = check();
    assert_eq!(check()["digest"], report["digest"], "again into the same place");
    let shown = run(&["dataset", "show", text(&out), "--json"]).json();
    assert_eq!((&shown["digest"], &shown["manifest"]), (&report["digest"], &report["manifest"]));
    assert_eq!(shown["manifest"]["options"]["mask"], true);
    let table = run(&["dataset", "show", text(&out)]).ok();
    assert!(table.contains("train") && table.contains("held_out") && table.contains("sha256:"), "{table}");
    let other = run(&["dataset", "check", &train(), "--out", text(&out)]);
    assert!(other.code == 1 && other.err.contains("never changed"), "{other:?}");
    let rows = out.join("rows.jsonl");
    let changed = fs::read_to_string(&rows).expect("rows").replacen("late fee", "lost fee", 1);
    fs::write(&rows, changed).expect("written");
    let shown = run(&["dataset", "show", text(&out)]);
    assert!(shown.code == 1 && shown.err.contains("hash of the rows"), "{shown:?}");
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_written() {
    let file = train();
    for (arguments, code, part) in [
        (vec!["--map", "question"], 2, "FIELD=COLUMN"),
        (vec!["--shape", "table"], 2, "shapes are messages"),
        (vec!["--held-out-percent", "60", "--validation-percent", "40"], 2, "90 percent"),
        (vec!["--label-set", "a,a"], 2, "stands twice"),
        (vec!["--map", "messages=dialog", "--shape", "messages"], 1, "dialog"),
        (vec!["--base", "/nowhere"], 1, "--base /nowhere"),
    ] {
        let done = run(&[&["dataset", "check", &file][..], &arguments].concat());
        assert!(done.code == code && done.err.contains(part), "{arguments:?}: {done:?}");
    }
    let help = run(&["dataset", "check", "--help"]).ok();
    assert!(help.contains("banyan dataset check faq.csv --map prompt=question,completion=answer"), "{help}");
}
