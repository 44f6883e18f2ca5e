//! Uploads of the adapters that ship, and of what must never be served.

use std::{fs, path::Path};

use domain::{Detail, Fault, Reason};
use proto::v1::{
    self, UploadAdapterVersionRequest as Message, UploadChunk, UploadStart,
    upload_adapter_version_request::Message as Kind,
};

use crate::{
    fake_worker::{Act, FakeWorker, base},
    platform::{OPERATOR, Platform, TestTenant, ask, fault, within},
};

pub const CONFIG: &str = "adapter_config.json";
pub const WEIGHTS: &str = "adapter_model.safetensors";

pub fn shipped(industry: &str, file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/industries").join(industry);
    fs::read(folder.join(file)).expect("the adapter ships")
}

pub fn files(industry: &str) -> Vec<(String, Vec<u8>)> {
    [CONFIG, WEIGHTS].map(|file| (file.to_owned(), shipped(industry, file))).into()
}

pub async fn make_adapter(platform: &Platform, token: &str, tenant: &str, adapter: &str) {
    let request =
        v1::CreateAdapterRequest { parent: format!("tenants/{tenant}"), adapter_id: adapter.to_owned(), adapter: None };
    platform.adapters(token).create_adapter(request).await.expect("makes an adapter");
}

pub async fn upload(
    platform: &Platform,
    token: &str,
    parent: &str,
    alias: &str,
    files: Vec<(String, Vec<u8>)>,
) -> Result<v1::AdapterVersion, Fault> {
    let start = UploadStart { parent: parent.to_owned(), alias: alias.to_owned() };
    let mut messages = vec![Message { message: Some(Kind::Start(start)) }];
    for (file, bytes) in files {
        messages.extend(bytes.chunks(1 << 20).map(|data| {
            let chunk = UploadChunk { file: file.clone(), data: data.to_vec() };
            Message { message: Some(Kind::Chunk(chunk)) }
        }));
    }
    let messages = tokio_stream::iter(messages);
    let uploaded = within(platform.adapters(token).upload_adapter_version(messages)).await;
    uploaded.map(tonic::Response::into_inner).map_err(|status| fault(&status))
}

async fn with_tenant(worker: &FakeWorker, limits: v1::TenantLimits) -> (Platform, TestTenant) {
    let platform = Platform::start(&[worker]).await;
    let acme = platform.tenant("acme", limits).await;
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    (platform, acme)
}

const CLAIMS: &str = "tenants/acme/adapters/claims";

#[tokio::test]
async fn an_uploaded_version_has_its_receipt_and_is_what_the_worker_is_asked_for() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let (platform, acme) = with_tenant(&worker, v1::TenantLimits::default()).await;
    let version = upload(&platform, &acme.admin, CLAIMS, "live", files("finance")).await.expect("taken");

    assert_eq!(version.base_digest, base().digest);
    let receipt = version.receipt.clone().expect("a receipt");
    assert_eq!(receipt.probe_max_delta, Some(0.5));
    assert!(receipt.parameters > 0 && !receipt.modules.is_empty() && receipt.modules[0].delta_norm > 0.0);

    let answer = platform.generate(&acme.key, ask("acme/claims")).await.expect("answers");
    assert_eq!(answer.finish.receipt.expect("a receipt").adapter_digest, version.digest);
    let pin = worker.requests()[0].adapter.clone().expect("a pin");
    assert_eq!((pin.digest, pin.tenant_id), (version.digest.clone(), acme.id.to_string()));
    assert_eq!(
        platform.usage_of(&acme, 1).await[0].adapter_digest.map(|digest| digest.to_string()),
        Some(version.digest.clone())
    );

    // Again is the same version; lists leave the modules out, one version has them.
    let again = upload(&platform, &acme.admin, CLAIMS, "", files("finance")).await.expect("taken again");
    assert_eq!((&again.name, &again.create_time), (&version.name, &version.create_time));
    let list = v1::ListAdapterVersionsRequest { parent: CLAIMS.to_owned(), ..Default::default() };
    let listed = platform.adapters(&acme.admin).list_adapter_versions(list).await.expect("lists").into_inner().versions;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].receipt.as_ref().is_some_and(|receipt| receipt.modules.is_empty() && receipt.parameters > 0));
    let one = v1::GetAdapterVersionRequest { name: version.name.clone() };
    assert_eq!(platform.adapters(OPERATOR).get_adapter_version(one).await.expect("gets").into_inner(), version);
    platform.stop().await;
}

#[tokio::test]
async fn a_refused_upload_lists_its_codes_and_leaves_nothing_behind() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let (platform, acme) = with_tenant(&worker, v1::TenantLimits::default()).await;
    let mut config: serde_json::Value = serde_json::from_slice(&shipped("finance", CONFIG)).expect("JSON");
    config["r"] = 3.into();
    config["peft_type"] = "IA3".into();
    let changed = vec![(CONFIG.to_owned(), config.to_string().into_bytes()), files("finance").remove(1)];
    let mut torn = files("finance");
    torn[1].1.truncate(1_000);
    for (files, code) in [
        (changed, "E_PEFT_TYPE"),
        (torn, "E_CONTAINER"),
        (vec![(CONFIG.to_owned(), shipped("finance", CONFIG))], "E_FILES"),
        (vec![("adapter_model.bin".to_owned(), vec![0; 10])], "E_PICKLE"),
        (Vec::new(), "E_FILES"),
    ] {
        let refused = upload(&platform, &acme.admin, CLAIMS, "live", files).await.expect_err(code);
        assert_eq!(refused.reason, Reason::AdapterRefused, "{code}: {refused}");
        let has_code = |detail: &Detail| matches!(detail, Detail::Violation { reason, .. } if reason == code);
        assert!(refused.details.iter().any(has_code), "{code}: {refused:?}");
    }
    let adapter = v1::GetAdapterRequest { name: CLAIMS.to_owned() };
    assert!(platform.adapters(&acme.admin).get_adapter(adapter).await.expect("gets").into_inner().aliases.is_empty());
    assert!(platform.registry.list_versions(acme.id.uuid()).await.expect("lists").is_empty());
    platform.stop().await;
}

#[tokio::test]
async fn a_version_that_no_worker_can_load_is_not_published() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let (platform, acme) = with_tenant(&worker, v1::TenantLimits::default()).await;
    worker.will_not_load();
    let refused = upload(&platform, &acme.admin, CLAIMS, "live", files("legal")).await.expect_err("refused");
    assert_eq!(refused.reason, Reason::AdapterLoad);
    let refused = platform.generate(&acme.key, ask("acme/claims")).await.err().expect("no version");
    assert_eq!(refused.reason, Reason::NotFound);
    platform.stop().await;
}

#[tokio::test]
async fn quotas_hold_before_the_bytes_are_in() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let limits = v1::TenantLimits { adapter_bytes_max: 100_000, adapters_max: 1, ..v1::TenantLimits::default() };
    let (platform, acme) = with_tenant(&worker, limits).await;
    let refused = upload(&platform, &acme.admin, CLAIMS, "", files("finance")).await.expect_err("too many bytes");
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    let request =
        v1::CreateAdapterRequest { parent: "tenants/acme".into(), adapter_id: "second".into(), adapter: None };
    let refused = platform.adapters(&acme.admin).create_adapter(request).await.expect_err("one adapter at most");
    assert_eq!(fault(&refused).reason, Reason::QuotaExceeded);

    let low = platform.tenant("low", v1::TenantLimits { adapter_rank_max: 1, ..Default::default() }).await;
    make_adapter(&platform, &low.admin, "low", "claims").await;
    let refused = upload(&platform, &low.admin, "tenants/low/adapters/claims", "", files("finance")).await;
    let refused = refused.expect_err("the rank is above the tenant's");
    assert!(format!("{:?}", refused.details).contains("E_QUOTA"), "{refused:?}");
    platform.stop().await;
}

#[tokio::test]
async fn what_is_deleted_leaves_the_registry_and_can_be_pushed_again_at_once() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let (platform, acme) = with_tenant(&worker, v1::TenantLimits::default()).await;
    let first = upload(&platform, &acme.admin, CLAIMS, "live", files("finance")).await.expect("taken");
    let mut admin = platform.adapters(&acme.admin);

    let pinned = v1::DeleteAdapterVersionRequest { name: first.name.clone() };
    let refused = fault(&admin.delete_adapter_version(pinned).await.expect_err("an alias points at it"));
    assert_eq!(refused.reason, Reason::FailedPrecondition);

    admin.delete_adapter(v1::DeleteAdapterRequest { name: CLAIMS.to_owned() }).await.expect("deletes");
    assert_eq!(platform.generate(&acme.key, ask("acme/claims")).await.err().expect("gone").reason, Reason::NotFound);
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    let again = upload(&platform, &acme.admin, CLAIMS, "live", files("finance")).await.expect("taken again");
    assert_eq!(again.digest, first.digest);
    platform.generate(&acme.key, ask("acme/claims")).await.expect("answers");

    admin.delete_adapter(v1::DeleteAdapterRequest { name: CLAIMS.to_owned() }).await.expect("deletes");
    within(async {
        while !platform.registry.list_versions(acme.id.uuid()).await.expect("lists").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn an_upload_that_does_not_begin_with_its_start_is_refused() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let (platform, acme) = with_tenant(&worker, v1::TenantLimits::default()).await;
    let chunk = UploadChunk { file: CONFIG.to_owned(), data: Vec::new() };
    let messages = tokio_stream::iter([Message { message: Some(Kind::Chunk(chunk)) }]);
    let refused = platform.adapters(&acme.admin).upload_adapter_version(messages).await.expect_err("no start");
    assert_eq!(fault(&refused).reason, Reason::InvalidRequest);
    platform.stop().await;
}
