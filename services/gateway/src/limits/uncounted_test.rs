//! Requests that Redis was not told of, because their gateway lived on what it had borrowed, or on its own memory, while
//! Redis was out of its reach: their money is counted once Redis is back. And the other way round: what Redis has charged
//! and nobody heard of goes back.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use domain::{ApiKeyId, Outage, Price, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use tests::{
    link::{Link, Traffic},
    redis::RedisServer,
};
use uuid::Uuid;

use super::{
    Ask, BudgetSource, ByProcess, Denied, Lends as _, LimitsUnavailable, OutageLimits, Period, RateLimits, Rates,
    RedisLimits, RedisOptions, SliceOptions, Spent, Used,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_millis(400);
/// Longer than anybody waits: what comes back sooner was given back.
const LEASE: Duration = Duration::from_secs(60);
/// Of Redis, on a way there and back that takes longer.
const TIMEOUT: Duration = Duration::from_millis(200);
const BUDGET: u64 = 100_000;
/// For an ask, and of it: 2 and 3 tokens.
const USED: Used = Used { input: 2, cached: 0, output: 3 };
const COST: u64 = 8;

/// A ledger: of each request its process and what it costs.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<HashMap<RequestId, (Uuid, u64)>>>);

impl Written {
    fn write(&self, ask: &Ask, process: Uuid, cost: u64) {
        self.0.lock().expect("nobody panicked").insert(ask.id, (process, cost));
    }
}

impl BudgetSource for Written {
    fn spent<'a>(
        &'a self,
        _: TenantId,
        _: Option<ApiKeyId>,
        _: Period,
        except: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        let written = self.0.lock().expect("nobody panicked").clone();
        let counts = written.into_iter().filter(|(id, _)| !except.contains(id));
        let mut parts = HashMap::<_, u64>::new();
        counts.for_each(|(_, (process, cost))| *parts.entry(process).or_default() += cost);
        let parts = parts.into_iter().map(|(process, spent)| (process, Spent { day: spent, month: spent })).collect();
        futures::future::ready(Ok(parts)).boxed()
    }
}

/// A gateway's limits with the ledger that it writes.
struct Gateway {
    limits: OutageLimits<RedisLimits>,
    ledger: Written,
}

impl Gateway {
    fn at(redis: SocketAddr, ledger: &Written) -> Self {
        let slices = SliceOptions { hot_per_second: 0, valid: Duration::from_millis(500), lease: LEASE, parts: 4 };
        let options = RedisOptions {
            prefix: "uncounted".to_owned(),
            timeout: TIMEOUT,
            ledger_wait: PATIENCE,
            settling: SETTLING,
            slices,
            clock: None,
        };
        let source = Arc::new(ledger.clone());
        let redis = RedisLimits::new(&format!("redis://{redis}"), options, Arc::clone(&source) as _);
        let redis = redis.expect("a good URL");
        let limits = OutageLimits::new(redis, 2, Duration::from_millis(50), source, PATIENCE);
        Self { limits, ledger: ledger.clone() }
    }

    /// A whole request, on the ledger from its beginning on.
    async fn serve(&self, outage: Outage) -> Result<Ask, Denied> {
        let one = ask(outage);
        self.limits.reserve(&one).await?;
        self.ledger.write(&one, self.limits.process(), one.cost_at_most(one.output_tokens.into()));
        self.ledger.write(&one, self.limits.process(), one.cost(USED));
        // Known or not: what its end finds is what is looked at here.
        let _ = self.limits.settle(&one, USED).await;
        Ok(one)
    }

    async fn serves(&self, outage: Outage) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.serve(outage).await {
            assert!(Instant::now() < end, "never served: {error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Serves until the plan has something borrowed to live on.
    async fn borrows(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "nothing is lent");
            let one = ask(Outage::Leased);
            if self.limits.shared.draw(&one, super::Due::InTime).is_some() {
                self.limits.shared.settle_drawn(&one, Used::default());
                return;
            }
            self.serves(Outage::Leased).await;
        }
    }

    /// Waits until every counter is what the ledger has.
    async fn agrees(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let compared = self.limits.compare_budgets().await.ok().flatten();
            if compared.is_some_and(|compared| compared.differing == 0 && compared.spent > 0) {
                return;
            }
            assert!(Instant::now() < end, "{compared:?}");
            // Whoever asks next has the ledger read.
            let _ = self.serve(Outage::Closed).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Two gateways at one Redis, to which one of them has a long way.
struct Pair {
    server: RedisServer,
    link: Link,
    near: Gateway,
    far: Gateway,
}

impl Pair {
    async fn start() -> Self {
        let server = RedisServer::start();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        let link = Link::to(address).await;
        let ledger = Written::default();
        let (near, far) = (Gateway::at(address, &ledger), Gateway::at(link.address(), &ledger));
        Self { server, link, near, far }
    }
}

fn ask(outage: Outage) -> Ask {
    Ask {
        id: RequestId::new(Uuid::now_v7()),
        tenant: TenantId::new(Uuid::from_u128(1)),
        key: ApiKeyId::new(Uuid::from_u128(2)),
        input_tokens: 2,
        output_tokens: 3,
        of_tenant: Rates { budget_day: Some(BUDGET), ..Rates::default() },
        of_key: Rates::default(),
        price: Price { input: 1_000_000, cached_input: 1_000_000, output: 2_000_000 },
        lease: LEASE,
        outage,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_gave_away_while_another_one_read_the_ledger_is_counted() {
    let Pair { server, link, near, far } = Pair::start().await;
    near.serves(Outage::Closed).await;
    far.borrows().await;

    link.set(Traffic::Cut);
    server.flush();
    // By then the other one has read in the ledger what was spent.
    near.serves(Outage::Closed).await;
    let mut meanwhile = 0;
    while far.serve(Outage::Leased).await.is_ok() {
        meanwhile += COST;
    }
    assert!(meanwhile > 0 && meanwhile < BUDGET, "{meanwhile} micro-units were borrowed");
    let compared = near.limits.compare_budgets().await.expect("Redis answers").expect("it counts budgets");
    assert_eq!(compared.spent - compared.counted, 2 * meanwhile, "of the day and of the month: {compared:?}");

    link.set(Traffic::Flows);
    near.agrees().await;
}

/// Whoever has waited to read the ledger for one generation must not begin it again when there is a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_charged_after_one_loss_is_not_forgotten_by_whoever_heard_of_the_one_before() {
    let server = RedisServer::start();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let ledger = Written::default();
    let (near, far) = (Gateway::at(address, &ledger), Gateway::at(address, &ledger));
    near.serves(Outage::Closed).await;
    for _ in 0..3 {
        let running = ask(Outage::Closed);
        far.limits.reserve(&running).await.expect("there is room");
        ledger.write(&running, far.limits.process(), running.cost_at_most(3));
        server.flush();
        let waits = near.serves(Outage::Closed);
        // In the middle of the time for which nobody asks the ledger.
        let again = async {
            tokio::time::sleep(SETTLING * 3 / 4).await;
            server.flush();
        };
        futures::join!(waits, again);
        ledger.write(&running, far.limits.process(), running.cost(USED));
        far.limits.settle(&running, USED).await.expect("Redis answers");
        near.serves(Outage::Closed).await;
        near.agrees().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_open_plan_has_spent_while_redis_hung_is_counted() {
    let server = RedisServer::start();
    let ledger = Written::default();
    let gateway = Gateway::at((Ipv4Addr::LOCALHOST, server.port()).into(), &ledger);
    gateway.serves(Outage::Open).await;
    server.pause();
    for _ in 0..3 {
        gateway.serves(Outage::Open).await;
    }
    server.resume();
    gateway.agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_charged_for_a_request_whose_answer_was_lost_goes_back() {
    let Pair { server: _server, link, near, far } = Pair::start().await;
    // Both know Redis; then what is asked arrives, and the answer comes too late.
    near.serves(Outage::Closed).await;
    far.serves(Outage::Closed).await;
    let of_tenant = Rates { concurrent_requests: Some(1), ..Rates::default() };
    let only = Ask { of_tenant, ..ask(Outage::Closed) };
    let has_room = async |wanted: bool| {
        let end = Instant::now() + PATIENCE;
        while near.limits.explain(&only).await.expect("Redis answers").admitted() != wanted {
            assert!(Instant::now() < end, "room for another one: {}", !wanted);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    link.set(Traffic::Late(TIMEOUT * 3 / 4));
    let unheard = far.limits.reserve(&only).await;
    assert!(matches!(unheard, Err(Denied::Unavailable(LimitsUnavailable::Silent(_)))), "{unheard:?}");
    has_room(false).await;
    // As whoever has asked gives up.
    let _ = far.limits.settle(&only, Used::default()).await;
    link.set(Traffic::Flows);
    has_room(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_nobody_asked_redis_any_more_is_told_when_it_is_back() {
    let server = RedisServer::start();
    let ledger = Written::default();
    let gateway = Gateway::at((Ipv4Addr::LOCALHOST, server.port()).into(), &ledger);
    let of_tenant = Rates { concurrent_requests: Some(1), ..Rates::default() };
    let only = Ask { of_tenant, ..ask(Outage::Closed) };
    gateway.limits.reserve(&only).await.expect("there is room");
    server.pause();
    let end = Instant::now() + PATIENCE;
    // Until it is known not to answer: then it is not asked.
    let silent = || Ask { id: RequestId::new(Uuid::now_v7()), ..only.clone() };
    while !matches!(gateway.limits.reserve(&silent()).await,
        Err(Denied::Unavailable(LimitsUnavailable::Silent(why))) if why.contains("for a while"))
    {
        assert!(Instant::now() < end, "it is asked again and again");
    }
    assert!(gateway.limits.settle(&only, USED).await.is_err());
    server.resume();
    while !gateway.limits.explain(&only).await.is_ok_and(|told| told.admitted()) {
        assert!(Instant::now() < end, "its place never comes back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
