//! The line that every figure needs: on which machine and from which commit it comes.

use std::{fs, path::Path, process::Command, thread};

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    /// Threads that this process may use.
    pub cores: usize,
    /// Of the source tree, if it is still there.
    pub commit: String,
    /// Profile: `dev` (which optimises the kernels too) or `release`.
    pub build: &'static str,
}

impl Machine {
    pub fn read() -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
        }
    }

    pub fn line(&self) -> String {
        format!("{}, {} cores, commit {}, {} build", self.cpu, self.cores, self.commit, self.build)
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(tree).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
