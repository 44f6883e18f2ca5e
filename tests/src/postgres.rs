//! A database of its own for each test, on a real PostgreSQL.
//!
//! The server is `BANYAN_TEST_POSTGRES_URL` (of a role that may create databases and roles) where that is set, else a
//! private one of this test process, made from the installed binaries. For tests that stop the server,
//! [`PostgresServer::start`] makes one that is nobody else's.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, OnceLock},
    thread,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::server_process::{ServerFolder, ServerProcess, find_program, free_port, wait_until};

const URL_VARIABLE: &str = "BANYAN_TEST_POSTGRES_URL";

/// A fresh, empty database, dropped with this value.
pub struct TestDatabase {
    server_url: String,
    name: String,
}

/// A PostgreSQL server in a temporary folder: durable enough for a crash of the server, not for one of the machine.
pub struct PostgresServer {
    programs: PathBuf,
    port: u16,
    process: Mutex<Option<ServerProcess>>,
    // Dropped after the process.
    folder: ServerFolder,
}

impl TestDatabase {
    /// On the server that the tests of this process share.
    pub async fn new() -> Self {
        static SHARED: OnceLock<String> = OnceLock::new();
        let url = tokio::task::spawn_blocking(|| SHARED.get_or_init(shared_url).clone()).await;
        Self::on(&url.expect("start the shared PostgreSQL")).await
    }

    /// On this server.
    pub async fn on(server_url: &str) -> Self {
        let name = format!("banyan_test_{}", Uuid::now_v7().simple());
        execute(server_url, &format!("create database {name} template template0 encoding 'UTF8'")).await;
        Self { server_url: server_url.to_owned(), name }
    }

    /// As the role that owns the database: for migrations.
    pub fn owner_url(&self) -> String {
        database_url(&self.server_url, &self.name, None)
    }

    /// As a new login role that owns nothing and is a member of `roles`: as a service connects.
    pub async fn service_url(&self, roles: &[&str]) -> String {
        let service = self.service_role();
        let member = if roles.is_empty() { String::new() } else { format!(" in role {}", roles.join(", ")) };
        execute(&self.server_url, &format!("create role {service} login noinherit password 'test'{member}")).await;
        database_url(&self.server_url, &self.name, Some(&service))
    }

    fn service_role(&self) -> String {
        format!("{}_service", self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drops = [
            format!("drop database if exists {} with (force)", self.name),
            format!("drop role if exists {}", self.service_role()),
        ];
        let url = self.server_url.clone();
        // On a thread of its own: a runtime cannot wait within another one.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("build a runtime").block_on(async {
                for drop in drops {
                    if let Err(error) = try_execute(&url, &drop).await {
                        eprintln!("{drop}: {error}");
                    }
                }
            });
        });
        let _ = dropping.join();
    }
}

impl PostgresServer {
    /// Starts one; blocks until it accepts connections.
    pub fn start() -> Self {
        let programs = find_program("postgres", &folders()).unwrap_or_else(|| {
            panic!("no PostgreSQL server is installed: run `tests/services.sh`, or set {URL_VARIABLE}")
        });
        let programs = programs.parent().expect("a file has a folder").to_owned();
        let folder = ServerFolder::new("postgres", &["postgres", "nobody"]);
        let initdb =
            ["--pgdata=data", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
        folder.run(&programs.join("initdb"), &initdb);
        let server = Self { programs, port: free_port(), process: Mutex::new(None), folder };
        server.resume();
        server
    }

    /// Of the superuser.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// It accepts connections and answers nothing, as a server whose machine has stalled.
    pub fn pause(&self) {
        self.signal_all("STOP");
    }

    /// After [`PostgresServer::pause`]: it answers again, also what it was asked meanwhile.
    pub fn unpause(&self) {
        self.signal_all("CONT");
    }

    /// Ends all its processes with SIGKILL at the same time. What was committed stays.
    pub fn kill(&self) {
        let running = self.process.lock().expect("no test panicked in here").take().expect("the server runs");
        running.end_all_and_keep_folder("KILL");
    }

    fn signal_all(&self, signal: &str) {
        let process = self.process.lock().expect("no test panicked in here");
        process.as_ref().expect("the server runs").signal_all(signal);
    }

    /// Ends the server at once, as a crash would: no checkpoint, every connection cut. What was committed stays.
    pub fn crash(&self) {
        let running = self.process.lock().expect("no test panicked in here").take().expect("the server runs");
        running.end_and_keep_folder("QUIT");
    }

    /// Starts the server again on the same data and port; blocks until it accepts connections.
    pub fn resume(&self) {
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", self.folder.path().display()),
            "fsync=off".to_owned(),
            "max_connections=200".to_owned(),
        ];
        let mut arguments = vec!["-D".to_owned(), "data".to_owned()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let mut started = self.folder.start(&self.programs.join("postgres"), &arguments, "QUIT");
        let state = self.folder.path().join("data/postmaster.pid");
        wait_until("the start of PostgreSQL", &self.folder, || {
            assert!(!started.has_ended(), "PostgreSQL did not start:\n{}", self.folder.log());
            let Ok(text) = fs::read_to_string(&state) else { return false };
            // The first line says whose file it is: a server that was killed leaves its own behind. The last line is
            // PostgreSQL's own word for "accepting connections".
            text.lines().next().is_some_and(|line| line.trim() == started.pid())
                && text.lines().last().is_some_and(|line| line.trim() == "ready")
        });
        *self.process.lock().expect("no test panicked in here") = Some(started);
    }
}

fn shared_url() -> String {
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return url;
    }
    // Kept for the life of the process, and ended by its supervisor after that.
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start).url()
}

/// Where packages put the server's programs, which are often not on the `PATH`; the newest first.
fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (root, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
    ] {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join("bin"))
            .collect();
        found.sort();
        folders.extend(found.into_iter().rev());
    }
    folders
}

/// `url` with another database, and another user where one is given.
fn database_url(url: &str, database: &str, user: Option<&str>) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
    let (rest, query) = rest.split_once('?').map_or((rest, String::new()), |(rest, query)| (rest, format!("?{query}")));
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let (owner, host) = authority.rsplit_once('@').map_or((None, authority), |(owner, host)| (Some(owner), host));
    let user = user.map(|user| format!("{user}:test")).or_else(|| owner.map(str::to_owned));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    format!("{scheme}://{user}{host}/{database}{query}")
}

async fn execute(url: &str, sql: &str) {
    if let Err(error) = try_execute(url, sql).await {
        panic!("{sql}: {error}");
    }
}

async fn try_execute(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    connection.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_everything_but_database_and_user() {
        let url = "postgresql://me:pw@host:5/postgres?sslmode=disable";
        assert_eq!(database_url(url, "db", None), "postgresql://me:pw@host:5/db?sslmode=disable");
        assert_eq!(database_url(url, "db", Some("it")), "postgresql://it:test@host:5/db?sslmode=disable");
        assert_eq!(database_url("postgres://host", "db", None), "postgres://host/db");
    }

    #[tokio::test]
    async fn a_test_database_is_empty_and_gone_after_the_test() {
        let database = TestDatabase::new().await;
        let url = database.owner_url();
        let mut connection = PgConnection::connect(&url).await.expect("connect");
        let tables: i64 = sqlx::query_scalar("select count(*) from pg_tables where schemaname = 'public'")
            .fetch_one(&mut connection)
            .await
            .expect("query");
        assert_eq!(tables, 0);
        drop(database);
        assert!(PgConnection::connect(&url).await.is_err());
    }

    #[test]
    fn a_private_server_keeps_what_was_committed_over_a_crash() {
        let runtime = tokio::runtime::Runtime::new().expect("build a runtime");
        let server = PostgresServer::start();
        runtime.block_on(execute(&server.url(), "create table kept (i int)"));
        server.crash();
        assert!(runtime.block_on(try_execute(&server.url(), "select 1")).is_err());
        server.resume();
        runtime.block_on(execute(&server.url(), "insert into kept select i from kept"));
        server.kill();
        assert!(runtime.block_on(try_execute(&server.url(), "select 1")).is_err());
        server.resume();
        runtime.block_on(execute(&server.url(), "select i from kept"));
    }
}
