//! A tenant can neither use nor see what is another's, and cannot tell it from what does not exist.

use domain::{Fault, Reason};
use proto::v1;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Platform, ask, fault},
    uploads::{files, make_adapter, upload},
};

/// Every admin call about something of a tenant, with `tenant`, `adapter` and `key` put into its names.
async fn calls(platform: &Platform, token: &str, tenant: &str, adapter: &str, key: &str) -> Vec<(&'static str, Fault)> {
    let (mut adapters, mut keys) = (platform.adapters(token), platform.keys(token));
    let mut tenants = platform.tenants(token);
    let parent = format!("tenants/{tenant}");
    let adapter = format!("{parent}/adapters/{adapter}");
    let version = format!("{adapter}/versions/{}", "0a".repeat(32));
    let alias = format!("{adapter}/aliases/live");
    let digest = format!("sha256:{}", "0a".repeat(32));
    let key = format!("{parent}/apiKeys/{key}");
    let mut refused = Vec::new();
    macro_rules! refused {
        ($($client:ident.$method:ident($request:expr)),+ $(,)?) => {
            $({
                let outcome = $client.$method($request).await;
                refused.push((stringify!($method), fault(&outcome.map(|_| ()).expect_err(stringify!($method)))));
            })+
        };
    }
    refused!(
        tenants.get_tenant(v1::GetTenantRequest { name: parent.clone() }),
        keys.get_api_key(v1::GetApiKeyRequest { name: key.clone() }),
        keys.revoke_api_key(v1::RevokeApiKeyRequest { name: key.clone() }),
        keys.list_api_keys(v1::ListApiKeysRequest { parent: parent.clone(), ..Default::default() }),
        keys.create_api_key(v1::CreateApiKeyRequest {
            parent: parent.clone(),
            api_key: Some(v1::ApiKey { role: v1::Role::TenantAdmin.into(), ..Default::default() }),
        }),
        adapters.create_adapter(v1::CreateAdapterRequest {
            parent: parent.clone(),
            adapter_id: "fresh".into(),
            adapter: None,
        }),
        adapters.get_adapter(v1::GetAdapterRequest { name: adapter.clone() }),
        adapters.list_adapters(v1::ListAdaptersRequest { parent: parent.clone(), ..Default::default() }),
        adapters.delete_adapter(v1::DeleteAdapterRequest { name: adapter.clone() }),
        adapters.get_adapter_version(v1::GetAdapterVersionRequest { name: version.clone() }),
        adapters
            .list_adapter_versions(v1::ListAdapterVersionsRequest { parent: adapter.clone(), ..Default::default() }),
        adapters.delete_adapter_version(v1::DeleteAdapterVersionRequest { name: version.clone() }),
        adapters.move_alias(v1::MoveAliasRequest { name: alias.clone(), digest: digest.clone(), ..Default::default() }),
        adapters.rollback_alias(v1::RollbackAliasRequest { name: alias.clone(), ..Default::default() }),
        adapters.delete_alias(v1::DeleteAliasRequest { name: alias.clone() }),
    );
    let uploaded = upload(platform, token, &adapter, "", files("finance")).await;
    refused.push(("upload_adapter_version", uploaded.expect_err("upload")));
    refused
}

/// A fault without the names that the caller itself sent.
fn words(fault: &Fault, sent: &[(&str, &str)]) -> String {
    let mut words = format!("{fault:?}");
    for (sent, instead) in sent {
        words = words.replace(sent, instead);
    }
    words
}

#[tokio::test]
async fn what_is_anothers_and_what_does_not_exist_are_the_same_to_an_administrator() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    upload(&platform, &acme.admin, "tenants/acme/adapters/claims", "live", files("finance")).await.expect("taken");
    let acmes_key = acme.key[3..15].to_owned();

    let theirs = calls(&platform, &rival.admin, "acme", "claims", &acmes_key).await;
    let nothing = calls(&platform, &rival.admin, "nobody", "nothing", "aaaaaaaaaaaa").await;
    assert_eq!(theirs.len(), 16);
    for ((call, theirs), (_, nothing)) in theirs.iter().zip(&nothing) {
        assert_eq!(theirs.reason, Reason::NotFound, "{call}");
        let theirs = words(theirs, &[("acme", "T"), ("claims", "A"), (&acmes_key, "K")]);
        let nothing = words(nothing, &[("nobody", "T"), ("nothing", "A"), ("aaaaaaaaaaaa", "K")]);
        assert_eq!(theirs, nothing, "{call}");
    }
    // And like what it lacks in its own house, where a thing can be lacking there.
    let own = calls_about_missing(&platform, &rival.admin).await;
    for (call, own) in &own {
        let theirs = &theirs.iter().find(|(other, _)| other == call).expect("the same call").1;
        let theirs = words(theirs, &[("acme", "T"), ("claims", "A"), (&acmes_key, "K")]);
        assert_eq!(words(own, &[("rival", "T"), ("nothing", "A"), ("aaaaaaaaaaaa", "K")]), theirs, "{call}");
    }
    // Nothing has changed.
    platform.inference(&acme.key).get_model(v1::GetModelRequest { name: "acme/claims".into() }).await.expect("there");
    platform.stop().await;
}

async fn calls_about_missing(platform: &Platform, token: &str) -> Vec<(&'static str, Fault)> {
    let (mut adapters, mut keys) = (platform.adapters(token), platform.keys(token));
    let adapter = "tenants/rival/adapters/nothing".to_owned();
    let version = format!("{adapter}/versions/{}", "0a".repeat(32));
    let key = "tenants/rival/apiKeys/aaaaaaaaaaaa".to_owned();
    let get_adapter = adapters.get_adapter(v1::GetAdapterRequest { name: adapter }).await.expect_err("missing");
    let version = v1::GetAdapterVersionRequest { name: version };
    let get_version = adapters.get_adapter_version(version).await.expect_err("missing");
    let get_key = keys.get_api_key(v1::GetApiKeyRequest { name: key }).await.expect_err("missing");
    vec![
        ("get_adapter", fault(&get_adapter)),
        ("get_adapter_version", fault(&get_version)),
        ("get_api_key", fault(&get_key)),
    ]
}

#[tokio::test]
async fn anothers_model_cannot_be_used_seen_or_told_from_one_that_does_not_exist() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    make_adapter(&platform, &acme.admin, "acme", "claims").await;
    let parent = "tenants/acme/adapters/claims";
    let version = upload(&platform, &acme.admin, parent, "live", files("finance")).await.expect("taken");

    let by_digest = format!("acme/claims@{}", version.digest);
    let theirs = ["acme/claims", "acme/claims@live", &by_digest];
    let nothing = format!("rival/claims@{}", version.digest);
    for name in theirs.into_iter().chain(["rival/claims", "nobody/claims", &nothing]) {
        let used = platform.generate(&rival.key, ask(name)).await.err().expect(name);
        let mut client = platform.inference(&rival.key);
        let seen = fault(&client.get_model(v1::GetModelRequest { name: name.to_owned() }).await.expect_err(name));
        let input = Some(v1::count_tokens_request::Input::Prompt("a".into()));
        let counted = client.count_tokens(v1::CountTokensRequest { model: name.to_owned(), input }).await;
        let canonical = name.trim_end_matches("@live");
        for refused in [used, seen, fault(&counted.expect_err(name))] {
            assert_eq!(refused, Fault::not_found("model", canonical), "{name}");
        }
    }
    let listed = platform.inference(&rival.key).list_models(v1::ListModelsRequest::default()).await.expect("lists");
    assert_eq!(listed.into_inner().models.len(), 1, "the base alone");
    assert!(worker.requests().is_empty() && platform.usage(&rival).await.is_empty());
    platform.stop().await;
}
