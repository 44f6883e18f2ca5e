//! Both keepers of the counts against a model that is too simple to be wrong: it forgets nothing and adds everything up.
//! And what only Redis can do wrong: hang, die, come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{RequestId, TenantId};
use proptest::prelude::*;
use tests::redis::{RedisServer, TestRedis};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Admission, Ask, Denied, Exceeded, InProcessLimits, Limit, RateLimits, RedisLimits, Refusal};

#[derive(Clone, Debug)]
enum Op {
    Reserve { tenant: u128, id: u128, tokens: u32, per_minute: u32, tokens_max: u32, at_once: u32, lease_ms: u64 },
    Settle { tenant: u128, id: u128, used: u64 },
    Renew { tenant: u128, id: u128, lease_ms: u64 },
    Wait { ms: u64 },
}

#[derive(Debug, PartialEq)]
enum Answer {
    Reserved(Result<(), Denied>),
    Known(bool),
    Waited,
}

fn op() -> impl Strategy<Value = Op> {
    let reserve = (0..2u128, 0..8u128, 0..60u32, 1..6u32, 1..100u32, 1..4u32, 1..90_000u64).prop_map(
        |(tenant, id, tokens, per_minute, tokens_max, at_once, lease_ms)| Op::Reserve {
            tenant,
            id,
            tokens,
            per_minute,
            tokens_max,
            at_once,
            lease_ms,
        },
    );
    prop_oneof![
        4 => reserve,
        2 => (0..2u128, 0..8u128, 0..70u64).prop_map(|(tenant, id, used)| Op::Settle { tenant, id, used }),
        1 => (0..2u128, 0..8u128, 1..90_000u64).prop_map(|(tenant, id, lease_ms)| Op::Renew { tenant, id, lease_ms }),
        3 => prop_oneof![0..3_000u64, 0..70_000u64].prop_map(|ms| Op::Wait { ms }),
    ]
}

/// Every charge ever made.
#[derive(Default)]
struct Model {
    now: u64,
    charges: Vec<Charge>,
}

struct Charge {
    tenant: u128,
    id: u128,
    slot: u64,
    tokens: u64,
    /// `None` once settled.
    lease_until: Option<u64>,
}

impl Model {
    fn apply(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Wait { ms } => {
                self.now += ms;
                Answer::Waited
            }
            Op::Settle { tenant, id, used } => Answer::Known(self.live(tenant, id).is_some_and(|charge| {
                charge.lease_until = None;
                charge.tokens = used;
                true
            })),
            Op::Renew { tenant, id, lease_ms } => {
                let until = self.now + lease_ms;
                Answer::Known(self.live(tenant, id).map(|charge| charge.lease_until = Some(until)).is_some())
            }
            Op::Reserve { tenant, id, tokens, per_minute, tokens_max, at_once, lease_ms } => {
                if self.live(tenant, id).is_some() {
                    return Answer::Reserved(Ok(()));
                }
                let exceeded: Vec<_> = [
                    self.window(tenant, Limit::RequestsPerMinute, 1, per_minute, |_| 1),
                    self.window(tenant, Limit::TokensPerMinute, tokens.into(), tokens_max, |charge| charge.tokens),
                    self.at_once(tenant, at_once),
                ]
                .into_iter()
                .flatten()
                .collect();
                if !exceeded.is_empty() {
                    return Answer::Reserved(Err(Denied::Refused(Refusal { exceeded })));
                }
                let (slot, lease_until) = (self.now / 1000, Some(self.now + lease_ms));
                self.charges.push(Charge { tenant, id, slot, tokens: tokens.into(), lease_until });
                Answer::Reserved(Ok(()))
            }
        }
    }

    fn live(&mut self, tenant: u128, id: u128) -> Option<&mut Charge> {
        let now = self.now;
        let lives = |charge: &&mut Charge| {
            (charge.tenant, charge.id) == (tenant, id) && charge.lease_until.is_some_and(|until| until > now)
        };
        self.charges.iter_mut().find(lives)
    }

    /// The first moment at which the amount fits, found by looking at each of them.
    fn window(&self, tenant: u128, limit: Limit, more: u64, most: u32, of: fn(&Charge) -> u64) -> Option<Exceeded> {
        let sum_at = |slot: u64| -> u64 {
            let counts = |charge: &&Charge| charge.tenant == tenant && charge.slot + 60 >= slot;
            self.charges.iter().filter(counts).map(of).sum()
        };
        let over_at = |slot: u64| (sum_at(slot) + more).saturating_sub(most.into());
        let slot_now = self.now / 1000;
        let over = over_at(slot_now);
        let roomy = (slot_now + 1..=slot_now + 61).find(|slot| over_at(*slot) == 0);
        let retry_after = roomy.map(|slot| Duration::from_millis(slot * 1000 - self.now));
        (over > 0).then_some(Exceeded { limit, over, retry_after })
    }

    fn at_once(&self, tenant: u128, most: u32) -> Option<Exceeded> {
        let ends: Vec<_> = self
            .charges
            .iter()
            .filter(|charge| charge.tenant == tenant)
            .filter_map(|charge| charge.lease_until.filter(|until| *until > self.now))
            .collect();
        let over = (ends.len() as u64 + 1).saturating_sub(most.into());
        let wait = ends.iter().min().map_or(1_000, |until| (until - self.now).min(1_000));
        let retry_after = Some(Duration::from_millis(wait));
        (over > 0).then_some(Exceeded { limit: Limit::ConcurrentRequests, over, retry_after })
    }
}

async fn apply(limits: &dyn RateLimits, clock: &AtomicU64, op: &Op) -> Answer {
    let tenant_id = |tenant| TenantId::new(Uuid::from_u128(tenant));
    let request_id = |id| RequestId::new(Uuid::from_u128(id));
    match *op {
        Op::Wait { ms } => {
            clock.fetch_add(ms, Ordering::SeqCst);
            Answer::Waited
        }
        Op::Settle { tenant, id, used } => {
            Answer::Known(limits.settle(tenant_id(tenant), request_id(id), used).await.expect("limits answer"))
        }
        Op::Renew { tenant, id, lease_ms } => {
            let lease = Duration::from_millis(lease_ms);
            Answer::Known(limits.renew(tenant_id(tenant), request_id(id), lease).await.expect("limits answer"))
        }
        Op::Reserve { tenant, id, tokens, per_minute, tokens_max, at_once, lease_ms } => {
            let ask = Ask {
                id: request_id(id),
                tenant: tenant_id(tenant),
                tokens,
                requests_per_minute: per_minute,
                tokens_per_minute: tokens_max,
                concurrent_requests: at_once,
                lease: Duration::from_millis(lease_ms),
            };
            Answer::Reserved(limits.reserve(&ask).await)
        }
    }
}

fn ask(limit: u32) -> Ask {
    Ask {
        id: RequestId::new(Uuid::now_v7()),
        tenant: TenantId::new(Uuid::from_u128(1)),
        tokens: 10,
        requests_per_minute: 100,
        tokens_per_minute: 1_000,
        concurrent_requests: limit,
        lease: Duration::from_secs(30),
    }
}

#[test]
fn redis_and_memory_answer_like_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shared = runtime.block_on(TestRedis::new());
    let cases = AtomicU64::new(0);
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&proptest::collection::vec(op(), 1..60), |ops| {
        let case = cases.fetch_add(1, Ordering::SeqCst);
        let mut model = Model { now: 1_000_000, ..Model::default() };
        let clock = Arc::new(AtomicU64::new(model.now));
        let reader = Arc::clone(&clock);
        let memory = InProcessLimits::with_clock(Arc::new(move || reader.load(Ordering::SeqCst)));
        let redis_clock = Arc::new(AtomicU64::new(model.now));
        runtime.block_on(async {
            let redis = RedisLimits::new(&shared.url, &format!("{}{case}", shared.prefix), Duration::from_secs(20))
                .expect("a good URL")
                .with_clock(Arc::clone(&redis_clock));
            for (step, op) in ops.iter().enumerate() {
                let expected = model.apply(op);
                prop_assert_eq!(&apply(&memory, &clock, op).await, &expected, "memory, step {}: {:?}", step, op);
                prop_assert_eq!(&apply(&redis, &redis_clock, op).await, &expected, "redis, step {}: {:?}", step, op);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[tokio::test]
async fn a_hanging_redis_refuses_within_the_bound_and_a_restarted_one_serves_again() {
    let server = RedisServer::start();
    let limits = RedisLimits::new(&server.url(), "hang", Duration::from_millis(200)).expect("a good URL");
    limits.reserve(&ask(10)).await.expect("granted");

    server.pause();
    let start = Instant::now();
    let hanging = limits.reserve(&ask(10)).await;
    assert!(matches!(hanging, Err(Denied::Unavailable(_))), "{hanging:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    server.resume();
    server.kill();
    server.restart();
    let deadline = Instant::now() + Duration::from_secs(20);
    while limits.reserve(&ask(10)).await.is_err() {
        assert!(Instant::now() < deadline, "never came back");
    }
}

#[tokio::test]
async fn with_the_servers_own_clock_the_slots_of_a_crashed_gateway_come_back() {
    let shared = TestRedis::new().await;
    let limits = RedisLimits::new(&shared.url, &shared.prefix, Duration::from_secs(20)).expect("a good URL");
    let crashed = Ask { lease: Duration::from_millis(300), ..ask(1) };
    limits.reserve(&crashed).await.expect("granted");
    let Err(Denied::Refused(refusal)) = limits.reserve(&ask(1)).await else { panic!("the only slot is taken") };
    assert_eq!(refusal.exceeded[0].limit, Limit::ConcurrentRequests);
    assert!(refusal.retry_after().expect("a hint") <= Duration::from_millis(300));
    let deadline = Instant::now() + Duration::from_secs(20);
    while limits.reserve(&ask(1)).await.is_err() {
        assert!(Instant::now() < deadline, "the slot never came back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_reservation_gives_its_slot_and_unspent_tokens_back() {
    let limits: Arc<dyn RateLimits> = Arc::new(InProcessLimits::default());
    let (admission, task) = Admission::start(Arc::clone(&limits), 8, CancellationToken::new());
    let whole = Ask { tokens: 1_000, ..ask(1) };
    let mut reservation = admission.reserve(whole.clone()).await.expect("granted");
    let fault = admission.reserve(Ask { id: ask(1).id, ..whole.clone() }).await.err().expect("refused");
    assert_eq!(fault.reason, domain::Reason::RateLimited);
    assert_eq!(fault.message, "rate limit reached: tokens_per_minute, concurrent_requests");
    assert!(fault.retry_hint().is_some());

    reservation.used(400);
    drop(reservation);
    drop(admission);
    task.await.expect("the errands end with the last clone");

    let over = limits.reserve(&Ask { tokens: 601, ..ask(1) }).await;
    assert!(matches!(&over, Err(Denied::Refused(r)) if r.exceeded[0].over == 1 && r.exceeded.len() == 1), "{over:?}");
    limits.reserve(&Ask { tokens: 600, ..ask(1) }).await.expect("what was not used is there again");
}

#[tokio::test]
async fn a_request_above_the_limit_is_told_that_no_wait_helps() {
    let (admission, _task) = Admission::start(Arc::new(InProcessLimits::default()), 8, CancellationToken::new());
    let fault = admission.reserve(Ask { tokens: 1_001, ..ask(1) }).await.err().expect("refused");
    assert_eq!(fault.retry_hint(), None);
    assert!(format!("{:?}", fault.details).contains("no wait helps"));
}
