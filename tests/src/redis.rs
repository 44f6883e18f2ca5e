//! A key prefix of its own for each test, on a real Redis.
//!
//! The server is `BANYAN_TEST_REDIS_URL` where that is set, else a private one of this test process. For tests that pause,
//! empty or kill the server, [`RedisServer::start`] makes one that is nobody else's.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use uuid::Uuid;

use crate::server_process::{ServerFolder, ServerProcess, find_program, free_port, wait_until};

const URL_VARIABLE: &str = "BANYAN_TEST_REDIS_URL";

/// Where a test may write: keys that begin with `prefix`.
pub struct TestRedis {
    pub url: String,
    pub prefix: String,
}

/// A Redis server that keeps nothing on disk.
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    process: Mutex<Option<ServerProcess>>,
    // Dropped after the process.
    folder: ServerFolder,
}

impl TestRedis {
    /// On the server that the tests of this process share.
    pub async fn new() -> Self {
        static SHARED: OnceLock<String> = OnceLock::new();
        let url = tokio::task::spawn_blocking(|| SHARED.get_or_init(shared_url).clone()).await;
        Self::on(&url.expect("start the shared Redis"))
    }

    /// On this server.
    pub fn on(url: &str) -> Self {
        Self { url: url.to_owned(), prefix: format!("test:{}:", Uuid::now_v7().simple()) }
    }
}

impl RedisServer {
    /// Starts one; blocks until it answers.
    pub fn start() -> Self {
        let server = Self::unstarted();
        server.restart();
        server
    }

    /// Starts one that copies the server at this port; blocks until it answers.
    pub fn replica_of(primary: u16) -> Self {
        let server = Self::unstarted();
        server.restart_as_replica_of(primary);
        server
    }

    fn unstarted() -> Self {
        let folders = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
        let program = find_program("redis-server", &folders)
            .unwrap_or_else(|| panic!("no Redis server is installed: run `tests/services.sh`, or set {URL_VARIABLE}"));
        let folder = ServerFolder::new("redis", &["redis", "nobody"]);
        Self { program, port: free_port(), process: Mutex::new(None), folder }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// It accepts connections and answers nothing, as a server whose machine has stalled.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// After [`RedisServer::pause`]: it answers again, also what it was asked meanwhile.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Forgets every key and every script, as after a failover to an empty replica.
    pub fn flush(&self) {
        assert_eq!(self.ask("FLUSHALL").as_deref(), Some("+OK"), "empty Redis");
        assert_eq!(self.ask("SCRIPT FLUSH").as_deref(), Some("+OK"), "empty Redis");
    }

    /// Ends it at once; every key is lost.
    pub fn kill(&self) {
        let running = self.process.lock().expect("no test panicked in here").take().expect("the server runs");
        running.end_and_keep_folder("KILL");
    }

    /// After [`RedisServer::kill`]: an empty one on the same port; blocks until it answers.
    pub fn restart(&self) {
        self.start_with(&[]);
    }

    /// As [`RedisServer::restart`], as a copy of the server at this port.
    pub fn restart_as_replica_of(&self, primary: u16) {
        self.start_with(&["--replicaof", "127.0.0.1", &primary.to_string()]);
    }

    /// Waits until it has a copy of its primary's data and gets what is written there.
    pub fn wait_until_it_follows(&self) {
        wait_until("the copy of Redis", &self.folder, || {
            self.ask("INFO replication").is_some_and(|told| told.contains("master_link_status:up"))
        });
    }

    /// It copies nobody any more, and may be written to.
    pub fn promote(&self) {
        assert_eq!(self.ask("REPLICAOF NO ONE").as_deref(), Some("+OK"), "promote Redis");
    }

    fn start_with(&self, more: &[&str]) {
        let port = self.port.to_string();
        let own = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let arguments: Vec<_> = own.iter().chain(more).map(|word| (*word).to_owned()).collect();
        let mut started = self.folder.start(&self.program, &arguments, "KILL");
        wait_until("the start of Redis", &self.folder, || {
            assert!(!started.has_ended(), "Redis did not start:\n{}", self.folder.log());
            self.ask("PING").as_deref() == Some("+PONG")
        });
        *self.process.lock().expect("no test panicked in here") = Some(started);
    }

    fn signal(&self, signal: &str) {
        let process = self.process.lock().expect("no test panicked in here");
        process.as_ref().expect("the server runs").signal(signal);
    }

    /// One command on a connection of its own; `None` when nobody answers.
    fn ask(&self, command: &str) -> Option<String> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        connection.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 4096];
        let length = connection.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).trim().to_owned())
    }
}

fn shared_url() -> String {
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return url;
    }
    // Kept for the life of the process, and ended by its supervisor after that.
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start).url()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_be_paused_emptied_killed_and_restarted() {
        let server = RedisServer::start();
        assert_eq!(server.ask("SET k v").as_deref(), Some("+OK"));
        server.pause();
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("connect while paused");
        connection.write_all(b"PING\r\n").expect("write while paused");
        connection.set_read_timeout(Some(Duration::from_millis(50))).expect("set a timeout");
        assert!(connection.read(&mut [0; 8]).is_err(), "a paused server answers nothing");
        server.resume();
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
        assert_eq!(connection.read(&mut [0; 8]).expect("an answer after the pause"), 7);
        server.flush();
        assert_eq!(server.ask("GET k").as_deref(), Some("$-1"));
        server.kill();
        assert_eq!(server.ask("PING"), None);
        server.restart();
        assert_eq!(server.ask("PING").as_deref(), Some("+PONG"));
    }

    #[test]
    fn a_replica_follows_until_it_is_promoted() {
        let primary = RedisServer::start();
        assert_eq!(primary.ask("SET k v").as_deref(), Some("+OK"));
        let replica = RedisServer::replica_of(primary.port());
        replica.wait_until_it_follows();
        assert_eq!(replica.ask("GET k").as_deref(), Some("$1\r\nv"));
        assert!(replica.ask("SET k w").is_some_and(|told| told.starts_with("-READONLY")));
        primary.kill();
        replica.promote();
        assert_eq!(replica.ask("SET k w").as_deref(), Some("+OK"));
    }
}
