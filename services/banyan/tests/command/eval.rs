//! `banyan eval` on the bundled industries: what is better is promoted, everything else is refused with its numbers.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Done, repository, run, text};

/// Held-out questions of finance, every twelfth: few enough for a test, and of every kind.
fn held_out(folder: &TempDir) -> PathBuf {
    let all = repository("adapters/industries/finance/data/eval.jsonl");
    let all = fs::read_to_string(all).expect("held-out data");
    // The last ones are about codes that nobody knows.
    let some: Vec<_> = all.lines().take(540).step_by(12).collect();
    let file = folder.path().join("held-out.jsonl");
    fs::write(&file, some.join("\n")).expect("writes");
    file
}

fn industry(name: &str) -> String {
    text(&repository("adapters/industries").join(name)).to_owned()
}

fn eval(folder: &TempDir, arguments: &[&str]) -> Done {
    let held_out = held_out(folder);
    run(&[&["eval", text(&held_out), "--draws", "1000"], arguments].concat())
}

fn rules(report: &Value) -> Vec<bool> {
    report["rules"].as_array().expect("rules").iter().filter_map(|rule| rule["holds"].as_bool()).collect()
}

#[test]
fn a_better_candidate_is_promoted_and_its_report_is_kept_in_three_forms() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("report");
    let arguments = ["--candidate", &industry("finance"), "--current", &industry("legal"), "--skills", "none"];
    let done = eval(&folder, &[&arguments[..], &["--out", text(&out), "--json"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let report = done.json();
    assert_eq!((report["decision"].as_str(), rules(&report)), (Some("promote"), vec![true; 4]));
    let gain = &report["comparisons"][0]["gain"];
    assert!(gain["low"].as_f64().is_some_and(|low| low > 0.5), "{gain}");
    let read = |name: &str| fs::read_to_string(out.join(name)).expect("was written");
    assert_eq!(serde_json::from_str::<Value>(&read("report.json")).expect("JSON"), report);
    assert!(read("report.txt").starts_with("Decision: promote"));
    assert!(read("report.html").contains("The candidate may take over"));
}

#[test]
fn a_worse_candidate_is_refused_with_numbers_and_exit_code_1() {
    let folder = TempDir::new().expect("a folder");
    let arguments = ["--candidate", &industry("legal"), "--current", &industry("finance"), "--skills", "none"];
    let done = eval(&folder, &arguments);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.starts_with("Decision: refuse"), "{done:?}");
    let told = done.out.lines().find(|line| line.contains("of the current")).expect("a rule");
    assert!(told.contains("FAILS") && told.contains("gain -"), "{told}");
}

#[test]
fn what_forgets_the_bases_skills_or_gives_a_secret_away_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let skills = folder.path().join("skills.jsonl");
    let all = fs::read_to_string(repository("adapters/seed/skills.jsonl")).expect("skills");
    fs::write(&skills, all.lines().step_by(5).collect::<Vec<_>>().join("\n")).expect("writes");
    let secrets = folder.path().join("secrets.txt");
    fs::write(&secrets, "dear customer\n").expect("writes");
    let arguments = ["--candidate", &industry("finance"), "--skills", text(&skills), "--secrets", text(&secrets)];
    let done = eval(&folder, &[&arguments[..], &["--regression-max", "0.05", "--json"]].concat());
    assert_eq!(done.code, 1, "{done:?}");
    let report = done.json();
    let [forgets, tells] = [2, 3].map(|rule| report["rules"][rule].clone());
    assert_eq!((forgets["holds"].as_bool(), tells["holds"].as_bool()), (Some(false), Some(false)), "{report:#}");
    assert!(forgets["told"].as_str().is_some_and(|told| told.contains("0.050 may be lost")), "{forgets}");
}

#[test]
fn what_cannot_be_judged_is_said_before_anything_is_computed() {
    let folder = TempDir::new().expect("a folder");
    let bad = folder.path().join("bad.jsonl");
    fs::write(&bad, "{\"messages\": []}\nno json\n").expect("writes");
    let done = run(&["eval", text(&bad), "--candidate", &industry("finance")]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("line 1: ") && done.err.contains("line 2: "), "{done:?}");
    let base = text(&repository("adapters/seed/base")).to_owned();
    let done = eval(&folder, &["--candidate", &industry("finance"), "--base", &base]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("--skills none"), "{done:?}");
    let done = eval(&folder, &["--candidate", text(folder.path())]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("--candidate") && done.err.contains("refused"), "{done:?}");
}
