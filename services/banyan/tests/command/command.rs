//! Runs the binary to its end.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// What a finished command left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Standard output of a command that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One value per line.
    pub fn json_lines(self) -> Vec<Value> {
        let out = self.ok();
        out.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }
}

/// The binary, free of what the caller's environment says.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_banyan"));
    for name in ["ENDPOINT", "ADMIN_ENDPOINT", "KEY", "OPERATOR_TOKEN", "DATA"] {
        command.env_remove(format!("BANYAN_{name}"));
    }
    command.stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Done {
    finish(command().args(arguments).output().expect("the binary runs"))
}

pub fn run_with_input(arguments: &[&str], input: &str) -> Done {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the command reads");
    finish(child.wait_with_output().expect("ends"))
}

pub fn finish(output: std::process::Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A path of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
