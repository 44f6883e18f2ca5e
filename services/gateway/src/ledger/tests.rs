//! The log under a process that is killed while it writes, on a disk that is full, and under two that ship the same.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ::tests::postgres::TestDatabase;
use domain::{Price, TenantId};
use store::{Page, StoreConfig};

use super::{record::tests::hold, *};
use crate::{config::WorkersConfig, limits::InProcessLimits};

const ROUNDS: usize = 12;
/// Where the child finds its database and the size of its segments, in the folder in which it runs.
const URL: &str = "url";
const SEGMENT: &str = "segment";
const TENANT: u128 = 7;
/// So that there are many.
const SMALL_SEGMENT: u64 = 1 << 14;

fn config(dir: &Path, segment_bytes: u64) -> LedgerConfig {
    LedgerConfig {
        dir: dir.to_str().expect("UTF-8").to_owned(),
        requests_max: 64,
        segment_bytes,
        bytes_max: 1 << 24,
        batch_max: 32,
        ship_interval_ms: 1,
        ship_wait_ms: 30_000,
        sync_wait_ms: 5_000,
        retry_ms: 10,
        sweep_interval_ms: 60_000,
        grace_ms: 60_000,
        orphan_ms: 900_000,
    }
}

async fn store(url: &str) -> Store {
    Store::connect(url, &StoreConfig::default()).await.expect("connects")
}

fn nobody(stop: CancellationToken) -> Workers {
    let defaults: toml::Table = crate::DEFAULTS.parse().expect("TOML");
    let config: WorkersConfig = defaults["workers"].clone().try_into().expect("a table");
    Workers::start(&config, &chassis::config::Secret::new("c"), stop).expect("starts").0
}

fn alone() -> Arc<dyn RateLimits> {
    Arc::new(InProcessLimits::default())
}

fn mine() -> Hold {
    let price = Price { input: 1_000_000, cached_input: 1_000_000, output: 1_000_000 };
    let deadline = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    Hold { tenant: TenantId::new(Uuid::from_u128(TENANT)), price, deadline, ..hold() }
}

/// What the other tests run and kill: requests without end, each told when it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests that kill it"]
async fn child() {
    let (Ok(url), Ok(segment)) = (std::fs::read_to_string(URL), std::fs::read_to_string(SEGMENT)) else { return };
    let config = config(Path::new("log"), segment.parse().expect("a number"));
    let stop = CancellationToken::new();
    let (ledger, _task) =
        Ledger::start(store(&url).await, nobody(stop.clone()), alone(), &config, stop).expect("starts");
    let work = (0..8).map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            loop {
                let hold = mine();
                let record = hold.record();
                let begun = match ledger.place() {
                    Ok(place) => place.begin(hold).await,
                    Err(fault) => Err(fault),
                };
                let Ok(open) = begun else {
                    println!("refused {}", record.request);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                println!("begun {}", record.request);
                open.end(End::Posted(Box::new(record.clone()))).await.expect("durable");
                println!("ended {}", record.request);
            }
        })
    });
    futures::future::join_all(work.collect::<Vec<_>>()).await;
}

/// What children have said, and where they write.
struct Told {
    _database: TestDatabase,
    url: String,
    dir: tempfile::TempDir,
    begun: HashSet<RequestId>,
    ended: HashSet<RequestId>,
    refused: usize,
}

impl Told {
    async fn nothing(segment_bytes: u64) -> Self {
        let database = TestDatabase::new().await;
        store::migrate(&database.owner_url()).await.expect("migrates");
        let url = database.service_url(&["banyan_app", "banyan_platform"]).await;
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(URL), &url).expect("writes");
        std::fs::write(dir.path().join(SEGMENT), segment_bytes.to_string()).expect("writes");
        let (begun, ended) = (HashSet::new(), HashSet::new());
        Self { _database: database, url, dir, begun, ended, refused: 0 }
    }

    /// Through a shell that sets limits first.
    fn spawn(&self, limits: &str) -> Child {
        let test = std::env::current_exe().expect("this test");
        let script = format!("{limits} exec {test:?} --exact ledger::tests::child --ignored --nocapture");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(self.dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs")
    }

    /// How many lines of ours this is.
    fn note(&mut self, line: &str) -> usize {
        let Some((word, id)) = line.split_once(' ') else { return 0 };
        let Ok(id) = id.parse() else { return 0 };
        match word {
            "begun" => usize::from(self.begun.insert(id)),
            "ended" => usize::from(self.ended.insert(id)),
            "refused" => {
                self.refused += 1;
                0
            }
            _ => 0,
        }
    }

    /// Ships what is left, and looks for every request in the ledger. Says how many were posted.
    async fn check(&self) -> usize {
        let (stop, log) = (CancellationToken::new(), self.dir.path().join("log"));
        let store = store(&self.url).await;
        let config = config(&log, SMALL_SEGMENT);
        let started = Ledger::start(store.clone(), nobody(stop.clone()), alone(), &config, stop.clone());
        let (ledger, task) = started.expect("starts");
        drop(ledger);
        stop.cancel();
        task.await.expect("ends");
        let own = store.tenant(TenantId::new(Uuid::from_u128(TENANT)));
        let (mut reserved, mut posted, mut token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = own.list_entries(&Page { size: 1_000, token }).await.expect("lists");
            for entry in page.items {
                match entry.kind {
                    store::EntryKind::Reserved => reserved.push(entry.request),
                    store::EntryKind::Posted => posted.push((entry.request, entry.charged)),
                    other => panic!("{other:?}"),
                }
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let kept: HashSet<RequestId> = posted.iter().map(|(request, _)| *request).collect();
        let lost: Vec<_> = self.ended.difference(&kept).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let written: HashSet<RequestId> = reserved.iter().copied().collect();
        assert!(self.begun.is_subset(&written), "a beginning outlives the process");
        assert_eq!((kept.len(), written.len()), (posted.len(), reserved.len()), "nothing is there twice");
        assert!(posted.iter().all(|(_, charged)| *charged == mine().record().cost(mine().price)));
        assert_eq!(segment::list(&log).expect("lists").len(), 1, "what is shipped is deleted");
        posted.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_entry_and_makes_none_twice() {
    let mut told = Told::nothing(SMALL_SEGMENT).await;
    for round in 0..ROUNDS {
        let mut child = told.spawn("");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Killed in the middle of writing, each time somewhere else; what it has said by then is true.
        let mut heard = 0;
        while heard < 40 + 97 * round {
            let line = lines.next().expect("the child runs").expect("text");
            heard += told.note(&line);
        }
        child.kill().expect("kills");
        lines.map_while(Result::ok).for_each(|line| {
            told.note(&line);
        });
        child.wait().expect("is dead");
    }
    let posted = told.check().await;
    println!("{ROUNDS} kills: {} ended, {posted} posted, lost 0, twice 0", told.ended.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_requests_loses_no_end_and_goes_on_when_there_is_room() {
    let mut told = Told::nothing(1 << 20).await;
    // No file may have more than 128 KiB, and writing more is an error instead of a signal.
    let mut child = told.spawn("trap '' XFSZ; ulimit -S -f 256;");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut until = |told: &mut Told, what: &dyn Fn(&Told) -> bool| {
        while !what(told) {
            let line = lines.next().expect("the child runs").expect("text");
            told.note(&line);
        }
    };
    until(&mut told, &|told| told.refused >= 20);
    let before = told.ended.len();
    assert!(before > 50, "there was room at first: {before}");
    let raised = Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited:"]).status();
    assert!(raised.expect("runs").success());
    until(&mut told, &|told| told.ended.len() >= before + 200);
    child.kill().expect("kills");
    child.wait().expect("is dead");
    lines.map_while(Result::ok).for_each(|line| {
        told.note(&line);
    });
    told.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_log_that_two_ship_is_in_the_ledger_once() {
    let database = TestDatabase::new().await;
    store::migrate(&database.owner_url()).await.expect("migrates");
    let url = database.service_url(&["banyan_app", "banyan_platform"]).await;
    let store = store(&url).await;
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(dir.path()).expect("opens");
    let mut bytes = Vec::new();
    for _ in 0..300 {
        let hold = mine();
        segment::frame(&encode(&LedgerEntry::Reserved(hold.clone())), &mut bytes);
        let record = hold.record();
        segment::frame(&encode(&LedgerEntry::Ended(hold, End::Posted(Box::new(record)))), &mut bytes);
    }
    let mut file = segment::create(dir.path(), 1).expect("creates");
    std::io::Write::write_all(&mut file, &bytes).expect("writes");
    let found = folder.recover().expect("whole");
    let folder = Arc::new(folder);
    let ship = || {
        let state = State::new(1 << 24, found.bytes, found.end, found.shipped);
        let mut shipper = Shipper::new(Arc::clone(&folder), state, store.clone(), &config(dir.path(), SMALL_SEGMENT));
        async move { tokio::time::timeout(Duration::from_secs(60), shipper.ship_all()).await.expect("in time") }
    };
    tokio::join!(ship(), ship(), ship());
    let balances = store.platform().ledger_balances().await.expect("balances");
    assert_eq!((balances.reserved, balances.posted, balances.records, balances.open), (300, 300, 300, 0));
    assert_eq!((balances.debits, balances.held), (balances.credits, 0));
}
