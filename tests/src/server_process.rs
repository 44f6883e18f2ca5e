//! A server as a child of the test process: in a temporary folder, without root's rights, and gone when the test process
//! is, however that ends.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Generous: the machine may be busy compiling.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Ends with the server. Beside it waits a watcher for the end of standard input, which comes with the end of the test
/// process, kills included: it ends the server and removes the folder, unless it was told `keep`. A signal to the whole
/// process group, as from Ctrl-C, does not keep it from that.
const SUPERVISE: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >>"$LOG" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
(
  trap '' HUP INT TERM
  order=$(cat <&3)
  [ "$order" = keep ] && exit
  kill -CONT "$server"
  kill "-$END" "$server"
  while kill -0 "$server"; do sleep 0.05; done
  rm -rf "$FOLDER"
) &
exec 3<&-
wait "$server"
"#;

/// A folder that the server's user owns.
pub(crate) struct ServerFolder {
    folder: TempDir,
    user: Option<String>,
}

pub(crate) struct ServerProcess {
    supervisor: Child,
    pid: String,
}

impl ServerFolder {
    /// `users`: under which of these the server runs when the tests run as root, the first that exists; with none it runs
    /// as whoever runs the tests.
    pub(crate) fn new(name: &str, users: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("banyan-test-{name}-")).tempdir().expect("make a folder");
        let user = (!users.is_empty() && id("-u", None) == Some(0)).then(|| {
            let user = users.iter().find(|user| id("-u", Some(user)).is_some());
            let user = user.unwrap_or_else(|| panic!("tests run as root, and none of the users {users:?} exists"));
            chown(folder.path(), id("-u", Some(user)), id("-g", Some(user))).expect("hand the folder over");
            (*user).to_owned()
        });
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("close the folder");
        Self { folder, user }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs a program to its end as the server's user.
    pub(crate) fn run(&self, program: &Path, arguments: &[&str]) {
        let [first, rest @ ..] = &self.command(program)[..] else { unreachable!("a command has a program") };
        let output = Command::new(first).args(rest).args(arguments).current_dir(self.path()).output();
        let output = output.unwrap_or_else(|error| panic!("run {}: {error}", program.display()));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {stderr}", program.display());
    }

    /// Starts a server that ends on the signal `end`.
    pub(crate) fn start(&self, program: &Path, arguments: &[String], end: &str) -> ServerProcess {
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISE, "supervise"])
            .args(self.command(program))
            .args(arguments)
            .env("LOG", self.log_path())
            .env("FOLDER", self.path())
            .env("END", end)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a shell");
        let stdout = supervisor.stdout.take().expect("stdout is piped");
        let mut pid = String::new();
        BufReader::new(stdout).read_line(&mut pid).expect("read the server's process id");
        ServerProcess { supervisor, pid: pid.trim().to_owned() }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn command(&self, program: &Path) -> Vec<String> {
        let program = program.display().to_string();
        match &self.user {
            None => vec![program],
            Some(user) => {
                let group = id("-g", Some(user)).expect("a user has a group");
                let user = format!("--reuid={user}");
                vec!["setpriv".to_owned(), user, format!("--regid={group}"), "--clear-groups".to_owned(), program]
            }
        }
    }
}

impl ServerProcess {
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid]).status();
        assert!(status.expect("run kill").success(), "send {signal} to {}", self.pid);
    }

    /// To the server and to the processes that it has started, all with one command.
    pub(crate) fn signal_all(&self, signal: &str) {
        let children = Command::new("pgrep").args(["-P", &self.pid]).output().expect("run pgrep");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        // Fails when a child has ended meanwhile.
        let _ = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid])
            .args(children.split_whitespace())
            .stderr(Stdio::null())
            .status()
            .expect("run kill");
    }

    /// Ends the server and leaves its folder for the next one.
    pub(crate) fn end_and_keep_folder(mut self, signal: &str) {
        self.keep_folder();
        self.signal(signal);
    }

    /// The same, with everything that the server has started.
    pub(crate) fn end_all_and_keep_folder(mut self, signal: &str) {
        self.keep_folder();
        self.signal_all(signal);
    }

    fn keep_folder(&mut self) {
        let mut stdin = self.supervisor.stdin.take().expect("stdin is piped");
        stdin.write_all(b"keep").expect("tell the supervisor");
    }

    pub(crate) fn pid(&self) -> &str {
        &self.pid
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.supervisor.try_wait().expect("look after the supervisor").is_some()
    }
}

impl Drop for ServerProcess {
    /// Ends the server now and waits for it.
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        if let Err(error) = self.supervisor.wait() {
            eprintln!("waiting for a test server to end: {error}");
        }
    }
}

/// A TCP port that is free at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
    listener.local_addr().expect("a bound port has an address").port()
}

/// Asks until the answer is yes; panics with `what` and the log when the time is over.
pub(crate) fn wait_until(what: &str, folder: &ServerFolder, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < START_TIMEOUT, "{what} took too long:\n{}", folder.log());
        // The pause between two looks, not a guess of how long it takes.
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// The first of these programs that is there: by path, else on the `PATH`.
pub(crate) fn find_program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&on_path));
    all.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn id(what: &str, user: Option<&str>) -> Option<u32> {
    let arguments = [Some(what), user].into_iter().flatten().map(OsStr::new);
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().expect("run id");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
