//! `banyan train` on the bundled base: from a customer's rows to an adapter that serves, and a kill that changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::command::{Done, command, repository, run, text};

/// Until a killed training has kept its first steps, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// A dataset version of a few rows, a third of them held out.
fn version(folder: &TempDir) -> PathBuf {
    let row = |number: usize, wording: &str| {
        let question = wording.replace('#', &format!("Q-{}", 10 + number));
        format!("{{\"prompt\":\"{question}\",\"completion\":\"It means step {number} of the line.\"}}\n")
    };
    let rows: String = (0..40).map(|n| row(n, "What does # mean?") + &row(n, "Please explain #.")).collect();
    let (file, version) = (folder.path().join("rows.jsonl"), folder.path().join("version"));
    fs::write(&file, rows).expect("writes");
    let split = ["--held-out-percent", "30", "--validation-percent", "20"];
    run(&[&["dataset", "check", text(&file), "--out", text(&version)], &split[..]].concat()).ok();
    version
}

fn arguments<'a>(version: &'a Path, out: &'a Path) -> Vec<&'a str> {
    let few = ["--epochs", "1", "--step-tokens", "150", "--rank", "4", "--replay", "none"];
    [&["train", text(version), "--out", text(out)], &few[..]].concat()
}

fn adapter(folder: &Path) -> [Vec<u8>; 2] {
    FILES.map(|name| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

#[test]
fn an_adapter_is_trained_inspected_and_judged_and_a_kill_changes_no_bit_of_it() {
    let folder = TempDir::new().expect("a folder");
    let (version, whole, killed) = (version(&folder), folder.path().join("whole"), folder.path().join("killed"));
    let trained = run(&[&arguments(&version, &whole)[..], &["--json"]].concat());
    assert_eq!(trained.code, 0, "{trained:?}");
    let told = trained.json();
    assert!(told["steps_done"].as_u64().is_some_and(|steps| steps > 5), "{told}");
    assert!(told["dataset"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{told}");
    assert_eq!(fs::read_dir(&whole).expect("a folder").count(), FILES.len(), "no checkpoint is left");

    let mut child = command().args(arguments(&version, &killed)).stdout(Stdio::null()).spawn().expect("starts");
    let deadline = Instant::now() + PATIENCE;
    while !killed.join("checkpoint").is_file() {
        assert!(Instant::now() < deadline, "no checkpoint");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    run(&arguments(&version, &killed)).ok();
    assert!(adapter(&killed) == adapter(&whole), "the same adapter");

    let base = repository("adapters/seed/base");
    run(&["inspect", text(&whole), "--base", text(&base)]).ok();
    let judged: Done = run(&["eval", text(&version), "--candidate", text(&whole), "--skills", "none", "--json"]);
    let report = judged.json();
    assert!(report["suites"][0]["items"].as_array().is_some_and(|items| items.len() > 5), "the held-out side is asked");
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_is_computed() {
    let folder = TempDir::new().expect("a folder");
    let (version, out) = (version(&folder), folder.path().join("out"));
    let no_version = run(&["train", text(folder.path()), "--out", text(&out)]);
    assert_eq!(no_version.code, 1, "{no_version:?}");
    let no_rank = run(&["train", text(&version), "--out", text(&out), "--rank", "0"]);
    assert_eq!(no_rank.code, 1, "{no_rank:?}");
    assert!(!out.join("checkpoint").exists(), "nothing was begun");
    let no_module = run(&["train", text(&version), "--out", text(&out), "--targets", "nothing_like_it"]);
    assert_eq!(no_module.code, 1, "{no_module:?}");
}
