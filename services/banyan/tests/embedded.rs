//! The embedded PostgreSQL: the store behaves on it as on a server, and neither a kill nor a broken client costs anything
//! that was committed.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use banyan::embedded::{Embedded, EmbeddedError};
use sqlx::{Connection, Executor, PgConnection};
use store::{Store, StoreConfig};

#[path = "../../store/tests/store/suite.rs"]
mod suite;

/// Where the child process finds its database.
const FOLDER: &str = "BANYAN_TEST_EMBEDDED_FOLDER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_behaves_as_on_a_server() {
    let folder = tempfile::tempdir().expect("make a folder");
    let embedded = Embedded::start(folder.path()).await.expect("start");
    store::migrate(embedded.url()).await.expect("migrate");
    let store = Store::connect(embedded.url(), &StoreConfig::single_connection()).await.expect("connect");
    suite::all(&store).await;
    // Many at once over the one connection: they take turns, and none waits for itself.
    let (own, _) = suite::tenant(&store).await;
    let adapters = (0..20).map(|i| {
        let own = own.clone();
        tokio::spawn(async move { suite::adapter(&own, &format!("adapter-{i}")).await })
    });
    for adapter in adapters.collect::<Vec<_>>() {
        adapter.await.expect("create");
    }
    assert_eq!(own.used_stock().await.expect("count").adapters, 20);
    store.close().await;
    embedded.stop().await.expect("stop");
}

#[tokio::test]
async fn a_folder_belongs_to_one_at_a_time_and_keeps_its_rows() {
    let folder = tempfile::tempdir().expect("make a folder");
    let embedded = Embedded::start(folder.path()).await.expect("start");
    let refused = Embedded::start(folder.path()).await.err().expect("in use");
    assert!(matches!(refused, EmbeddedError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    execute(embedded.url(), "create table kept as select 42 as answer").await;
    embedded.stop().await.expect("stop");
    let embedded = Embedded::start(folder.path()).await.expect("start again");
    assert_eq!(count(embedded.url(), "select answer::bigint from kept").await, 42);
    embedded.stop().await.expect("stop");
}

#[tokio::test]
async fn any_path_of_a_folder_will_do() {
    let folder = tempfile::tempdir().expect("make a folder");
    for name in ["with space & more%20", &"long".repeat(50), "数据"] {
        let embedded = Embedded::start(&folder.path().join(name)).await.expect("start");
        assert_eq!(count(embedded.url(), "select 7::bigint").await, 7, "{name}");
        embedded.stop().await.expect("stop");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_or_talks_nonsense_costs_only_itself() {
    let folder = tempfile::tempdir().expect("make a folder");
    let embedded = Embedded::start(folder.path()).await.expect("start");
    execute(embedded.url(), "create table kept (i int)").await;
    for nonsense in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[0, 0, 0, 9, 0, 3, 0, 0, b'x']] {
        let mut client = UnixStream::connect(socket(embedded.url())).expect("connect");
        // It may be cut off while it talks.
        let _ = client.write_all(nonsense);
        drop(client);
        execute(embedded.url(), "insert into kept values (1)").await;
    }
    // In the middle of a transaction, without a word.
    let mut connection = PgConnection::connect(embedded.url()).await.expect("connect");
    connection.execute("begin").await.expect("begin");
    connection.execute("insert into kept values (2)").await.expect("insert");
    drop(connection);
    assert_eq!(count(embedded.url(), "select count(*) from kept").await, 4);
    embedded.stop().await.expect("stop");
}

#[tokio::test]
async fn no_acknowledged_row_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("make a folder");
    let mut acknowledged = 0;
    for kill_after in [1, 40, 333] {
        acknowledged = kill_while_inserting(folder.path(), kill_after);
        let embedded = Embedded::start(folder.path()).await.expect("start after the kill");
        execute(embedded.url(), CREATE).await;
        let sql = format!("select count(*) from inserted where i <= {acknowledged}");
        assert_eq!(count(embedded.url(), &sql).await, acknowledged, "killed after {kill_after}");
        embedded.stop().await.expect("stop");
    }
    assert!(acknowledged >= 333);
}

const CREATE: &str = "create table if not exists inserted (i bigint primary key)";

/// Runs the test below in a process of its own, kills it after so many acknowledged rows, and
/// returns the last row that it has acknowledged.
fn kill_while_inserting(folder: &Path, kill_after: usize) -> i64 {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "insert_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let rows = stdout.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("row ")?.parse().ok());
    let mut last = 0;
    for (read, row) in rows.enumerate() {
        last = row;
        // What it has acknowledged before the kill is still in the pipe and counts as well.
        if read + 1 == kill_after {
            child.kill().expect("kill");
        }
    }
    assert!(!child.wait().expect("wait").success(), "it was killed");
    last
}

#[tokio::test]
#[ignore = "a child process of the test above"]
async fn insert_until_killed() {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).expect("the test above names a folder");
    let embedded = Embedded::start(&folder).await.expect("start");
    let mut connection = PgConnection::connect(embedded.url()).await.expect("connect");
    connection.execute(CREATE).await.expect("make the table");
    loop {
        let row: i64 =
            sqlx::query_scalar("insert into inserted select coalesce(max(i), 0) + 1 from inserted returning i")
                .fetch_one(&mut connection)
                .await
                .expect("insert");
        println!("row {row}");
    }
}

fn socket(url: &str) -> PathBuf {
    let (_, folder) = url.split_once("host=").expect("the URL names the socket's folder");
    Path::new(folder.split('&').next().expect("a value")).join(".s.PGSQL.5432")
}

async fn execute(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("connect");
    connection.execute(sql).await.expect(sql);
    connection.close().await.expect("close");
}

async fn count(url: &str, sql: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("connect");
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.expect("count");
    connection.close().await.expect("close");
    count
}
