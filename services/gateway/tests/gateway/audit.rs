//! The audit trail over gRPC: who reads whose, and that changes and refusals of every RPC are in it.

use domain::Reason;
use proto::v1;

use crate::{
    fake_worker::FakeWorker,
    platform::{AUDITOR, OPERATOR, Platform, TestTenant, fault, within},
};

async fn entries(platform: &Platform, token: &str, parent: &str) -> Vec<v1::AuditEntry> {
    let request = v1::ExportAuditEntriesRequest { parent: parent.to_owned(), after_position: 0 };
    let mut stream = platform.audit(token).export_audit_entries(request).await.expect("exports").into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = within(stream.message()).await.expect("exports") {
        entries.push(entry);
    }
    entries
}

async fn verify(platform: &Platform, known: Option<(i64, String)>) -> v1::VerifyAuditEntriesResponse {
    let (known_position, known_hash) = known.unwrap_or_default();
    let request = v1::VerifyAuditEntriesRequest { parent: "tenants/acme".to_owned(), known_position, known_hash };
    platform.audit(OPERATOR).verify_audit_entries(request).await.expect("verifies").into_inner()
}

fn public_id(key: &str) -> &str {
    &key[3..15]
}

async fn tenant(platform: &Platform) -> TestTenant {
    platform.tenant("acme", v1::TenantLimits::default()).await
}

#[tokio::test]
async fn a_change_names_the_key_that_made_it_and_a_refusal_why() {
    let platform = Platform::start_with(&[], "[audit]\nexport_batch = 2\n").await;
    let acme = tenant(&platform).await;
    let adapter =
        v1::CreateAdapterRequest { parent: "tenants/acme".to_owned(), adapter_id: "claims".to_owned(), adapter: None };
    platform.adapters(&acme.admin).create_adapter(adapter.clone()).await.expect("makes");
    let denied = fault(&platform.adapters(&acme.key).create_adapter(adapter.clone()).await.expect_err("denied"));
    assert_eq!(denied.reason, Reason::PermissionDenied);
    platform.adapters(&acme.admin).create_adapter(adapter.clone()).await.expect_err("is there already");
    let foreign = v1::CreateAdapterRequest { parent: "tenants/rival".to_owned(), ..adapter };
    platform.adapters(&acme.admin).create_adapter(foreign).await.expect_err("not found");

    let all = entries(&platform, &acme.admin, "tenants/acme").await;
    let last: Vec<_> = all[all.len() - 4..].iter().collect();
    let path = "/banyan.v1.AdapterService/CreateAdapter";
    assert!(last.iter().all(|entry| entry.method == path && entry.actor == "key" && !entry.request_id.is_empty()));
    let told: Vec<_> = last
        .iter()
        .map(|entry| (entry.actor_id.as_str(), entry.outcome.as_str(), entry.reason.as_str(), entry.resource.as_str()))
        .collect();
    let (admin, key) = (public_id(&acme.admin), public_id(&acme.key));
    assert_eq!(
        told,
        [
            (admin, "done", "", "adapters/claims"),
            (key, "refused", "PERMISSION_DENIED", ""),
            (admin, "refused", "ALREADY_EXISTS", "tenants/acme"),
            (admin, "refused", "NOT_FOUND", "tenants/rival"),
        ]
    );
    // The operator made the tenant and its keys.
    assert!(all[..3].iter().all(|entry| entry.actor == "operator" && entry.outcome == "done"), "{all:?}");
    let platforms = entries(&platform, AUDITOR, "platform").await;
    assert_eq!(platforms.last().map(|entry| entry.resource.as_str()), Some("tenants/acme"));
    let page = v1::ListAuditEntriesRequest { parent: "tenants/acme".to_owned(), page_size: 1, ..Default::default() };
    let newest = platform.audit(&acme.admin).list_audit_entries(page).await.expect("lists").into_inner();
    assert_eq!(newest.entries, [(*last[3]).clone()]);
    platform.stop().await;
}

#[tokio::test]
async fn a_trail_is_verified_from_its_first_entry_and_against_what_was_known() {
    let platform = Platform::start_with(&[], "[audit]\nexport_batch = 2\n").await;
    tenant(&platform).await;
    let checked = verify(&platform, None).await;
    assert_eq!((checked.verified, checked.head_position, checked.broken.as_str()), (3, 3, ""));
    let all = entries(&platform, OPERATOR, "tenants/acme").await;
    assert_eq!(all.last().map(|entry| entry.hash.clone()), Some(checked.head_hash.clone()));
    let second = all[1].hash.clone();
    assert_eq!(verify(&platform, Some((2, second.clone()))).await.broken, "");
    let other = verify(&platform, Some((3, second))).await;
    assert_eq!((other.broken_position, other.verified), (3, 3));
    platform.stop().await;
}

#[tokio::test]
async fn the_platforms_trail_is_for_the_platforms_callers() {
    let platform = Platform::start(&[]).await;
    let acme = tenant(&platform).await;
    let request = v1::ListAuditEntriesRequest { parent: "platform".to_owned(), ..Default::default() };
    for token in [OPERATOR, AUDITOR] {
        platform.audit(token).list_audit_entries(request.clone()).await.expect("lists");
    }
    let refused = platform.audit(&acme.admin).list_audit_entries(request).await.expect_err("refused");
    assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    platform.stop().await;
}

#[tokio::test]
async fn refusals_without_end_are_counted_and_no_longer_recorded() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start_with(&[&worker], "[audit]\nrefusals_per_minute = 2\n").await;
    let acme = tenant(&platform).await;
    for _ in 0..5 {
        let request = v1::DeleteAdapterRequest { name: "tenants/acme/adapters/nothing".to_owned() };
        platform.adapters(&acme.admin).delete_adapter(request).await.expect_err("there is none");
    }
    let all = entries(&platform, &acme.admin, "tenants/acme").await;
    assert_eq!(all.iter().filter(|entry| entry.outcome == "refused").count(), 2);
    platform.stop().await;
}
