//! What is served from slices that a gateway has borrowed ahead, and what becomes of them when Redis is silent or forgets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{ApiKeyId, Outage, Price, RequestId, TenantId};
use redis::Commands as _;
use tests::redis::{RedisServer, TestRedis};
use uuid::Uuid;

use super::{
    Ask, Denied, Extended, LimitsUnavailable, NothingSpent, OutageLimits, RateLimits, Rates, RedisLimits, RedisOptions,
    SliceOptions, Used,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn limits(url: &str, prefix: &str, timeout: Duration) -> OutageLimits<RedisLimits> {
    let slices = SliceOptions {
        hot_per_second: 10,
        valid: Duration::from_millis(1_000),
        lease: Duration::from_secs(5),
        parts: 4,
    };
    let options = RedisOptions {
        prefix: prefix.to_owned(),
        timeout,
        ledger_wait: PATIENCE,
        settling: Duration::from_millis(100),
        slices,
        clock: None,
    };
    let redis = RedisLimits::new(url, options, Arc::new(NothingSpent)).expect("a good URL");
    OutageLimits::new(redis, 2, Duration::from_millis(300), Arc::new(NothingSpent), PATIENCE)
}

/// For 2 and 3 tokens, which cost 8 micro-units.
fn ask(of_tenant: Rates, outage: Outage) -> Ask {
    Ask {
        id: RequestId::new(Uuid::now_v7()),
        tenant: TenantId::new(Uuid::from_u128(1)),
        key: ApiKeyId::new(Uuid::from_u128(2)),
        input_tokens: 2,
        output_tokens: 3,
        of_tenant,
        of_key: Rates::default(),
        price: Price { input: 1_000_000, cached_input: 1_000_000, output: 2_000_000 },
        lease: Duration::from_secs(30),
        outage,
    }
}

const USED: Used = Used { input: 2, cached: 0, output: 3 };

fn scripts_run(url: &str) -> u64 {
    let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("connects");
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).expect("answers");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_is_served_from_memory_and_never_beyond_its_limits() {
    let server = RedisServer::start();
    let limits = limits(&server.url(), "hot", PATIENCE);
    let rates = Rates {
        requests_per_minute: Some(2_000),
        output_tokens_per_minute: Some(100_000),
        concurrent_requests: Some(50),
        budget_day: Some(1_000_000),
        ..Rates::default()
    };
    let begin = Instant::now();
    let mut served = 0_u64;
    let refused = loop {
        assert!(begin.elapsed() < PATIENCE, "{served} were served");
        let one = ask(rates, Outage::Closed);
        match limits.reserve(&one).await {
            Ok(granted) => {
                assert_eq!(granted.output, 3);
                assert_eq!(limits.settle(&one, USED).await, Ok(true));
                served += 1;
            }
            Err(Denied::Refused(refused)) => break refused,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(refused.exceeded[0].limit.to_string(), "requests_per_minute");
    assert_eq!(served, 2_000, "all that the limit allows, and not one more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_requests_of_a_hot_key_take_no_round_trip() {
    let server = RedisServer::start();
    let limits = limits(&server.url(), "trips", PATIENCE);
    let rates = Rates {
        requests_per_minute: Some(10_000_000),
        output_tokens_per_minute: Some(100_000_000),
        concurrent_requests: Some(50),
        budget_day: Some(10_000_000_000),
        ..Rates::default()
    };
    let serve = async |time: Duration| {
        let (begin, mut served) = (Instant::now(), 0_u64);
        while begin.elapsed() < time {
            let one = ask(rates, Outage::Closed);
            limits.reserve(&one).await.expect("there is room");
            limits.settle(&one, USED).await.expect("answers");
            served += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        served
    };
    // Until it is known how hot it is.
    serve(Duration::from_secs(2)).await;
    let before = scripts_run(&server.url());
    let served = serve(Duration::from_secs(3)).await;
    let scripts = scripts_run(&server.url()) - before;
    println!("{served} requests took {scripts} round trips");
    assert!(scripts * 4 < served, "{scripts} round trips for {served} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_runs_on_a_slice_is_extended_and_stops_with_the_budget() {
    let shared = TestRedis::new().await;
    let limits = limits(&shared.url, &shared.prefix, PATIENCE);
    let rates = Rates { budget_day: Some(500), ..Rates::default() };
    let begin = Instant::now();
    let drawn = loop {
        assert!(begin.elapsed() < PATIENCE, "never hot");
        let one = ask(rates, Outage::Leased);
        limits.reserve(&one).await.expect("there is money");
        if super::Lends::is_drawn(&limits.shared, &one) {
            break one;
        }
        limits.settle(&one, Used::default()).await.expect("answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut total = 3;
    let stopped_by = loop {
        match limits.extend(&drawn, total + 50).await {
            Ok(Extended::Granted { total: granted, stopped_by }) if stopped_by.is_empty() => total = granted,
            Ok(Extended::Granted { total: granted, stopped_by }) if granted > total || granted == 249 => {
                total = granted;
                break stopped_by;
            }
            // What was lent beside it comes back.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "never stopped: {total}");
    };
    assert_eq!(stopped_by[0].to_string(), "budget_day");
    assert!(drawn.cost_at_most(total.into()) <= 500);
    limits.settle(&drawn, Used { output: total.into(), ..USED }).await.expect("answers");
    limits.close().await;
    let left = 500 - drawn.cost_at_most(total.into());
    let next = Ask { outage: Outage::Closed, ..ask(rates, Outage::Closed) };
    assert_eq!(limits.reserve(&next).await.is_ok(), left >= next.cost_at_most(1), "{left} are left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leased_plan_lives_on_what_was_borrowed_while_redis_hangs_and_never_exceeds_its_limit() {
    let server = RedisServer::start();
    let limits = limits(&server.url(), "leased", Duration::from_millis(200));
    let most = 400;
    let rates = Rates { requests_per_minute: Some(most), ..Rates::default() };
    let mut served = 0;
    let begin = Instant::now();
    // Until the key has wanted something for a while.
    while begin.elapsed() < Duration::from_secs(1) {
        let one = ask(rates, Outage::Leased);
        if limits.reserve(&one).await.is_ok() {
            served += 1;
            limits.settle(&one, USED).await.expect("answers");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.pause();
    let (begin, mut meanwhile) = (Instant::now(), 0);
    let refused = loop {
        let one = ask(rates, Outage::Leased);
        match limits.reserve(&one).await {
            Ok(_) => meanwhile += 1,
            Err(refused) => break refused,
        }
        assert_eq!(limits.settle(&one, USED).await, Ok(true));
    };
    assert!(matches!(refused, Denied::Unavailable(LimitsUnavailable::Silent(_))), "{refused:?}");
    assert!(meanwhile > 0, "nothing was borrowed ahead");
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
    // A plan that is closed gets nothing of it.
    assert!(limits.reserve(&ask(rates, Outage::Closed)).await.is_err());
    server.resume();
    let deadline = Instant::now() + PATIENCE;
    let refusal = loop {
        assert!(Instant::now() < deadline, "{served} and {meanwhile} were served");
        let one = ask(rates, Outage::Leased);
        match limits.reserve(&one).await {
            Ok(_) => served += 1,
            Err(Denied::Refused(refusal)) => break refusal,
            Err(Denied::Unavailable(_)) => continue,
        }
        limits.settle(&one, USED).await.expect("answers");
    };
    assert_eq!(refusal.exceeded[0].limit.to_string(), "requests_per_minute");
    // What was lent was charged before: Redis has forgotten nothing, so nothing is above the limit.
    assert!(served + meanwhile <= most, "{served} and {meanwhile}");
}

#[tokio::test]
async fn a_refusal_changes_nothing() {
    let shared = TestRedis::new().await;
    let limits = limits(&shared.url, &shared.prefix, PATIENCE);
    let rates = Rates {
        requests_per_minute: Some(2),
        input_tokens_per_minute: Some(4),
        output_tokens_per_minute: Some(6),
        concurrent_requests: Some(2),
        budget_day: Some(16),
        budget_month: Some(16),
    };
    let both = |ask: Ask| Ask { of_key: rates, ..ask };
    for _ in 0..2 {
        limits.reserve(&both(ask(rates, Outage::Closed))).await.expect("granted");
    }
    let state = || {
        let mut connection = redis::Client::open(shared.url.as_str()).and_then(|client| client.get_connection());
        let connection = connection.as_mut().expect("connects");
        let mut keys: Vec<String> = connection.keys(format!("{}:{{*", shared.prefix)).expect("lists");
        keys.sort();
        let dump = |key: String| {
            let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query(connection).expect("dumps");
            (key, value)
        };
        keys.into_iter().map(dump).collect::<Vec<_>>()
    };
    let before = state();
    for _ in 0..20 {
        let refused = limits.reserve(&both(ask(rates, Outage::Closed))).await;
        assert!(matches!(&refused, Err(Denied::Refused(refusal)) if refusal.exceeded.len() == 12), "{refused:?}");
    }
    assert_eq!(state(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_without_a_seat_is_forgotten_with_its_gateway() {
    let server = RedisServer::start();
    let of_gateway = limits(&server.url(), "seatless", PATIENCE);
    let rates = Rates { concurrent_requests: Some(1), budget_day: Some(1_000_000), ..Rates::default() };
    let mut connection =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("connects");
    let mut slices = || {
        let tenant = ask(rates, Outage::Leased).tenant;
        connection.hlen::<_, u64>(format!("seatless:{{{tenant}}}:reservations")).expect("answers")
    };
    // The one seat that there is, so that none is left for a slice.
    let running = ask(rates, Outage::Leased);
    of_gateway.reserve(&running).await.expect("there is room");
    let deadline = Instant::now() + PATIENCE;
    while slices() < 2 {
        assert!(Instant::now() < deadline, "nothing is lent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(of_gateway);
    let other = limits(&server.url(), "seatless", PATIENCE);
    while slices() > 1 {
        assert!(Instant::now() < deadline, "{} are left", slices());
        // Whatever is asked next clears away what is over.
        let _ = other.explain(&running).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
