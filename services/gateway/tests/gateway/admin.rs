//! Tenants, keys, aliases: what a change does, and what it needs.

use domain::{Detail, Reason};
use proto::v1;

use crate::{
    fake_worker::FakeWorker,
    platform::{OPERATOR, Platform, fault},
    uploads::{files, make_adapter, upload},
};

#[tokio::test]
async fn an_alias_moves_only_for_who_has_seen_it_and_rolls_back() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    let parent = "tenants/acme/adapters/claims";
    let first = upload(&platform, &acme.admin, parent, "live", files("finance")).await.expect("taken");
    let second = upload(&platform, &acme.admin, parent, "", files("legal")).await.expect("taken");
    let mut admin = platform.adapters(&acme.admin);
    let adapter =
        admin.get_adapter(v1::GetAdapterRequest { name: parent.to_owned() }).await.expect("gets").into_inner();
    let [live] = &adapter.aliases[..] else { panic!("one alias") };
    assert_eq!(live.digest, first.digest);

    let to = |digest: &str, etag: &str| v1::MoveAliasRequest {
        name: live.name.clone(),
        digest: digest.to_owned(),
        etag: etag.to_owned(),
    };
    let moved = admin.move_alias(to(&second.digest, &live.etag)).await.expect("moves").into_inner();
    assert_eq!((&moved.digest, &moved.previous_digest), (&second.digest, &first.digest));
    let stale = fault(&admin.move_alias(to(&first.digest, &live.etag)).await.expect_err("an old etag"));
    assert_eq!(stale.reason, Reason::EtagMismatch);
    let back = v1::RollbackAliasRequest { name: live.name.clone(), etag: moved.etag };
    assert_eq!(admin.rollback_alias(back).await.expect("rolls back").into_inner().digest, first.digest);

    let unknown = format!("sha256:{}", "0a".repeat(32));
    let missing = fault(&admin.move_alias(to(&unknown, "")).await.expect_err("no such version"));
    assert_eq!(missing.message, format!("adapter version `{parent}/versions/{}` was not found", "0a".repeat(32)));
    platform.stop().await;
}

#[tokio::test]
async fn a_tenant_is_changed_by_mask_and_deleted_only_with_force_while_it_has_adapters() {
    let platform = Platform::start(&[]).await;
    let acme = platform.tenant("acme", v1::TenantLimits { adapters_max: 5, ..Default::default() }).await;
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    let mut operator = platform.tenants(OPERATOR);
    let limits = v1::TenantLimits { output_tokens_per_minute: 9, ..Default::default() };
    let tenant = v1::Tenant {
        name: "tenants/acme".into(),
        display_name: "Acme".into(),
        limits: Some(limits),
        ..Default::default()
    };
    let update = |paths: &[&str]| v1::UpdateTenantRequest {
        tenant: Some(tenant.clone()),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    };
    let changed =
        operator.update_tenant(update(&["limits.output_tokens_per_minute"])).await.expect("changes").into_inner();
    let limits = changed.limits.expect("limits");
    assert_eq!((limits.output_tokens_per_minute, limits.adapters_max, changed.display_name.as_str()), (9, 5, ""));
    let wrong = fault(&operator.update_tenant(update(&["create_time", "limits.x"])).await.expect_err("no such fields"));
    assert_eq!(wrong.details.iter().filter(|detail| matches!(detail, Detail::Violation { .. })).count(), 2);

    let delete = |force| v1::DeleteTenantRequest { name: "tenants/acme".into(), force };
    let refused = fault(&operator.delete_tenant(delete(false)).await.expect_err("it has an adapter"));
    assert_eq!(refused.reason, Reason::FailedPrecondition);
    operator.delete_tenant(delete(true)).await.expect("deletes");
    let gone = operator.get_tenant(v1::GetTenantRequest { name: "tenants/acme".into() }).await.expect_err("gone");
    assert_eq!(fault(&gone).reason, Reason::NotFound);
    platform.stop().await;
}

#[tokio::test]
async fn names_are_unique_lists_are_paged_and_wrong_input_is_named_in_full() {
    let platform = Platform::start(&[]).await;
    for slug in ["aa", "bb", "cc"] {
        platform.tenant(slug, v1::TenantLimits::default()).await;
    }
    let mut operator = platform.tenants(OPERATOR);
    let again = v1::CreateTenantRequest { tenant_id: "aa".into(), tenant: None };
    assert_eq!(fault(&operator.create_tenant(again).await.expect_err("taken")).reason, Reason::AlreadyExists);

    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = v1::ListTenantsRequest { page_size: 2, page_token: token };
        let page = operator.list_tenants(page).await.expect("lists").into_inner();
        seen.extend(page.tenants.into_iter().map(|tenant| tenant.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["tenants/aa", "tenants/bb", "tenants/cc"]);

    let wrong = v1::CreateApiKeyRequest {
        parent: "tenants/Not A Tenant".into(),
        api_key: Some(v1::ApiKey {
            display_name: "x".repeat(300),
            expire_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            ..Default::default()
        }),
    };
    let refused = fault(&platform.keys(OPERATOR).create_api_key(wrong).await.expect_err("all wrong"));
    let fields: Vec<_> = refused
        .details
        .iter()
        .filter_map(|detail| match detail {
            Detail::Violation { field, .. } => Some(field.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(fields, ["parent", "api_key.role", "api_key.display_name", "api_key.expire_time"]);
    platform.stop().await;
}
