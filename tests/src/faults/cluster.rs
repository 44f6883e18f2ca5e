//! A deployment of its own: PostgreSQL, Redis, two workers and two gateways as processes, and a link on every way from a
//! gateway to what it needs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::process::{BanyanProcess, LOG};
use crate::{
    link::Link,
    postgres::{PostgresServer, TestDatabase},
    redis::RedisServer,
    server_process::free_port,
};

pub const OPERATOR_TOKEN: &str = "operator";
/// Begins every key in Redis.
pub const REDIS_PREFIX: &str = "faults";
/// A reservation whose gateway died is gone after this.
pub const LEASE: Duration = Duration::from_secs(3);
/// Between two looks of a gateway at its workers.
pub const WORKER_CHECK: Duration = Duration::from_millis(200);

/// Everything ends when it is dropped.
pub struct Cluster {
    pub gateways: Vec<BanyanProcess>,
    pub workers: Vec<BanyanProcess>,
    /// Of each gateway.
    pub links: Vec<Links>,
    pub redis: RedisServer,
    pub database: TestDatabase,
    // Dropped after the database, which is dropped on it.
    pub postgres: PostgresServer,
    program: PathBuf,
    admin: SocketAddr,
    folder: TempDir,
}

/// The ways of one gateway.
pub struct Links {
    pub postgres: Link,
    pub redis: Link,
    pub workers: Vec<Link>,
}

impl Cluster {
    /// Starts everything, and returns when it listens; the workers may still be loading. `program` is `banyan`.
    pub async fn start(program: &Path) -> Self {
        let (postgres, redis) = tokio::task::block_in_place(|| (PostgresServer::start(), RedisServer::start()));
        let database = TestDatabase::on(&postgres.url()).await;
        let folder = tempfile::tempdir().expect("make a folder");
        let workers: Vec<_> = (0..2).map(|number| worker(program, folder.path(), number)).collect();
        let (mut gateways, mut links) = (Vec::new(), Vec::new());
        let admins = [local(free_port()), local(free_port())];
        for (number, admin) in admins.into_iter().enumerate() {
            let ways = Links {
                postgres: Link::to(local(postgres.port())).await,
                redis: Link::to(local(redis.port())).await,
                workers: futures::future::join_all(workers.iter().map(|worker| Link::to(worker.address()))).await,
            };
            let through = format!(":{}/", ways.postgres.address().port());
            let url = database.owner_url().replace(&format!(":{}/", postgres.port()), &through);
            let gateway = gateway(program, folder.path(), number, admin, &url, &ways);
            // The first one migrates.
            tokio::task::block_in_place(|| gateway.wait_until_it_listens());
            gateways.push(gateway);
            links.push(ways);
        }
        tokio::task::block_in_place(|| workers.iter().for_each(BanyanProcess::wait_until_it_listens));
        let program = program.to_owned();
        let admin = admins[0];
        Self { gateways, workers, links, redis, database, postgres, program, admin, folder }
    }

    /// A client verb of `banyan` against the first gateway's admin door.
    ///
    /// # Errors
    /// What it says on standard error when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.output(arguments).map_err(|error| error.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    /// How a client verb ended, and what it said.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn output(&self, arguments: &[&str]) -> io::Result<Output> {
        let admin = format!("http://{}", self.admin);
        Command::new(&self.program)
            .args(arguments)
            .args(["--admin-endpoint", &admin, "--operator-token", OPERATOR_TOKEN])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
    }
}

/// A path of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn worker(program: &Path, folder: &Path, number: usize) -> BanyanProcess {
    let address = local(free_port());
    let settings = [
        "cluster_token=shared".to_owned(),
        "base_names=['banyan-seed']".to_owned(),
        format!("packed_dir={}", folder.join(format!("packed-{number}")).display()),
        // Two workers, two gateways and the load share the machine.
        "cpu.threads=1".to_owned(),
        "cpu.spin_us=0".to_owned(),
    ];
    let arguments = ["worker".to_owned()]
        .into_iter()
        .chain(["--listen".to_owned(), address.to_string()])
        .chain(["--name".to_owned(), format!("worker-{number}")])
        .chain(["--base".to_owned(), repository("adapters/seed/base").display().to_string()])
        .chain(["--registry".to_owned(), folder.join("registry").display().to_string()])
        .chain(set(settings))
        .collect();
    std::fs::create_dir_all(folder.join("registry")).expect("make the registry");
    BanyanProcess::start(&format!("worker-{number}"), program, arguments, address)
}

fn gateway(
    program: &Path,
    folder: &Path,
    number: usize,
    admin: SocketAddr,
    postgres: &str,
    links: &Links,
) -> BanyanProcess {
    let address = local(free_port());
    let settings = [
        "cluster_token=shared".to_owned(),
        "key_pepper=pepper".to_owned(),
        format!("operator_token={OPERATOR_TOKEN}"),
        format!("limits.redis_prefix={REDIS_PREFIX}"),
        format!("limits.lease_ms={}", LEASE.as_millis()),
        format!("limits.renew_ms={}", LEASE.as_millis() / 3),
        "generate.grant_tokens=32".to_owned(),
        format!("workers.check_interval_ms={}", WORKER_CHECK.as_millis()),
        "store.acquire_timeout_ms=1000".to_owned(),
        format!("ledger.dir={LOG}"),
        // Small enough for a small disk.
        "ledger.requests_max=512".to_owned(),
        "ledger.segment_bytes=1048576".to_owned(),
        // Between two looks for requests that lost their process.
        "ledger.sweep_interval_ms=500".to_owned(),
    ];
    let workers = links.workers.iter().flat_map(|link| ["--worker".to_owned(), format!("http://{}", link.address())]);
    let arguments = ["gateway", "--migrate"]
        .map(str::to_owned)
        .into_iter()
        .chain(["--listen".to_owned(), address.to_string()])
        .chain(["--admin-listen".to_owned(), admin.to_string()])
        .chain(["--postgres".to_owned(), postgres.to_owned()])
        .chain(["--redis".to_owned(), format!("redis://{}/", links.redis.address())])
        .chain(["--registry".to_owned(), folder.join("registry").display().to_string()])
        .chain(workers)
        .chain(set(settings))
        .collect();
    BanyanProcess::start(&format!("gateway-{number}"), program, arguments, address)
}

fn set(settings: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting])
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
