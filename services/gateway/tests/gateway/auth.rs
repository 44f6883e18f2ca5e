//! Every RPC, as the descriptors list them, with every kind of credentials.

use domain::Reason;
use proto::v1;

use crate::{
    platform::{OPERATOR, Platform, fault},
    raw::{call, methods},
};

#[tokio::test]
async fn every_rpc_without_good_credentials_is_refused_in_the_same_words() {
    let platform = Platform::start(&[]).await;
    platform.tenant("acme", v1::TenantLimits::default()).await;
    let (revoked_name, revoked) = platform.make_key("acme", v1::Role::TenantAdmin).await;
    platform.keys(OPERATOR).revoke_api_key(v1::RevokeApiKeyRequest { name: revoked_name }).await.expect("revokes");
    // Well-formed, and nobody's.
    let unknown = domain::ApiKeyText::from_random(&[7; 52]);
    // A key that is known, with another secret.
    let (_, other) = platform.make_key("acme", v1::Role::TenantAdmin).await;
    let spliced = splice(&other, unknown.reveal());

    assert!(methods().len() > 20);
    for method in methods() {
        let path = &method.0;
        let missing = call(&platform, &method, None, "").await.expect_err(path);
        assert_eq!(missing.reason, Reason::Unauthenticated, "{path}");
        let wrong = ["nonsense", &revoked, unknown.reveal(), &spliced];
        for token in wrong {
            let refused = call(&platform, &method, Some(token), "").await.expect_err(path);
            assert_eq!(refused.reason, Reason::Unauthenticated, "{path}");
            assert_eq!(refused.message, "the credentials are not valid", "{path}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_revoked_or_expired_key_stops_working_within_the_time_to_live_of_the_cache() {
    let platform = Platform::start(&[]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let (name, key) = platform.make_key("acme", v1::Role::TenantAdmin).await;
    let look = || async {
        let request = v1::GetTenantRequest { name: format!("tenants/{}", acme.slug) };
        platform.tenants(&key).get_tenant(request).await
    };
    look().await.expect("a good key");
    platform.keys(OPERATOR).revoke_api_key(v1::RevokeApiKeyRequest { name }).await.expect("revokes");
    let revoked_at = std::time::Instant::now();
    // Under load all the time: use must not keep the key alive.
    while look().await.is_ok() {
        assert!(revoked_at.elapsed() < std::time::Duration::from_millis(1_500), "still accepted");
    }
    assert_eq!(fault(&look().await.expect_err("refused")).reason, Reason::Unauthenticated);
    platform.stop().await;
}

#[tokio::test]
async fn health_and_request_ids_are_there_without_credentials() {
    let platform = Platform::start(&[]).await;
    for address in [platform.gateway.inference_addr, platform.gateway.admin_addr] {
        let mut health = tonic_health::pb::health_client::HealthClient::new(platform.channel(address));
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        health.check(request).await.expect("health is open");
    }
    let answer = platform.tenants(OPERATOR).list_tenants(v1::ListTenantsRequest::default()).await.expect("lists");
    assert!(answer.metadata().get("x-request-id").is_some());
    platform.stop().await;
}

/// The public half of one key with the secret half of another: well-formed, known, and wrong.
fn splice(public: &str, secret: &str) -> String {
    let body = format!("{}{}", &public[..16], &secret[16..secret.len() - 6]);
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = crc32(body.as_bytes());
    let mut checksum = [0; 6];
    for digit in checksum.iter_mut().rev() {
        *digit = digits[(number % 62) as usize];
        number /= 62;
    }
    let key = body + std::str::from_utf8(&checksum).expect("ascii");
    assert!(domain::ApiKeyText::parse(&key).is_ok(), "well-formed");
    key
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
