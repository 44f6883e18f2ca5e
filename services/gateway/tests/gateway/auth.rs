//! Every RPC, as the descriptors list them, with every kind of credentials.

use std::collections::BTreeSet;

use domain::{Fault, Reason};
use gateway::access::RULES;
use prost::Message as _;
use proto::v1;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::platform::{OPERATOR, Platform, fault};

/// Paths of all RPCs of the public and admin services.
fn paths() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
    let ours = set.file.iter().filter(|file| file.package() == "banyan.v1");
    let services = ours.flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            service.method.iter().map(|method| format!("/banyan.v1.{}/{}", service.name(), method.name()))
        })
        .collect()
}

/// Calls an RPC with an empty message; on the wire all kinds of calls begin alike.
async fn call(platform: &Platform, path: &str, token: Option<&str>) -> Result<(), Fault> {
    let public = path.contains("InferenceService");
    let address = if public { platform.gateway.inference_addr } else { platform.gateway.admin_addr };
    let mut client: Grpc<Channel> = Grpc::new(platform.channel(address));
    client.ready().await.expect("connects");
    let mut request = Request::new(());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", chassis::bearer::value(token).expect("a header"));
    }
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = ProstCodec::<(), ()>::default();
    client.unary(request, path, codec).await.map(|_| ()).map_err(|status| fault(&status))
}

#[test]
fn the_table_of_access_has_every_rpc_and_no_other() {
    let ruled: BTreeSet<_> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(ruled, paths().into_iter().collect());
}

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

    assert!(paths().len() > 20);
    for path in paths() {
        let missing = call(&platform, &path, None).await.expect_err(&path);
        assert_eq!(missing.reason, Reason::Unauthenticated, "{path}");
        let wrong = ["nonsense", &revoked, unknown.reveal(), &spliced];
        for token in wrong {
            let refused = call(&platform, &path, Some(token)).await.expect_err(&path);
            assert_eq!(refused.reason, Reason::Unauthenticated, "{path}");
            assert_eq!(refused.message, "the credentials are not valid", "{path}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn roles_reach_what_the_table_says_and_nothing_else() {
    let platform = Platform::start(&[]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    for path in paths() {
        let denied =
            |outcome: Result<(), Fault>| matches!(outcome, Err(Fault { reason: Reason::PermissionDenied, .. }));
        let inference = path.contains("InferenceService");
        let operator_only = path.contains("PlanService")
            || path.contains("TenantService") && !path.ends_with("GetTenant")
            || ["SetPrice", "Reconcile"].iter().any(|method| path.ends_with(method));
        assert_eq!(denied(call(&platform, &path, Some(OPERATOR)).await), inference, "operator on {path}");
        assert_eq!(denied(call(&platform, &path, Some(&acme.key)).await), !inference, "inference key on {path}");
        assert_eq!(denied(call(&platform, &path, Some(&acme.admin)).await), operator_only, "admin key on {path}");
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
