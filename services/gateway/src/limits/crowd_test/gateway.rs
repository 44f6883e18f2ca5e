//! One gateway's limits in a process of its own, with requests of its own making.

use std::{
    io::Read as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use domain::{ApiKeyId, Outage, Price, RequestId, TenantId};
use uuid::Uuid;

use super::account::{Event, Files, Journal};
use crate::limits::{Ask, Extended, OutageLimits, RateLimits, Rates, RedisLimits, RedisOptions, SliceOptions, Used};

pub const TENANTS: u64 = 2;
pub const LEASE: Duration = Duration::from_secs(4);
/// Between the earliest clock and the latest one.
pub const CLOCK_STEPS: Duration = Duration::from_secs(3);
/// How long a slice is given from.
pub const SLICE: Duration = Duration::from_millis(300);
/// Begins the line that says which process it is.
pub const PROCESS: &str = "process ";
/// Requests at the same time.
const TASKS: u64 = 6;

#[derive(Clone)]
pub struct Orders {
    pub url: String,
    pub prefix: String,
    pub folder: PathBuf,
    pub number: u64,
    pub seed: u64,
    pub clock_steps: bool,
    pub run_ms: u64,
}

impl Orders {
    pub fn line(&self) -> String {
        let Self { url, prefix, folder, number, seed, clock_steps, run_ms } = self;
        format!("{url} {prefix} {} {number} {seed} {clock_steps} {run_ms}", folder.display())
    }

    fn read(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [url, prefix, folder, number, seed, clock_steps, run_ms] = words[..] else { panic!("orders: {line}") };
        let number_of = |word: &str| word.parse().expect("a number");
        Self {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            folder: folder.into(),
            number: number_of(number),
            seed: number_of(seed),
            clock_steps: clock_steps == "true",
            run_ms: number_of(run_ms),
        }
    }
}

pub fn tenant(number: u64) -> TenantId {
    TenantId::new(Uuid::from_u128(u128::from(number) + 1))
}

pub fn key_of(tenant: u64, key: u64) -> ApiKeyId {
    ApiKeyId::new(Uuid::from_u128(u128::from(100 * tenant + key) + 1))
}

/// Of a tenant (scope 0), and of its two keys (1 and 2), of which the second has none. One tenant runs into its windows,
/// the other one into its budget.
pub fn limits_of(tenant: u64, scope: usize) -> Rates {
    match (tenant, scope) {
        (0, 0) => Rates {
            requests_per_minute: Some(450),
            input_tokens_per_minute: Some(1_200),
            output_tokens_per_minute: Some(3_600),
            concurrent_requests: Some(9),
            ..Rates::default()
        },
        (0, 1) => Rates { output_tokens_per_minute: Some(1_500), concurrent_requests: Some(5), ..Rates::default() },
        (1, 0) => Rates { concurrent_requests: Some(12), budget_day: Some(9_000), ..Rates::default() },
        (1, 1) => Rates { budget_day: Some(4_000), budget_month: Some(5_000), ..Rates::default() },
        _ => Rates::default(),
    }
}

/// Fine enough for what one process ended and another one began to be told apart.
pub fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_micros()).expect("not too far")
}

pub fn unix_ms() -> u64 {
    unix_us() / 1_000
}

/// Numbers that look random (a linear congruence), the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
#[ignore = "one of the processes that other tests start"]
fn one_gateway() {
    let mut orders = String::new();
    std::io::stdin().read_to_string(&mut orders).expect("orders");
    let orders = Orders::read(&orders);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(run(orders));
}

pub fn options(prefix: &str, clock: Option<Arc<AtomicU64>>) -> RedisOptions {
    RedisOptions {
        prefix: prefix.to_owned(),
        timeout: Duration::from_secs(2),
        ledger_wait: Duration::from_secs(5),
        settling: Duration::from_millis(400),
        slices: SliceOptions { hot_per_second: 3, valid: SLICE, lease: LEASE, parts: 3 },
        clock,
    }
}

async fn run(orders: Orders) {
    let clock = orders.clock_steps.then(|| Arc::new(AtomicU64::new(unix_ms())));
    let options = options(&orders.prefix, clock.clone());
    let source = Arc::new(Files(orders.folder.clone()));
    let redis = RedisLimits::new(&orders.url, options, Arc::clone(&source) as _).expect("a good URL");
    let pause = Duration::from_millis(100);
    let limits = Arc::new(OutageLimits::new(redis, 3, pause, source, Duration::from_secs(5)));
    let name = orders.number.to_string();
    let journal = Arc::new(Journal::open(&orders.folder, &name, limits.process()));
    // Before anything is charged.
    println!("{PROCESS}{}", limits.process());
    let end = Instant::now() + Duration::from_millis(orders.run_ms);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let random = Random(orders.seed * 1_000 + task);
        tasks.spawn(requests(Arc::clone(&limits), Arc::clone(&journal), random, end));
    }
    if let Some(clock) = clock {
        let mut random = Random(orders.seed);
        tasks.spawn(async move {
            while Instant::now() < end {
                // Up to half of them ahead of everybody else, or behind.
                let steps = u64::try_from(CLOCK_STEPS.as_millis()).expect("short");
                clock.store(unix_ms() + random.below(steps) - steps / 2, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    limits.close().await;
}

async fn requests(limits: Arc<impl RateLimits>, journal: Arc<Journal>, mut random: Random, end: Instant) {
    while Instant::now() < end {
        let (number, key) = (random.below(TENANTS), random.below(2));
        let ask = Ask {
            id: RequestId::new(Uuid::now_v7()),
            tenant: tenant(number),
            key: key_of(number, key),
            input_tokens: u32::try_from(random.below(12)).expect("small"),
            output_tokens: u32::try_from(1 + random.below(15)).expect("small"),
            of_tenant: limits_of(number, 0),
            of_key: limits_of(number, 1 + usize::try_from(key).expect("small")),
            price: Price { input: 1_500_000, cached_input: 100_000, output: 2_300_001 },
            lease: LEASE,
            outage: Outage::Closed,
        };
        let Ok(granted) = limits.reserve(&ask).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let held = ask.cost_at_most(40).max(1);
        let write = |input: u64, output: u64, cost: u64, held: u64| {
            journal.write(&Event {
                at_us: 0,
                gateway: Uuid::nil(),
                afterwards: false,
                tenant: number,
                key,
                id: ask.id,
                input,
                output,
                cost,
                held,
            });
        };
        let input = u64::from(ask.input_tokens);
        let mut total = granted.output;
        write(input, total.into(), ask.cost_at_most(total.into()), held);
        for _ in 0..random.below(3) {
            tokio::time::sleep(Duration::from_millis(random.below(40))).await;
            if let Ok(Extended::Granted { total: more, .. }) = limits.extend(&ask, (total + 8).min(40)).await {
                total = more;
                write(input, total.into(), ask.cost_at_most(total.into()), held);
            }
        }
        let used = Used {
            input: random.below(input + 1),
            cached: random.below(input + 1),
            output: random.below(u64::from(total) + 1),
        };
        write(used.input, used.output, ask.cost(used), 0);
        // A settle that fails is said again by whoever keeps the limits.
        let _ = limits.settle(&ask, used).await;
    }
}
