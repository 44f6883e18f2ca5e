//! Budget counters in Redis beside the ledger, as `banyan ledger reconcile` shows them.

use domain::{ApiKeyId, Outage, Price, RequestId};
use gateway::limits::{Ask, Rates};
use proto::v1::{self, ledger_service_client::LedgerServiceClient, price_service_client::PriceServiceClient};
use redis::Commands as _;
use store::{Hold, LedgerEntry};
use tests::redis::TestRedis;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, ask, inference_key, within},
};

const PRICE: u64 = 1_000_000;
const CHECKS: [&str; 2] = ["budgets", "budget counters"];

fn settings(shared: &TestRedis) -> String {
    format!(
        "redis = {:?}\n[limits]\nredis_prefix = {:?}\nredis_timeout_ms = 5000\nsettling_ms = 50\n\
         [ledger]\nsweep_interval_ms = 50\n",
        shared.url, shared.prefix
    )
}

async fn set_price(platform: &Platform) {
    let channel = platform.channel(platform.gateway.admin_addr);
    let mut prices = PriceServiceClient::with_interceptor(channel, Bearer(OPERATOR.to_owned()));
    let price = v1::Price {
        model: "base".into(),
        input_micros: PRICE,
        cached_input_micros: PRICE,
        output_micros: PRICE,
        ..v1::Price::default()
    };
    prices.set_price(v1::SetPriceRequest { price: Some(price) }).await.expect("sets");
}

/// Both sides of the two checks of budgets.
async fn budgets(platform: &Platform) -> [(i64, i64); 2] {
    let channel = platform.channel(platform.gateway.admin_addr);
    let mut operator = LedgerServiceClient::with_interceptor(channel, Bearer(OPERATOR.to_owned()));
    let checks = operator.reconcile(v1::ReconcileRequest {}).await.expect("compares").into_inner().checks;
    CHECKS.map(|name| {
        let check = checks.iter().find(|check| check.name == name).expect("is among them");
        (check.left_value, check.right_value)
    })
}

async fn budgets_become(platform: &Platform, expected: [(i64, i64); 2]) {
    let mut last = None;
    let same = async {
        while last != Some(expected) {
            last = Some(budgets(platform).await);
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), same).await;
    assert!(in_time.is_ok(), "{last:?}, not {expected:?}");
}

#[tokio::test]
async fn budget_counters_are_the_ledgers_and_a_changed_one_is_shown() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Finish]).await;
    let shared = TestRedis::new().await;
    let platform = Platform::start_with(&[&worker], &settings(&shared)).await;
    set_price(&platform).await;
    let limits = v1::TenantLimits { budget_day: 10_000, budget_month: 100_000, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    let own = v1::KeyLimits { budget_month: 5_000, ..v1::KeyLimits::default() };
    let key = platform.make(&acme, v1::ApiKey { limits: Some(own), ..inference_key() }).await;
    for _ in 0..3 {
        platform.generate(&acme.key, ask("base")).await.expect("answers");
        platform.generate(&key, ask("base")).await.expect("answers");
    }
    platform.usage_of(&acme, 6).await;
    // Ten tokens of the prompt and two of the answer; day and month, of the tenant all six and of the key three.
    let spent = 12 * 2 * (6 + 3);
    budgets_become(&platform, [(spent, spent), (0, 0)]).await;

    let mut connection = redis::Client::open(shared.url.as_str()).and_then(|client| client.get_connection());
    let connection = connection.as_mut().expect("connects");
    let name = format!("{}:{{{}}}:money", shared.prefix, acme.id);
    let counters: Vec<String> = connection.hkeys(&name).expect("lists");
    let month = counters.iter().find(|name| name.starts_with('m') && !name.contains('@')).expect("a month");
    let _: i64 = connection.hincr(&name, month, -5).expect("changes it");
    assert_eq!(budgets(&platform).await, [(spent - 5, spent), (1, 0)]);
    let _: i64 = connection.hincr(&name, month, 5).expect("changes it back");
    assert_eq!(budgets(&platform).await, [(spent, spent), (0, 0)]);
    platform.stop().await;
}

#[tokio::test]
async fn what_a_killed_gateway_had_charged_comes_back_when_its_log_is_taken_up() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Finish]).await;
    let shared = TestRedis::new().await;
    let settings = settings(&shared);
    let platform = Platform::start_with(&[&worker], &settings).await;
    set_price(&platform).await;
    let limits = v1::TenantLimits { budget_day: 100, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", limits).await;
    platform.generate(&acme.key, ask("base")).await.expect("answers");
    platform.usage_of(&acme, 1).await;
    budgets_become(&platform, [(24, 24), (0, 0)]).await;

    // One that has reserved twice, of which one request is on record, and has died.
    let config = platform.config(&settings);
    let dead = gateway::limits::open(&shared.url, &config.limits, &platform.store).expect("a good URL");
    let asked = |input_tokens| Ask {
        id: RequestId::new(Uuid::now_v7()),
        tenant: acme.id,
        key: ApiKeyId::new(Uuid::now_v7()),
        input_tokens,
        output_tokens: 10,
        of_tenant: Rates { budget_day: Some(100), ..Rates::default() },
        of_key: Rates::default(),
        price: Price { input: PRICE, cached_input: PRICE, output: PRICE },
        lease: std::time::Duration::from_millis(300),
        outage: Outage::Closed,
    };
    let (recorded, unrecorded) = (asked(20), asked(40));
    dead.reserve(&unrecorded).await.expect("there is money");
    let at = dead.reserve(&recorded).await.expect("there is money").at_ms;
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(at / 1_000).expect("a time")).expect("a time");
    let hold = Hold {
        tenant: acme.id,
        request: recorded.id,
        api_key: recorded.key,
        model: "base".into(),
        adapter_digest: None,
        base_digest: domain::Digest::new([7; 32]),
        at,
        deadline: at + time::Duration::HOUR,
        price: recorded.price,
        prompt_tokens: 20,
        answer_tokens_max: 10,
        held: 30,
        process: dead.process(),
    };
    let of_dead = Uuid::now_v7();
    platform.store.platform().post(of_dead, &[LedgerEntry::Reserved(hold)]).await.expect("posts");
    let refused = within(platform.generate(&acme.key, ask("base"))).await.err().expect("92 of 100 are charged or held");
    assert!(refused.message.contains("budget_day"), "{refused:?}");

    let log = tempfile::tempdir().expect("a folder");
    std::fs::write(log.path().join("gateway"), format!("{of_dead}\n")).expect("writes");
    std::fs::write(log.path().join("processes"), format!("{}\n", dead.process())).expect("writes");
    let again = platform.beside(&[&worker], &format!("{settings}dir = {:?}\n", log.path())).await;
    // What no worker knows of expires: nothing is charged for it, nor for what was never on record.
    within(async {
        while let Err(refused) = platform.generate(&acme.key, ask("base")).await {
            assert!(refused.message.contains("budget_day"), "{refused:?}");
        }
    })
    .await;
    budgets_become(&platform, [(48, 48), (0, 0)]).await;
    drop(again);
    platform.stop().await;
}
