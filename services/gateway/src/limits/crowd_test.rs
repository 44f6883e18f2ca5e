//! Several gateways at once, each a process of its own, on one Redis: random requests, `kill -9`, clocks that step, a Redis
//! that loses everything. What each process was granted and used is written to a file before anything else happens, so
//! that it can be added up however the process ended.

mod account;
mod gateway;

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::Commands as _;
use tests::redis::{RedisServer, TestRedis};

use account::{Account, Event};
use gateway::{Orders, TENANTS, tenant};

/// Gateways at the same time.
const GATEWAYS: usize = 3;
const RUN: Duration = Duration::from_secs(6);

struct Crowd {
    folder: tempfile::TempDir,
    orders: Orders,
    running: Vec<Child>,
    started: u64,
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
        let mut crowd = Self { folder, orders, running: Vec::new(), started: 0 };
        (0..GATEWAYS).for_each(|_| crowd.add());
        crowd
    }

    fn add(&mut self) {
        self.started += 1;
        let orders = Orders { number: self.started, seed: 7 * self.started, ..self.orders.clone() };
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "limits::crowd_test::gateway::one_gateway", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("start a gateway");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(orders.line().as_bytes()).expect("give orders");
        self.running.push(child);
    }

    /// `kill -9` for the oldest one, and another in its place.
    fn kill_one(&mut self) {
        let mut oldest = self.running.remove(0);
        oldest.kill().expect("kill");
        oldest.wait().expect("ends");
        self.add();
    }

    /// Waits for all and adds up what they have written.
    fn end(mut self) -> Vec<Event> {
        for child in &mut self.running {
            assert!(child.wait().expect("ends").success(), "a gateway failed");
        }
        account::read(self.folder.path())
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
    let killed = crowd.started - GATEWAYS as u64;
    let events = crowd.end();
    for number in 0..TENANTS {
        let account = Account::replay(&events, number);
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
    for number in 0..TENANTS {
        let account = Account::replay(&events, number);
        println!("tenant {number}: {account}");
        account.assert_within_budgets();
        assert!(account.requests > 20, "tenant {number} was let through {} times only", account.requests);
    }
}
