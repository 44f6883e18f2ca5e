//! A key that is revoked stops everywhere, in the time that is promised, whether or not anybody is told.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use domain::Reason;
use proto::v1;
use tests::{
    postgres::{PostgresServer, TestDatabase},
    redis::TestRedis,
};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{OPERATOR, Platform, ask, fault, inference_key, within},
};

/// What is promised.
const BOUND: Duration = Duration::from_secs(1);

async fn revoke(platform: &Platform, name: &str) -> Instant {
    let request = v1::RevokeApiKeyRequest { name: name.to_owned() };
    platform.keys(OPERATOR).revoke_api_key(request).await.expect("revokes");
    Instant::now()
}

async fn counts(platform: &Platform, address: SocketAddr, key: &str) -> Result<(), domain::Fault> {
    let input = Some(v1::count_tokens_request::Input::Prompt("a".to_owned()));
    let request = v1::CountTokensRequest { model: "base".to_owned(), input };
    let counted = platform.inference_at(address, key).count_tokens(request).await;
    counted.map(|_| ()).map_err(|status| fault(&status))
}

/// Uses the key without a pause until it is refused. The start of the last use that was not.
async fn last_use(platform: &Platform, address: SocketAddr, key: &str) -> Instant {
    let mut last = Instant::now();
    loop {
        let start = Instant::now();
        match counts(platform, address, key).await {
            Ok(()) => last = start,
            Err(refused) => {
                assert_eq!(refused.reason, Reason::Unauthenticated, "{refused:?}");
                return last;
            }
        }
    }
}

/// How long a key in use on two gateways is taken after its revocation on the first.
async fn time_to_refusal(settings: &str) -> [Duration; 2] {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start_with(&[&worker], settings).await;
    platform.tenant("acme", v1::TenantLimits::default()).await;
    let (name, key) = platform.make_key("acme", v1::Role::Inference).await;
    let other = platform.beside(&[&worker], settings).await;
    let addresses = [platform.gateway.inference_addr, other.inference_addr];
    for address in addresses {
        counts(&platform, address, &key).await.expect("a good key");
    }
    let revoking = async {
        // Both have used it for longer than an answer about it counts.
        tokio::time::sleep(BOUND + BOUND / 2).await;
        revoke(&platform, &name).await
    };
    let using =
        async { tokio::join!(last_use(&platform, addresses[0], &key), last_use(&platform, addresses[1], &key)) };
    let (revoked_at, (here, there)) = within(async { tokio::join!(revoking, using) }).await;
    let times = [here, there].map(|last| last.saturating_duration_since(revoked_at));
    platform.stop().await;
    within(other.join()).await.expect("ends well");
    times
}

#[tokio::test]
async fn a_revoked_key_is_refused_on_every_gateway_within_a_second_by_the_feed() {
    let times = time_to_refusal("").await;
    eprintln!("last use after the revocation, read from the feed: {times:?}");
    assert!(times.iter().all(|time| *time < BOUND), "{times:?}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_a_second_when_nobody_is_told_of_it() {
    // The feed is not read, and there is no Redis to wake anybody.
    let times = time_to_refusal("[changes]\npoll_ms = 600000\n").await;
    eprintln!("last use after the revocation, without being told: {times:?}");
    assert!(times.iter().all(|time| *time < BOUND), "{times:?}");
}

#[tokio::test]
async fn a_revocation_is_pushed_to_every_gateway_over_redis() {
    let redis = TestRedis::new().await;
    // By themselves they would look after ten minutes.
    let settings = format!(
        "redis = {:?}\n[limits]\nredis_prefix = {:?}\n[changes]\npoll_ms = 600000\n\
         [auth]\ncache_ttl_ms = 600000\nrefresh_ms = 500000\n",
        redis.url, redis.prefix
    );
    let times = time_to_refusal(&settings).await;
    eprintln!("last use after the revocation, pushed: {times:?}");
    assert!(times.iter().all(|time| *time < BOUND), "{times:?}");
}

#[tokio::test]
async fn a_running_answer_of_a_revoked_key_ends_and_says_why() {
    let mut worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let (name, key) = platform.make_key("acme", v1::Role::Inference).await;
    let mut running = platform.inference(&key).generate(ask("base")).await.expect("begins").into_inner();
    let mut others = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    for stream in [&mut running, &mut others] {
        assert_eq!(within(stream.message()).await.expect("a step").expect("not the end").text, "a");
    }
    let revoked_at = revoke(&platform, &name).await;
    let ended = fault(&within(running.message()).await.expect_err("ends"));
    assert_eq!(ended.reason, Reason::Unauthenticated);
    assert!(ended.message.contains("revoked"), "{}", ended.message);
    assert!(revoked_at.elapsed() < BOUND, "{:?}", revoked_at.elapsed());
    worker.dropped(1).await;
    // What it had is recorded, and nobody else's answer has ended.
    assert_eq!(platform.usage_of(&acme, 1).await[0].completion_tokens, 1);
    worker.will(vec![Act::Say("b"), Act::Finish]);
    platform.generate(&acme.key, ask("base")).await.expect("another key of the tenant");
    drop(others);
    platform.stop().await;
}

#[tokio::test]
async fn keys_are_refused_after_a_second_without_the_database_unless_the_settings_say_otherwise() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.expect("starts");
    let worker = FakeWorker::start("one", Vec::new()).await;
    let database = TestDatabase::on(&server.url()).await;
    let platform = Platform::start_on(database, &[&worker], "").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let other = platform.beside(&[&worker], "[auth]\nstale_max_ms = 600000\n").await;
    let (strict, lenient) = (platform.gateway.inference_addr, other.inference_addr);
    for address in [strict, lenient] {
        counts(&platform, address, &acme.key).await.expect("a good key");
    }
    server.crash();
    let crashed_at = Instant::now();
    let refused = loop {
        counts(&platform, lenient, &acme.key).await.expect("goes on");
        if let Err(refused) = counts(&platform, strict, &acme.key).await {
            break refused;
        }
        assert!(crashed_at.elapsed() < Duration::from_secs(30), "still accepted");
    };
    assert_eq!(refused.reason, Reason::BackendUnavailable);
    assert!(refused.retry_hint().is_some());
    counts(&platform, lenient, &acme.key).await.expect("goes on");
    // A key that nobody has asked for before is not known there either.
    let unknown = domain::ApiKeyText::from_random(&[7; 52]);
    let refused = counts(&platform, lenient, unknown.reveal()).await.expect_err("not known");
    assert_eq!(refused.reason, Reason::BackendUnavailable);
    let server = tokio::task::spawn_blocking(move || {
        server.resume();
        server
    });
    let server = server.await.expect("resumes");
    within(async { while counts(&platform, strict, &acme.key).await.is_err() {} }).await;
    platform.stop().await;
    within(other.join()).await.expect("ends well");
    drop(server);
}

#[tokio::test]
async fn both_secrets_of_a_rotated_key_are_good_until_the_overlap_ends() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let address = platform.gateway.inference_addr;
    let (name, old) = platform.make_key("acme", v1::Role::Inference).await;
    counts(&platform, address, &old).await.expect("a good key");
    let rotate = |overlap_s: i64| {
        let overlap = Some(prost_types::Duration { seconds: overlap_s, nanos: 0 });
        let request = v1::RotateApiKeyRequest { name: name.clone(), overlap, etag: String::new() };
        let mut keys = platform.keys(&acme.admin);
        async move { keys.rotate_api_key(request).await.map(|rotated| rotated.into_inner().key) }
    };
    let new = rotate(2).await.expect("rotates");
    let rotated_at = Instant::now();
    assert_eq!(new[..16], old[..16], "the same public id");
    // As soon as the gateway has heard of it.
    within(async { while counts(&platform, address, &new).await.is_err() {} }).await;
    assert!(rotated_at.elapsed() < Duration::from_secs(1), "{:?}", rotated_at.elapsed());
    counts(&platform, address, &old).await.expect("the old one still");
    within(async { while counts(&platform, address, &old).await.is_ok() {} }).await;
    let lasted = rotated_at.elapsed();
    assert!(lasted < Duration::from_secs(4), "{lasted:?}");
    counts(&platform, address, &new).await.expect("the new secret");
    // Without an overlap the secret ends at once; more than 30 days is refused.
    let newest = rotate(0).await.expect("rotates");
    within(async { while counts(&platform, address, &new).await.is_ok() {} }).await;
    within(async { while counts(&platform, address, &newest).await.is_err() {} }).await;
    assert_eq!(fault(&rotate(31 * 86_400).await.expect_err("too long")).reason, Reason::InvalidRequest);
    assert_eq!(fault(&rotate(-1).await.expect_err("negative")).reason, Reason::InvalidRequest);
    platform.stop().await;
}

#[tokio::test]
async fn a_key_is_changed_where_it_is_named_and_only_from_where_it_was_seen() {
    let platform = Platform::start(&[]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut keys = platform.keys(&acme.admin);
    let parent = "tenants/acme".to_owned();
    let api_key = Some(v1::ApiKey { models: vec!["base".to_owned()], ..inference_key() });
    let made = keys.create_api_key(v1::CreateApiKeyRequest { parent, api_key }).await.expect("makes");
    let made = made.into_inner().api_key.expect("a key");
    let update = |paths: &[&str], key: v1::ApiKey| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let mut keys = platform.keys(&acme.admin);
        async move { keys.update_api_key(v1::UpdateApiKeyRequest { api_key: Some(key), update_mask }).await }
    };
    let limits = Some(v1::KeyLimits { requests_per_minute: 7, ..v1::KeyLimits::default() });
    let expire_time = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    let from = v1::ApiKey { display_name: "Ann".to_owned(), limits, expire_time, models: Vec::new(), ..made.clone() };
    let updated = update(&["display_name", "limits", "expire_time"], from.clone()).await.expect("updates").into_inner();
    assert_eq!((updated.display_name.as_str(), updated.limits, updated.expire_time), ("Ann", limits, expire_time));
    assert_eq!(updated.models, ["base"], "was not named");
    let stale = fault(&update(&["models"], from.clone()).await.expect_err("an etag of before"));
    assert_eq!(stale.reason, Reason::EtagMismatch);
    let fresh = v1::ApiKey { etag: updated.etag, ..from };
    assert!(update(&["models"], fresh.clone()).await.expect("updates").into_inner().models.is_empty());
    for paths in [&["role"][..], &["name"], &[]] {
        let refused = fault(&update(paths, fresh.clone()).await.expect_err("not to be changed"));
        assert_eq!(refused.reason, Reason::InvalidRequest, "{paths:?}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn when_a_key_was_last_used_is_told_a_little_later() {
    let platform = Platform::start_with(&[], "[auth]\nuses_ms = 50\nrefresh_ms = 20\n").await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let name = format!("tenants/acme/apiKeys/{}", &acme.admin[3..15]);
    let used = within(async {
        loop {
            let found = platform.keys(&acme.admin).get_api_key(v1::GetApiKeyRequest { name: name.clone() }).await;
            if let Some(used) = found.expect("gets").into_inner().last_use_time {
                return used;
            }
        }
    });
    let (used, now) = (used.await.seconds, time::OffsetDateTime::now_utc().unix_timestamp());
    assert!((0..60).contains(&(now - used)), "{used} is about {now}");
    let unused = v1::GetApiKeyRequest { name: format!("tenants/acme/apiKeys/{}", &acme.key[3..15]) };
    assert_eq!(platform.keys(&acme.admin).get_api_key(unused).await.expect("gets").into_inner().last_use_time, None);
    platform.stop().await;
}
