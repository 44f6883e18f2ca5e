//! A `banyan` process of a deployment: killed, and started again with the same arguments in the same folder.

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::server_process::{ServerFolder, ServerProcess, wait_until};

/// In the folder where it runs.
pub const LOG: &str = "log";

/// Ended and removed when dropped.
pub struct BanyanProcess {
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    running: Mutex<Option<ServerProcess>>,
    // Dropped after the process.
    folder: ServerFolder,
}

impl BanyanProcess {
    /// Starts `program` with these arguments; `address` is where it will listen. Does not wait for that.
    pub fn start(name: &str, program: &Path, arguments: Vec<String>, address: SocketAddr) -> Self {
        let folder = ServerFolder::new(name, &[]);
        std::fs::create_dir(folder.path().join(LOG)).expect("make the folder of the log");
        let process = Self { program: program.to_owned(), arguments, address, running: Mutex::new(None), folder };
        process.restart();
        process
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// For what a gateway writes down before it reaches the database.
    pub fn log_folder(&self) -> PathBuf {
        self.folder.path().join(LOG)
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.folder.log()
    }

    /// As an out-of-memory killer does it; returns when it is gone.
    pub fn kill(&self) {
        self.take().end_and_keep_folder("KILL");
    }

    /// Asks it to stop, and waits until it has: running answers may finish.
    pub fn stop(&self) {
        self.take().end_and_keep_folder("TERM");
    }

    /// After [`BanyanProcess::kill`] or [`BanyanProcess::stop`].
    pub fn restart(&self) {
        self.restart_under(&[]);
    }

    /// The same, as what a wrapper starts: its words come before the program.
    pub fn restart_under(&self, wrapper: &[String]) {
        let program = self.program.display().to_string();
        let words: Vec<_> = wrapper.iter().cloned().chain([program]).chain(self.arguments.iter().cloned()).collect();
        let (first, rest) = words.split_first().expect("a command has a program");
        let started = self.folder.start(Path::new(first), rest, "KILL");
        *self.running.lock().expect("no test panicked in here") = Some(started);
    }

    /// Of the process, or of its wrapper.
    pub fn pid(&self) -> String {
        let running = self.running.lock().expect("no test panicked in here");
        running.as_ref().expect("it runs").pid().to_owned()
    }

    /// Blocks until it accepts connections.
    pub fn wait_until_it_listens(&self) {
        wait_until("the start of a banyan process", &self.folder, || {
            let mut running = self.running.lock().expect("no test panicked in here");
            assert!(!running.as_mut().expect("it was started").has_ended(), "it did not start:\n{}", self.log());
            TcpStream::connect(self.address).is_ok()
        });
    }

    fn take(&self) -> ServerProcess {
        self.running.lock().expect("no test panicked in here").take().expect("it runs")
    }
}
