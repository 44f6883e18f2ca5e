//! Both keepers of the counts against a model that is too simple to be wrong: it forgets nothing and adds everything up.
//! And what only Redis can do wrong: hang, die, come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{ApiKeyId, Outage, Price, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use proptest::prelude::*;
use tests::redis::{RedisServer, TestRedis};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Admission, Ask, BudgetSource, ByProcess, Denied, Exceeded, Explained, Extended, Granted, InProcessLimits, Limit,
    LimitsUnavailable, NothingSpent, OutageLimits, Period, Rate, RateLimits, Rates, RedisLimits, RedisOptions, Refusal,
    Scope, SliceOptions, Spent, Used,
};

const DAY_MS: u64 = 86_400_000;
/// 2028-02-27, two days before a leap day.
const BEGIN_MS: u64 = 1_835_265_600_000;
/// Nothing here takes long.
const LEDGER_WAIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Op {
    Reserve(Asked),
    Extend { ask: Asked, total: u32 },
    Settle { ask: Asked, used: Used },
    Renew(Asked),
    Wait { ms: u64 },
}

/// A request of one of two tenants, each with two keys.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tenant: u128,
    key: u128,
    id: u128,
    input: u32,
    output: u32,
    of_tenant: Rates,
    of_key: Rates,
    price: Price,
    lease_ms: u64,
}

/// What the ledger says was spent by anybody before: money that is found there counts like any other.
struct SpentBefore;

const SPENT_BEFORE: Spent = Spent { day: 7, month: 40 };

impl BudgetSource for SpentBefore {
    fn spent<'a>(
        &'a self,
        _: TenantId,
        _: Option<ApiKeyId>,
        _: Period,
        _: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        let part = Spent { day: SPENT_BEFORE.day - 3, month: SPENT_BEFORE.month - 11 };
        let parts = [(1, part), (2, Spent { day: 3, month: 11 })];
        futures::future::ready(Ok(parts.map(|(process, part)| (Uuid::from_u128(process), part)).into())).boxed()
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Reserved(Result<Granted, Denied>),
    Extended(Extended),
    Known(bool),
    Waited,
}

fn rates() -> impl Strategy<Value = Rates> {
    let limit = |most: u32| prop_oneof![1 => Just(None), 3 => (1..most).prop_map(Some)];
    let budget = |most: u64| prop_oneof![2 => Just(None), 3 => (1..most).prop_map(Some)];
    (limit(6), limit(100), limit(80), limit(4), budget(100), budget(400)).prop_map(
        |(requests, input, output, at_once, day, month)| Rates {
            requests_per_minute: requests,
            input_tokens_per_minute: input,
            output_tokens_per_minute: output,
            concurrent_requests: at_once,
            budget_day: day,
            budget_month: month,
        },
    )
}

/// Less than a micro-unit for a token, some, and more than there can be.
fn price() -> impl Strategy<Value = Price> {
    let one = || prop_oneof![Just(0), 0..3_000_000u64, Just(domain::BUDGET_MAX)];
    (0..3_000_000u64, one(), one()).prop_map(|(input, cached_input, output)| Price { input, cached_input, output })
}

fn asked() -> impl Strategy<Value = Asked> {
    let of_key = prop_oneof![Just(Rates::default()), rates()];
    (0..2u128, 0..8u128, 0..60u32, 1..60u32, rates(), of_key, price(), 1..90_000u64).prop_map(
        |(tenant, id, input, output, of_tenant, of_key, price, lease_ms)| Asked {
            tenant,
            // A request id belongs to one key.
            key: id % 2,
            id,
            input,
            output,
            of_tenant,
            of_key,
            price,
            lease_ms,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let used = (0..70u64, 0..80u64, 0..150u64).prop_map(|(input, cached, output)| Used { input, cached, output });
    prop_oneof![
        4 => asked().prop_map(Op::Reserve),
        3 => (asked(), 0..200u32).prop_map(|(ask, total)| Op::Extend { ask, total }),
        2 => (asked(), used).prop_map(|(ask, used)| Op::Settle { ask, used }),
        1 => asked().prop_map(Op::Renew),
        3 => prop_oneof![4 => 0..3_000u64, 4 => 0..70_000u64, 1 => 0..2 * DAY_MS].prop_map(|ms| Op::Wait { ms }),
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
    /// If it has limits of its own.
    key: Option<u128>,
    id: u128,
    slot: u64,
    input: u64,
    /// Slot and tokens of each grant, and of a debt.
    output: Vec<(u64, u64)>,
    period: Period,
    /// Whether the tenant and the key had a budget.
    budgeted: [bool; 2],
    cost: u64,
    /// `None` once settled.
    lease_until: Option<u64>,
}

impl Charge {
    fn counts(&self, asked: &Asked, scope: Scope) -> bool {
        self.tenant == asked.tenant && (scope == Scope::Tenant || self.key == Some(asked.key))
    }

    /// Slots and amounts of what is counted for a rate.
    fn amounts(&self, rate: Rate) -> Vec<(u64, u64)> {
        match rate {
            Rate::RequestsPerMinute => vec![(self.slot, 1)],
            Rate::InputTokensPerMinute => vec![(self.slot, self.input)],
            _ => self.output.clone(),
        }
    }
}

impl Model {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Wait { ms } => {
                self.now += ms;
                Answer::Waited
            }
            Op::Settle { ask, used } => Answer::Known(self.settle(ask, *used)),
            Op::Renew(ask) => {
                let until = self.now + ask.lease_ms;
                Answer::Known(self.live(ask).map(|charge| charge.lease_until = Some(until)).is_some())
            }
            Op::Extend { ask, total } => Answer::Extended(self.extend(ask, (*total).into())),
            Op::Reserve(ask) => Answer::Reserved(self.reserve(ask)),
        }
    }

    fn reserve(&mut self, asked: &Asked) -> Result<Granted, Denied> {
        if let Some(charge) = self.live(asked) {
            let output = charge.output.iter().map(|(_, amount)| *amount as u32).sum();
            return Ok(Granted { output, at_ms: charge.slot * 1000 });
        }
        let key = (asked.of_key != Rates::default()).then_some(asked.key);
        let scopes = [Some((Scope::Tenant, asked.of_tenant)), key.map(|_| (Scope::Key, asked.of_key))];
        let (mut exceeded, mut granted) = (Vec::new(), u64::from(asked.output));
        for (scope, rates) in scopes.into_iter().flatten() {
            let amounts = [
                (Rate::RequestsPerMinute, 1),
                (Rate::InputTokensPerMinute, u64::from(asked.input)),
                (Rate::OutputTokensPerMinute, 1),
            ];
            for (rate, more) in amounts {
                exceeded.extend(rates.of(rate).and_then(|most| self.window(asked, scope, rate, more, most)));
            }
            exceeded.extend(rates.concurrent_requests.and_then(|most| self.at_once(asked, scope, most.into())));
            for (rate, spent, end_ms) in self.money(asked, scope, Period::of(self.now)) {
                let cost = asked.ask().cost_at_most(1);
                let Some(most) = rates.of(rate).filter(|most| cost > 0 && spent + cost > *most) else { continue };
                let retry_after = (cost <= most).then(|| Duration::from_millis(end_ms - self.now));
                let over = spent + cost - most;
                exceeded.push(Exceeded { limit: Limit { scope, rate }, over, retry_after });
            }
            granted = granted.min(self.room(asked, scope, rates));
        }
        let period = Period::of(self.now);
        for (scope, rates) in scopes.into_iter().flatten() {
            for (rate, spent, _) in self.money(asked, scope, period) {
                let Some(most) = rates.of(rate) else { continue };
                while granted > 1 && asked.ask().cost_at_most(granted) > most.saturating_sub(spent) {
                    granted -= 1;
                }
            }
        }
        if !exceeded.is_empty() {
            return Err(Denied::Refused(Refusal { exceeded }));
        }
        let (slot, lease_until) = (self.now / 1000, Some(self.now + asked.lease_ms));
        let Asked { tenant, id, .. } = *asked;
        let (input, output) = (asked.input.into(), vec![(slot, granted)]);
        let (budgeted, cost) = (asked.ask().budgeted(), asked.ask().cost_at_most(granted));
        self.charges.push(Charge { tenant, key, id, slot, input, output, period, budgeted, cost, lease_until });
        Ok(Granted { output: granted as u32, at_ms: slot * 1000 })
    }

    fn extend(&mut self, asked: &Asked, total: u64) -> Extended {
        let Some(charge) = self.live(asked) else { return Extended::Unknown };
        let (charged_key, granted) = (charge.key, charge.output.iter().map(|(_, amount)| amount).sum::<u64>());
        let (period, budgeted, cost) = (charge.period, charge.budgeted, charge.cost);
        let wanted = total.saturating_sub(granted);
        let scopes = [Some((Scope::Tenant, asked.of_tenant)), charged_key.map(|_| (Scope::Key, asked.of_key))];
        let (mut more, mut stopped_by) = (wanted, Vec::new());
        for (scope, rates) in scopes.into_iter().flatten().filter(|_| wanted > 0) {
            let room = self.room(asked, scope, rates);
            if room < wanted {
                stopped_by.push(Limit { scope, rate: Rate::OutputTokensPerMinute });
            }
            more = more.min(room);
            if !budgeted[usize::from(scope == Scope::Key)] {
                continue;
            }
            for (rate, spent, _) in self.money(asked, scope, period) {
                let Some(most) = rates.of(rate) else { continue };
                let affordable =
                    |more: &u64| asked.ask().cost_at_most(granted + more) <= (cost + most).saturating_sub(spent);
                let room = (0..=wanted).rev().find(affordable).unwrap_or(0);
                if room < wanted {
                    stopped_by.push(Limit { scope, rate });
                }
                more = more.min(room);
            }
        }
        let slot = self.now / 1000;
        if let Some(charge) = self.live(asked).filter(|_| more > 0) {
            charge.output.push((slot, more));
            charge.cost = asked.ask().cost_at_most(granted + more);
        }
        Extended::Granted { total: (granted + more) as u32, stopped_by }
    }

    fn settle(&mut self, asked: &Asked, used: Used) -> bool {
        let slot = self.now / 1000;
        if self.live(asked).is_none() {
            // Only its money is still to be settled, once.
            let same = |charge: &&mut Charge| (charge.tenant, charge.id) == (asked.tenant, asked.id);
            if let Some(charge) = self.charges.iter_mut().rfind(same)
                && charge.lease_until.take().is_some()
            {
                charge.cost = asked.ask().cost(used);
            }
            return false;
        }
        let Some(charge) = self.live(asked) else { return false };
        charge.lease_until = None;
        charge.input = used.input;
        charge.cost = asked.ask().cost(used);
        let mut left = used.output;
        for (_, amount) in &mut charge.output {
            *amount = left.min(*amount);
            left -= *amount;
        }
        charge.output.push((slot, left));
        true
    }

    fn live(&mut self, asked: &Asked) -> Option<&mut Charge> {
        let now = self.now;
        let lives = |charge: &&mut Charge| {
            (charge.tenant, charge.id) == (asked.tenant, asked.id)
                && charge.lease_until.is_some_and(|until| until > now)
        };
        self.charges.iter_mut().find(lives)
    }

    fn sum_at(&self, asked: &Asked, scope: Scope, rate: Rate, slot: u64) -> u64 {
        let counted = self.charges.iter().filter(|charge| charge.counts(asked, scope));
        let amounts = counted.flat_map(|charge| charge.amounts(rate));
        amounts.filter(|(at, _)| at + 60 >= slot).map(|(_, amount)| amount).sum()
    }

    fn room(&self, asked: &Asked, scope: Scope, rates: Rates) -> u64 {
        let most = rates.output_tokens_per_minute.map_or(u64::MAX, u64::from);
        most.saturating_sub(self.sum_at(asked, scope, Rate::OutputTokensPerMinute, self.now / 1000))
    }

    /// What a scope has spent in the day and in the month, and when they end.
    fn money(&self, asked: &Asked, scope: Scope, period: Period) -> [(Rate, u64, u64); 2] {
        let charged = |charge: &&Charge| {
            charge.tenant == asked.tenant
                && match scope {
                    Scope::Tenant => charge.budgeted[0],
                    Scope::Key => charge.key == Some(asked.key) && charge.budgeted[1],
                }
        };
        let (mut day, mut month) = (SPENT_BEFORE.day, SPENT_BEFORE.month);
        for charge in self.charges.iter().filter(charged).filter(|charge| charge.period.month == period.month) {
            month = charge.cost.saturating_add(month);
            day = if charge.period.day == period.day { charge.cost.saturating_add(day) } else { day };
        }
        let [day_ends, month_ends] = period.ends_ms();
        [(Rate::BudgetDay, day, day_ends), (Rate::BudgetMonth, month, month_ends)]
    }

    /// The first moment at which the amount fits, found by looking at each of them.
    fn window(&self, asked: &Asked, scope: Scope, rate: Rate, more: u64, most: u64) -> Option<Exceeded> {
        let over_at = |slot: u64| (self.sum_at(asked, scope, rate, slot) + more).saturating_sub(most);
        let slot_now = self.now / 1000;
        let over = over_at(slot_now);
        let roomy = (slot_now + 1..=slot_now + 61).find(|slot| over_at(*slot) == 0);
        let retry_after = roomy.map(|slot| Duration::from_millis(slot * 1000 - self.now));
        (over > 0).then_some(Exceeded { limit: Limit { scope, rate }, over, retry_after })
    }

    fn at_once(&self, asked: &Asked, scope: Scope, most: u64) -> Option<Exceeded> {
        let counted = self.charges.iter().filter(|charge| charge.counts(asked, scope));
        let ends: Vec<_> = counted.filter_map(|charge| charge.lease_until.filter(|until| *until > self.now)).collect();
        let over = (ends.len() as u64 + 1).saturating_sub(most);
        let wait = ends.iter().min().map_or(1_000, |until| (until - self.now).min(1_000));
        let retry_after = Some(Duration::from_millis(wait));
        let limit = Limit { scope, rate: Rate::ConcurrentRequests };
        (over > 0).then_some(Exceeded { limit, over, retry_after })
    }
}

impl Asked {
    fn ask(&self) -> Ask {
        Ask {
            id: RequestId::new(Uuid::from_u128(self.id)),
            tenant: TenantId::new(Uuid::from_u128(self.tenant)),
            key: ApiKeyId::new(Uuid::from_u128(self.key)),
            input_tokens: self.input,
            output_tokens: self.output,
            of_tenant: self.of_tenant,
            of_key: self.of_key,
            price: self.price,
            lease: Duration::from_millis(self.lease_ms),
            outage: Outage::Closed,
        }
    }
}

async fn apply(limits: &dyn RateLimits, clock: &AtomicU64, op: &Op) -> Answer {
    match op {
        Op::Wait { ms } => {
            clock.fetch_add(*ms, Ordering::SeqCst);
            Answer::Waited
        }
        Op::Settle { ask, used } => Answer::Known(limits.settle(&ask.ask(), *used).await.expect("limits answer")),
        Op::Renew(ask) => Answer::Known(limits.renew(&ask.ask()).await.expect("limits answer")),
        Op::Extend { ask, total } => Answer::Extended(limits.extend(&ask.ask(), *total).await.expect("limits answer")),
        Op::Reserve(ask) => Answer::Reserved(limits.reserve(&ask.ask()).await),
    }
}

/// Tokens granted, or the limits that refuse and for how long.
type Foreseen = Result<u64, Vec<(Limit, Option<Duration>)>>;

fn would_be(explained: &Explained) -> Foreseen {
    if explained.admitted() {
        return Ok(explained.room());
    }
    let refusing = explained.limits.iter().filter(|one| one.refuses);
    Err(refusing.map(|one| (one.limit, one.refills_after)).collect())
}

fn outcome_of(reserved: &Result<Granted, Denied>) -> Foreseen {
    match reserved {
        Ok(granted) => Ok(granted.output.into()),
        Err(Denied::Refused(refusal)) => Err(refusal.exceeded.iter().map(|one| (one.limit, one.retry_after)).collect()),
        Err(Denied::Unavailable(error)) => panic!("limits answer: {error}"),
    }
}

fn redis(url: &str, prefix: &str, timeout: Duration) -> RedisLimits {
    RedisLimits::new(url, options(prefix, timeout), Arc::new(NothingSpent)).expect("a good URL")
}

fn options(prefix: &str, timeout: Duration) -> RedisOptions {
    let settling = Duration::from_millis(100);
    RedisOptions {
        prefix: prefix.to_owned(),
        timeout,
        ledger_wait: LEDGER_WAIT,
        settling,
        slices: slices(),
        clock: None,
    }
}

fn slices() -> SliceOptions {
    let (valid, lease) = (Duration::from_millis(1_000), Duration::from_secs(5));
    SliceOptions { hot_per_second: 20, valid, lease, parts: 4 }
}

/// A request for 5 and 5 tokens, of which there are 1,000 each.
fn ask(at_once: u32) -> Ask {
    let of_tenant = Rates {
        requests_per_minute: Some(100),
        input_tokens_per_minute: Some(1_000),
        output_tokens_per_minute: Some(1_000),
        concurrent_requests: Some(at_once),
        ..Rates::default()
    };
    Ask {
        id: RequestId::new(Uuid::now_v7()),
        tenant: TenantId::new(Uuid::from_u128(1)),
        key: ApiKeyId::new(Uuid::from_u128(2)),
        input_tokens: 5,
        output_tokens: 5,
        of_tenant,
        of_key: Rates::default(),
        price: Price::default(),
        lease: Duration::from_secs(30),
        outage: Outage::Closed,
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
        let mut model = Model { now: BEGIN_MS, ..Model::default() };
        let clock = Arc::new(AtomicU64::new(model.now));
        let reader = Arc::clone(&clock);
        let memory = InProcessLimits::with_clock(
            Arc::new(SpentBefore),
            LEDGER_WAIT,
            Arc::new(move || reader.load(Ordering::SeqCst)),
        );
        let redis_clock = Arc::new(AtomicU64::new(model.now));
        runtime.block_on(async {
            let options = RedisOptions {
                clock: Some(Arc::clone(&redis_clock)),
                settling: Duration::from_millis(1),
                ..options(&format!("{}{case}", shared.prefix), LEDGER_WAIT)
            };
            let redis = RedisLimits::new(&shared.url, options, Arc::new(SpentBefore)).expect("a good URL");
            for (step, op) in ops.iter().enumerate() {
                let explained = match op {
                    Op::Reserve(asked) if model.live(asked).is_none() => {
                        let explained = memory.explain(&asked.ask()).await.expect("limits answer");
                        let by_redis = redis.explain(&asked.ask()).await.expect("limits answer");
                        prop_assert_eq!(&by_redis, &explained, "explained, step {}: {:?}", step, op);
                        Some(explained)
                    }
                    _ => None,
                };
                let expected = model.apply(op);
                if let (Some(explained), Answer::Reserved(reserved)) = (explained, &expected) {
                    prop_assert_eq!(&would_be(&explained), &outcome_of(reserved), "explained, step {}: {:?}", step, op);
                }
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
    let limits = redis(&server.url(), "hang", Duration::from_millis(200));
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
    let limits = redis(&shared.url, &shared.prefix, LEDGER_WAIT);
    let crashed = Ask { lease: Duration::from_millis(300), ..ask(1) };
    limits.reserve(&crashed).await.expect("granted");
    let Err(Denied::Refused(refusal)) = limits.reserve(&ask(1)).await else { panic!("the only slot is taken") };
    assert_eq!(refusal.exceeded[0].limit, Limit { scope: Scope::Tenant, rate: Rate::ConcurrentRequests });
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
    let whole = Ask { input_tokens: 1_000, output_tokens: 1_000, ..ask(1) };
    let mut reservation = admission.reserve(whole.clone()).await.expect("granted");
    let fault = admission.reserve(Ask { id: ask(1).id, ..whole }).await.err().expect("refused");
    assert_eq!(fault.reason, domain::Reason::RateLimited);
    let limits_hit = "input_tokens_per_minute, output_tokens_per_minute, concurrent_requests";
    assert_eq!(fault.message, format!("rate limit reached: {limits_hit}"));
    assert!(fault.retry_hint().is_some());

    reservation.used(Used { input: 1_000, output: 400, ..Used::default() });
    drop(reservation);
    drop(admission);
    task.await.expect("the errands end with the last clone");

    let over = limits.reserve(&Ask { input_tokens: 1, ..ask(1) }).await;
    assert!(matches!(&over, Err(Denied::Refused(r)) if r.exceeded[0].over == 1 && r.exceeded.len() == 1), "{over:?}");
    let granted = limits.reserve(&Ask { input_tokens: 0, output_tokens: 700, ..ask(1) }).await;
    assert_eq!(granted.map(|granted| granted.output), Ok(600), "what was not used is there again");
}

#[tokio::test]
async fn a_request_above_the_limit_is_told_that_no_wait_helps() {
    let (admission, _task) = Admission::start(Arc::new(InProcessLimits::default()), 8, CancellationToken::new());
    let fault = admission.reserve(Ask { input_tokens: 1_001, ..ask(1) }).await.err().expect("refused");
    assert_eq!(fault.retry_hint(), None);
    assert!(format!("{:?}", fault.details).contains("no wait helps"));
}

#[tokio::test]
async fn while_redis_is_silent_each_plan_has_its_own_rule_and_nobody_waits_for_it() {
    let server = RedisServer::start();
    let timeout = Duration::from_millis(200);
    let redis = redis(&server.url(), "outage", timeout);
    let limits = OutageLimits::new(redis, 2, Duration::from_millis(300), Arc::new(NothingSpent), LEDGER_WAIT);
    let closed = || ask(10);
    let open = || Ask { outage: Outage::Open, tenant: TenantId::new(Uuid::from_u128(9)), ..ask(2) };
    let held = closed();
    limits.reserve(&held).await.expect("granted");
    let one_of_two = open();
    limits.reserve(&one_of_two).await.expect("granted");

    server.pause();
    for _ in 0..2 {
        assert!(matches!(limits.reserve(&closed()).await, Err(Denied::Unavailable(_))));
    }
    // From here on nobody waits, but for one request after each pause.
    let begin = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(limits.reserve(&closed()).await, Err(Denied::Unavailable(_))));
    }
    let pauses = begin.elapsed().as_millis() / 300 + 1;
    assert!(begin.elapsed() < (timeout * u32::try_from(pauses).expect("few")) + Duration::from_secs(5));
    // Open ones go on under limits that this gateway keeps for itself.
    let (first, second) = (open(), open());
    limits.reserve(&first).await.expect("open");
    limits.reserve(&second).await.expect("open");
    let third = limits.reserve(&open()).await;
    assert!(matches!(&third, Err(Denied::Refused(r)) if r.exceeded.len() == 1), "{third:?}");
    assert_eq!(limits.settle(&first, Used::default()).await, Ok(true));
    limits.reserve(&open()).await.expect("a place is free");

    server.resume();
    let deadline = Instant::now() + Duration::from_secs(20);
    while limits.reserve(&closed()).await.is_err() {
        assert!(Instant::now() < deadline, "never came back");
    }
    assert_eq!(
        limits.settle(&held, Used { input: 5, output: 5, ..Used::default() }).await,
        Ok(true),
        "what was reserved before is known"
    );
    assert_eq!(limits.settle(&one_of_two, Used::default()).await, Ok(true));
}
