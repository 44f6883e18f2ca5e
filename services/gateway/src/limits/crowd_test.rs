//! Several gateways at once, each a process of its own, on one Redis: random requests, `kill -9`, clocks that step, a Redis
//! that loses everything. What each process was granted and used is written to a file before anything else happens, so
//! that it can be added up however the process ended. Whoever is killed is closed, and its money comes back.

mod account;
mod gateway;

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Commands as _;
use tests::redis::{RedisServer, TestRedis};

use uuid::Uuid;

use super::{Period, RateLimits as _, RedisLimits};
use account::{Account, Event, Files};
use gateway::{Orders, TENANTS, key_of, limits_of, tenant};

/// Gateways at the same time.
const GATEWAYS: usize = 3;
const RUN: Duration = Duration::from_secs(6);

struct Crowd {
    folder: tempfile::TempDir,
    orders: Orders,
    running: Vec<(Child, Uuid)>,
    started: u64,
    killed: Vec<Uuid>,
    closer: RedisLimits,
    runtime: tokio::runtime::Runtime,
}

impl Crowd {
    fn start(url: &str, prefix: &str, clock_steps: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let orders = Orders {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            folder: folder.path().to_owned(),
            number: 0,
            seed: 0,
            clock_steps,
            run_ms: u64::try_from(RUN.as_millis()).expect("short"),
        };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let closer = {
            let _entered = runtime.enter();
            let source = Arc::new(Files(folder.path().to_owned()));
            RedisLimits::new(url, gateway::options(prefix, None), source).expect("a good URL")
        };
        let (running, killed) = (Vec::new(), Vec::new());
        let mut crowd = Self { folder, orders, running, started: 0, killed, closer, runtime };
        (0..GATEWAYS).for_each(|_| crowd.add());
        crowd
    }

    fn add(&mut self) {
        self.started += 1;
        let orders = Orders { number: self.started, seed: 7 * self.started, ..self.orders.clone() };
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "limits::crowd_test::gateway::one_gateway", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a gateway");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(orders.line().as_bytes()).expect("give orders");
        drop(stdin);
        let mut said = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let process = said.find_map(|line| Some(line.split_once(gateway::PROCESS)?.1.to_owned())).expect("says it");
        // Read to its end, so that nothing there ever waits to be heard.
        std::thread::spawn(move || said.for_each(drop));
        self.running.push((child, process.trim().parse().expect("an id")));
    }

    /// `kill -9` for the oldest one, and another in its place; then the one before is closed, as the next process with
    /// its log does it, while the others go on.
    fn kill_one(&mut self) {
        let (mut oldest, process) = self.running.remove(0);
        oldest.kill().expect("kill");
        oldest.wait().expect("ends");
        self.add();
        account::end_requests_of(self.folder.path(), process);
        self.killed.push(process);
        self.close(process);
    }

    fn close(&self, process: Uuid) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // Until a look finds nothing.
        while self.runtime.block_on(self.closer.close_process(process)) != Ok(true) {
            assert!(Instant::now() < deadline, "{process} is never closed");
        }
    }

    /// Waits for all and adds up what they have written.
    fn end(&mut self) -> Vec<Event> {
        for (child, _) in &mut self.running {
            assert!(child.wait().expect("ends").success(), "a gateway failed");
        }
        account::read(self.folder.path())
    }

    /// As it is when every gateway has been started again.
    fn close_all(&self) {
        self.running.iter().for_each(|(_, process)| self.close(*process));
    }

    /// What Redis has charged to budgets is what the journals have, to the micro-unit.
    fn assert_budgets_are_the_ledgers(&self, events: &[Event]) {
        let client = redis::Client::open(self.orders.url.as_str());
        let mut connection = client.and_then(|client| client.get_connection()).expect("connects");
        let Period { day, month } = Period::of(gateway::unix_ms());
        for (number, scope) in (0..TENANTS).flat_map(|number| [(number, 0), (number, 1), (number, 2)]) {
            if !limits_of(number, scope).budgeted() {
                continue;
            }
            let key = if scope == 0 { String::new() } else { format!("{}:", key_of(number, scope as u64 - 1)) };
            let name = format!("{}:{{{}}}:{key}money", self.orders.prefix, tenant(number));
            let charged: Vec<Option<u64>> =
                connection.hmget(&name, &[format!("d{day}"), format!("m{month}")]).expect("answers");
            let of_scope =
                events.iter().filter(|one| one.tenant == number && (scope == 0 || one.key + 1 == scope as u64));
            let ends: HashMap<_, _> = of_scope.map(|event| (event.id, event)).collect();
            assert!(ends.values().all(|event| event.held == 0), "everything has ended");
            let spent: u64 = ends.values().map(|event| event.cost).sum();
            println!("tenant {number} scope {scope}: {spent} by the journals, {charged:?} by Redis");
            assert_eq!(charged, [Some(spent); 2], "tenant {number} scope {scope}");
        }
    }
}

/// Waits until `over`, doing something every so often.
fn during(over: Duration, every: Duration, mut act: impl FnMut()) {
    let begin = Instant::now();
    while begin.elapsed() + every < over {
        std::thread::park_timeout(every);
        act();
    }
}

fn no_limit_is_ever_exceeded_and_nothing_leaks(clock_steps: bool) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shared = runtime.block_on(TestRedis::new());
    let mut crowd = Crowd::start(&shared.url, &shared.prefix, clock_steps);
    during(RUN, Duration::from_millis(700), || crowd.kill_one());
    let killed = crowd.killed.len();
    let events = crowd.end();
    // A lease of one that lives may pass when clocks step: then its money comes back with its next start.
    if clock_steps {
        crowd.close_all();
    }
    crowd.assert_budgets_are_the_ledgers(&events);
    // Of a lease's time a slice may be gone before it is given on, and a step of the clock takes its own.
    let stepped = if clock_steps { gateway::CLOCK_STEPS } else { Duration::ZERO };
    let leased = gateway::LEASE - gateway::SLICE - stepped;
    for number in 0..TENANTS {
        let account = Account::replay(&events, number, leased);
        println!("tenant {number}: {account}");
        account.assert_within_limits();
        assert!(account.requests > 50, "tenant {number} was let through {} times only", account.requests);
    }
    assert!(killed >= 5, "{killed} were killed");

    let mut connection = redis::Client::open(shared.url.as_str()).and_then(|client| client.get_connection());
    let connection = connection.as_mut().expect("connects");
    let deadline = Instant::now() + gateway::LEASE + Duration::from_secs(5);
    for number in 0..TENANTS {
        let key = format!("{}:{{{}}}:leases", shared.prefix, tenant(number));
        loop {
            let now: u64 = gateway::unix_ms();
            let live: u64 = connection.zcount(&key, now, "+inf").expect("counts");
            if live == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{live} places of tenant {number} never came back");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn of_many_gateways_that_are_killed_no_limit_is_ever_exceeded_and_nothing_leaks() {
    no_limit_is_ever_exceeded_and_nothing_leaks(false);
}

#[test]
fn clocks_that_step_back_and_forth_let_nothing_more_through() {
    no_limit_is_ever_exceeded_and_nothing_leaks(true);
}

#[test]
fn a_redis_that_is_flushed_again_and_again_lets_no_budget_be_exceeded() {
    let server = RedisServer::start();
    let mut crowd = Crowd::start(&server.url(), "flush", false);
    let mut flushes = 0;
    during(RUN, Duration::from_millis(1_500), || {
        server.flush();
        crowd.kill_one();
        flushes += 1;
    });
    assert!(flushes >= 2);
    let events = crowd.end();
    crowd.close_all();
    crowd.assert_budgets_are_the_ledgers(&events);
    for number in 0..TENANTS {
        let account = Account::replay(&events, number, gateway::LEASE);
        println!("tenant {number}: {account}");
        account.assert_within_budgets();
        assert!(account.requests > 20, "tenant {number} was let through {} times only", account.requests);
    }
}
