//! `banyan up`: first start, later starts, starts after a crash, and the end.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use crate::{
    command::{command, repository, run, text},
    platform::Platform,
};

const MODELS: [&str; 5] = ["base", "demo/finance", "demo/healthcare", "demo/legal", "demo/manufacturing"];
const QUESTION: &str = "What does E-17 mean?";

fn answers(platform: &Platform) -> Vec<String> {
    MODELS.map(|model| platform.ask(model, QUESTION)).to_vec()
}

#[test]
fn four_industries_and_the_base_answer_differently_and_a_second_start_finds_everything_again() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, ready) = Platform::start(data.path(), &[]);
    assert_eq!(ready["models"], serde_json::json!(MODELS));
    let key = ready["new_key"].as_str().expect("a key at the first start");
    for file in ["client.toml", "secrets.toml"] {
        let mode = fs::metadata(data.path().join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is private");
    }
    let first = answers(&platform);
    for (at, answer) in first.iter().enumerate() {
        assert!(!answer.trim().is_empty());
        assert!(!first[..at].contains(answer), "{answer} twice in {first:?}");
    }
    platform.stop();

    let (platform, ready) = Platform::start(data.path(), &[]);
    assert!(ready["new_key"].is_null(), "the key is found again");
    assert!(fs::read_to_string(data.path().join("client.toml")).expect("file").contains(key));
    assert!(!platform.said().iter().any(|line| line.contains("importing")), "nothing is imported twice");
    assert_eq!(answers(&platform), first);
    platform.stop();
}

#[test]
fn a_first_start_that_is_killed_half_way_is_repaired_by_the_next() {
    let data = tempfile::tempdir().expect("folder");
    let mut platform = Platform::begin(data.path(), &[]);
    platform.wait_for("importing demo/healthcare");
    platform.kill();
    assert!(!data.path().join("client.toml").exists(), "it was not ready yet");

    let (platform, ready) = Platform::start(data.path(), &[]);
    assert_eq!(ready["models"], serde_json::json!(MODELS));
    let answer = platform.ask("demo/legal", QUESTION);
    // And one that runs is as safe to kill.
    platform.kill();
    let (platform, ready) = Platform::start(data.path(), &[]);
    assert!(ready["new_key"].is_null());
    assert_eq!(platform.ask("demo/legal", QUESTION), answer);
    platform.stop();
}

#[test]
fn what_was_deleted_does_not_come_back_with_the_next_start() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    platform.run(&["adapter", "delete", "demo/legal"]).ok();
    platform.stop();
    let (platform, ready) = Platform::start(data.path(), &[]);
    assert_eq!(ready["models"].as_array().map(Vec::len), Some(MODELS.len() - 1), "{ready}");
    assert_eq!(platform.run(&["generate", "--model", "demo/legal", QUESTION]).code, 1);
    platform.stop();
}

#[test]
fn adapters_that_do_not_fit_another_base_are_skipped_and_said() {
    let data = tempfile::tempdir().expect("folder");
    let base = repository("tests/golden/bases/llama");
    let (platform, ready) = Platform::start(data.path(), &["--base", text(&base)]);
    assert_eq!(ready["models"], serde_json::json!(["base"]));
    let skipped = platform.said().iter().filter(|line| line.contains("skipped demo/")).count();
    assert_eq!(skipped, MODELS.len() - 1);
    platform.run(&["generate", "--model", "base", "--raw", "--max-tokens", "4", "a"]).ok();
    platform.stop();
}

#[test]
fn a_running_answer_ends_before_the_platform_does() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let mut answer = command()
        .args(["generate", "--model", "base", "--raw", "--ignore-eos", "--max-tokens", "500", "--verbose"])
        .args(["--data", text(data.path()), "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut out = answer.stdout.take().expect("piped");
    out.read_exact(&mut [0; 1]).expect("it has begun");
    platform.interrupt();
    let output = answer.wait_with_output().expect("ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success() && said.contains("500 completion tokens"), "{said}");
    assert!(platform.wait().success());
}

#[test]
fn a_data_directory_in_use_and_a_base_that_is_none_are_said() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let second = run(&["up", "--data", text(data.path())]);
    assert!(second.code == 1 && second.err.contains("in use"), "{second:?}");
    platform.stop();
    let wrong = run(&["up", "--data", text(data.path()), "--base", text(data.path()), "--listen", "127.0.0.1:0"]);
    assert!(wrong.code == 1 && wrong.err.contains("base model"), "{wrong:?}");
}
