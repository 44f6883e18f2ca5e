//! Gateway and workers as processes of their own, on real PostgreSQL and Redis, and what a `kill -9` leaves.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tests::{postgres::TestDatabase, redis::TestRedis};
use tokio::runtime::Runtime;

use crate::command::{Done, command, repository, text};

const DEADLINE: Duration = Duration::from_secs(120);
const OPERATOR_TOKEN: &str = "operator";
const QUESTION: &str = "What does E-17 mean?";

/// One gateway and two workers. Killed when dropped.
pub struct Deployment {
    gateway: Process,
    pub workers: [Process; 2],
    database: TestDatabase,
    runtime: Runtime,
    _registry: TempDir,
}

pub struct Process {
    arguments: Vec<String>,
    child: Child,
}

impl Process {
    fn start(arguments: Vec<String>) -> Self {
        let child = spawn(&arguments);
        Self { arguments, child }
    }

    /// As an out-of-memory killer does it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn restart(&mut self) {
        self.child = spawn(&self.arguments);
    }

    /// `TERM`, `STOP` …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.expect("it is there").success(), "{name}");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        let at = self.arguments.iter().position(|argument| argument == "--listen").expect("a flag");
        format!("http://{}", self.arguments[at + 1])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deployment {
    fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// With further settings of the gateway and of the workers.
    pub fn start_with(gateway: &[&str], worker: &[&str]) -> Self {
        let set = |settings: &[&str]| -> Vec<_> {
            settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]).collect()
        };
        let runtime = Runtime::new().expect("a runtime");
        let (database, redis) = runtime.block_on(async { (TestDatabase::new().await, TestRedis::new().await) });
        let registry = tempfile::tempdir().expect("a folder");
        let common = ["--registry", text(registry.path()), "--set", "cluster_token=shared"].map(str::to_owned);
        let seed = repository("adapters/seed/base");
        let addresses = [free_address(), free_address()];
        let workers = [0, 1].map(|number| {
            let own = [
                "worker",
                "--listen",
                &addresses[number],
                "--base",
                text(&seed),
                "--set",
                "base_names=['banyan-seed']",
            ];
            let named = ["--name".to_owned(), format!("worker-{number}")];
            let own = own.map(str::to_owned).into_iter().chain(named).chain(common.clone());
            Process::start(own.chain(set(worker)).collect())
        });
        let (listen, admin) = (free_address(), free_address());
        let own = ["gateway", "--migrate", "--listen", &listen, "--admin-listen", &admin].map(str::to_owned);
        let settings = [
            ("--postgres", database.owner_url()),
            ("--redis", redis.url.clone()),
            ("--set", format!("limits.redis_prefix={}", redis.prefix)),
            ("--set", format!("operator_token={OPERATOR_TOKEN}")),
            ("--set", "key_pepper=pepper".to_owned()),
            ("--set", format!("ledger.dir={}", registry.path().join("ledger").display())),
            ("--worker", format!("http://{}", addresses[0])),
            ("--worker", format!("http://{}", addresses[1])),
        ];
        let settings = settings.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let gateway = Process::start(own.into_iter().chain(settings).chain(common).chain(set(gateway)).collect());
        let deployment = Self { gateway, workers, database, runtime, _registry: registry };
        deployment.eventually("the gateway answers", &["tenant", "list"]);
        deployment
    }

    /// The public door.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// For clients in this process.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A client verb against this gateway.
    pub fn run(&self, arguments: &[&str]) -> Done {
        let address = |flag: &str| {
            let at = self.gateway.arguments.iter().position(|argument| argument == flag).expect("a flag");
            format!("http://{}", self.gateway.arguments[at + 1])
        };
        let nothing_here = tempfile::tempdir().expect("a folder");
        let output = command()
            .args(arguments)
            .args(["--endpoint", &address("--listen"), "--admin-endpoint", &address("--admin-listen")])
            .args(["--operator-token", OPERATOR_TOKEN, "--data", text(nothing_here.path())])
            .output()
            .expect("the binary runs");
        crate::command::finish(output)
    }

    /// Runs the verb until it succeeds: somebody is just starting.
    pub fn eventually(&self, what: &str, arguments: &[&str]) -> Done {
        let end = Instant::now() + DEADLINE;
        loop {
            let done = self.run(arguments);
            if done.code == 0 {
                return done;
            }
            assert!(Instant::now() < end, "{what}: {done:?}");
        }
    }

    /// From the start of all processes to an answer.
    fn start_seconds(&mut self, ask: &[&str]) -> f64 {
        let mut all: Vec<_> = [&mut self.gateway].into_iter().chain(&mut self.workers).collect();
        all.iter_mut().for_each(|process| process.kill());
        let begin = Instant::now();
        all.iter_mut().for_each(|process| process.restart());
        self.eventually("it starts", ask);
        begin.elapsed().as_secs_f64()
    }

    /// Copies the one version that there is to `count` adapters of a thousand tenants.
    fn register(&self, count: i64) {
        const TENANTS: &str = "insert into tenants (id, slug, share_group)
            select id, 'many-' || n, id from (select n, gen_random_uuid() as id from generate_series(1, 1000) n) made";
        const BLOBS: &str = "insert into adapter_blobs (tenant_id, digest, state, size_bytes)
            select t.id, b.digest, b.state, b.size_bytes from adapter_blobs b, tenants t where t.slug like 'many-%'";
        const ADAPTERS: &str = "insert into adapters (tenant_id, id, slug)
            select t.id, gen_random_uuid(), 'copy-' || n from generate_series(1, $1) n
              join tenants t on t.slug = 'many-' || (n % 1000 + 1)";
        const VERSIONS: &str =
            "insert into adapter_versions (tenant_id, adapter_id, digest, base_digest, size_bytes, receipt)
            select a.tenant_id, a.id, v.digest, v.base_digest, v.size_bytes, v.receipt
              from adapter_versions v, adapters a where a.slug like 'copy-%'";
        self.runtime.block_on(async {
            let mut connection =
                <sqlx::PgConnection as sqlx::Connection>::connect(&self.database.owner_url()).await.expect("connect");
            // The change feed and the audit trail count every row in one transaction's head row: that is not what is measured.
            for table in ["tenants", "adapter_blobs", "adapters", "adapter_versions"] {
                let quietly = sqlx::AssertSqlSafe(format!("alter table {table} disable trigger user"));
                sqlx::query(quietly).execute(&mut connection).await.expect("the owner may");
            }
            for statement in [TENANTS, BLOBS] {
                sqlx::query(statement).execute(&mut connection).await.expect("insert");
            }
            sqlx::query(ADAPTERS).bind(count).execute(&mut connection).await.expect("adapters");
            let versions = sqlx::query(VERSIONS).execute(&mut connection).await.expect("versions");
            assert_eq!(versions.rows_affected(), count as u64);
            for table in ["tenants", "adapter_blobs", "adapters", "adapter_versions"] {
                let again = sqlx::AssertSqlSafe(format!("alter table {table} enable trigger user"));
                sqlx::query(again).execute(&mut connection).await.expect("the owner may");
            }
        });
    }

    /// Answers that are on record as finished.
    pub fn recorded(&self) -> i64 {
        self.runtime.block_on(async {
            let mut connection =
                <sqlx::PgConnection as sqlx::Connection>::connect(&self.database.owner_url()).await.expect("connect");
            let count = sqlx::query_scalar("select count(*) from usage_records where outcome = 'finished'");
            count.fetch_one(&mut connection).await.expect("count")
        })
    }
}

#[test]
fn killing_a_worker_or_the_gateway_loses_nothing_that_was_committed() {
    let mut deployment = Deployment::start();
    deployment.run(&["tenant", "create", "acme"]).ok();
    let key = deployment.run(&["key", "create", "--tenant", "acme"]).ok();
    let ask = ["generate", "-m", "acme/claims", "--key", key.trim(), "--temperature", "0", "--json", QUESTION];
    let dir = repository("adapters/industries/finance");
    let push = ["adapter", "push", text(&dir), "--tenant", "acme", "--name", "claims", "--alias", "live"];
    // An upload is probed on a worker, and those are still loading.
    let digest = deployment.eventually("a worker takes the adapter", &push).ok().trim().to_owned();
    let first = deployment.run(&ask).json();
    let mut answers = 1;

    // Whoever answered dies; the other one answers the same.
    let served = first["receipt"]["worker"].as_str().expect("a worker").to_owned();
    let victim = usize::from(served.ends_with('1'));
    deployment.workers[victim].kill();
    let second = deployment.eventually("the other worker answers", &ask).json();
    answers += 1;
    assert_eq!(second["text"], first["text"]);
    assert_ne!(second["receipt"]["worker"], first["receipt"]["worker"]);
    assert_eq!(second["receipt"]["adapter_digest"], digest.as_str());

    // What it had not brought to the database yet lies in its log.
    deployment.gateway.kill();
    deployment.workers[victim].restart();
    deployment.gateway.restart();
    let third = deployment.eventually("the next start answers", &ask).json();
    answers += 1;
    assert_eq!(third["text"], first["text"]);
    let end = Instant::now() + DEADLINE;
    while deployment.recorded() < answers {
        assert!(Instant::now() < end, "every answer that was given is on record");
    }
    assert_eq!(deployment.recorded(), answers, "once");
    let shown = deployment.run(&["adapter", "show", "acme/claims", "--json"]).json();
    assert_eq!(shown["version"]["digest"], digest.as_str());
}

#[test]
fn a_start_takes_no_longer_with_a_hundred_thousand_adapters() {
    const REGISTERED: i64 = 100_000;
    let mut deployment = Deployment::start();
    deployment.run(&["tenant", "create", "acme"]).ok();
    let key = deployment.run(&["key", "create", "--tenant", "acme"]).ok();
    let dir = repository("adapters/industries/finance");
    let push = ["adapter", "push", text(&dir), "--tenant", "acme", "--name", "claims", "--alias", "live"];
    deployment.eventually("a worker takes the adapter", &push).ok();
    let ask = ["generate", "-m", "acme/claims", "--key", key.trim(), "--temperature", "0", "--json", QUESTION];
    let answer = deployment.eventually("it answers", &ask).json();
    let few = deployment.start_seconds(&ask);

    deployment.register(REGISTERED);
    let many = deployment.start_seconds(&ask);
    println!("from start to first answer: {few:.2} s with 1 adapter, {many:.2} s with {}", REGISTERED + 1);
    assert!(many < 3.0 * few, "{few} s with 1 adapter, {many} s with {}", REGISTERED + 1);
    assert_eq!(deployment.run(&ask).json()["text"], answer["text"]);
    let listed = deployment.run(&["adapter", "list", "--tenant", "many-7", "--json"]).json();
    assert!(listed.to_string().contains("copy-7"), "{listed}");
}

fn spawn(arguments: &[String]) -> Child {
    let child = command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.expect("the binary runs")
}

/// Free now; a process that is killed must find its own again.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}
