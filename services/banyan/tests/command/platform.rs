//! A running `banyan up` on free ports. Killed when dropped.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::command::{Done, command, run, text};

/// Generous: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Platform {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    data: PathBuf,
}

impl Platform {
    /// Starts, and waits until it is up. What it printed then comes back.
    pub fn start(data: &Path, flags: &[&str]) -> (Self, Value) {
        let mut platform = Self::begin(data, flags);
        let line = platform.out.recv_timeout(DEADLINE).unwrap_or_else(|_| platform.died());
        let ready = serde_json::from_str(&line).expect("JSON");
        (platform, ready)
    }

    /// Starts, and does not wait.
    pub fn begin(data: &Path, flags: &[&str]) -> Self {
        let mut child = command()
            .args(["up", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--data", text(data)])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let out = lines(child.stdout.take().expect("piped"));
        let err = lines(child.stderr.take().expect("piped"));
        Self { child, out, err, data: data.to_owned() }
    }

    /// Waits for a line on standard error.
    pub fn wait_for(&mut self, part: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.err.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return,
                Ok(_) => {}
                Err(_) => panic!("`{part}` was not said; status {:?}", self.child.try_wait()),
            }
        }
    }

    /// Standard error so far.
    pub fn said(&self) -> Vec<String> {
        self.err.try_iter().collect()
    }

    /// A client verb against this platform.
    pub fn run(&self, arguments: &[&str]) -> Done {
        run(&[arguments, &["--data", text(&self.data)]].concat())
    }

    /// The most likely answer of `model`.
    pub fn ask(&self, model: &str, question: &str) -> String {
        self.run(&["generate", "--model", model, "--temperature", "0", "--max-tokens", "48", question]).ok()
    }

    pub fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    pub fn kill(mut self) {
        self.child.kill().expect("is ours");
        self.child.wait().expect("ends");
    }

    pub fn wait(mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("is ours") {
                return status;
            }
            assert!(Instant::now() < end, "it did not stop: {:?}", self.said());
            // Its standard error closes when it ends; until then there is nothing else to wait on.
            let _ = self.err.recv_timeout(Duration::from_millis(50));
        }
    }

    pub fn stop(self) {
        self.interrupt();
        assert!(self.wait().success());
    }

    fn died(&mut self) -> ! {
        panic!("it did not come up: {:?} {:?}", self.child.try_wait(), self.said())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
