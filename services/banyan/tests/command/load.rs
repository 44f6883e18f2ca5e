//! `banyan load` at a tiny size: the figures mean nothing here, but every request must be answered and counted.

use tests::{postgres::TestDatabase, redis::TestRedis};

use crate::command::run;

#[test]
fn load_measures_each_case_at_each_rate_on_real_servers() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (database, redis) = runtime.block_on(async { (TestDatabase::new().await, TestRedis::new().await) });
    let (postgres, prefix) = (database.owner_url(), format!("limits.redis_prefix={}", redis.prefix));
    let servers = ["load", "--json", "--postgres", &postgres, "--redis", &redis.url, "--set", &prefix];
    let size = ["--rates", "20,40", "--seconds", "1", "--repeats", "1", "--messages", "3"];
    let done = run(&[&servers[..], &size].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let whole = done.json();
    let rows = whole["rows"].as_array().expect("rows");
    let of = |row: &serde_json::Value| (row["case"].as_str().map(str::to_owned), row["rate"].as_u64());
    let cases: Vec<_> = rows.iter().map(of).collect();
    let wanted = [("bare", 20), ("bare", 40), ("local", 20), ("local", 40), ("redis", 20), ("redis", 40)];
    assert_eq!(cases, wanted.map(|(case, rate)| (Some(case.to_owned()), Some(rate))));
    for row in rows {
        assert!(row["answers_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert!(row["added_p99"].is_f64() && row["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{row}");
        assert_eq!(row["overrun"], false);
    }
    assert_eq!(whole["frontier"].as_array().map(Vec::len), Some(9));
}

#[test]
fn what_cannot_be_measured_is_said_at_once() {
    let done = run(&["load", "--cases", "redis"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("--redis"), "{done:?}");
}
