//! One tenant can neither use nor see what is another's, and cannot tell it from what does not exist.

use proto::v1::{
    self, adapter_service_client::AdapterServiceClient, api_key_service_client::ApiKeyServiceClient,
    tenant_service_client::TenantServiceClient,
};
use tonic::{Code, Status};

use crate::platform::{Platform, Settings, ask, generate, generous, with_token};

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_models_keys_and_adapters_look_like_nothing_at_all() {
    let platform = Platform::start(Settings::default()).await;
    let key_a = platform.acme_with_industries().await;
    let key_b = platform.tenant("rival", generous()).await;
    let admin_b = platform.key("rival", v1::Role::TenantAdmin).await;
    let mut client = platform.inference().await;
    let digest = {
        let answer = generate(&mut client, &key_a, ask("acme/finance", "E-17?", 4)).await.expect("own model");
        answer.finish.receipt.expect("receipt").adapter_digest
    };

    // Theirs and nobody's, side by side: the same code and, names apart, the same words.
    let pairs = [
        ("acme/finance".to_owned(), "acme/nothing".to_owned()),
        ("acme/finance@live".to_owned(), "nobody/finance@live".to_owned()),
        (format!("acme/finance@{digest}"), format!("nobody/finance@{digest}")),
        (format!("rival/finance@{digest}"), format!("rival/nothing@{digest}")),
    ];
    for (theirs, nobodys) in pairs {
        let theirs_said = generate(&mut client, &key_b, ask(&theirs, "E-17?", 4)).await.expect_err("not theirs");
        let nobodys_said = generate(&mut client, &key_b, ask(&nobodys, "E-17?", 4)).await.expect_err("not there");
        assert_alike(&theirs_said, &theirs, &nobodys_said, &nobodys);
        let get = |name: &String| with_token(v1::GetModelRequest { name: name.clone() }, &key_b);
        let theirs_said = client.get_model(get(&theirs)).await.expect_err("not theirs");
        let nobodys_said = client.get_model(get(&nobodys)).await.expect_err("not there");
        assert_alike(&theirs_said, &theirs, &nobodys_said, &nobodys);
    }
    let listed = client.list_models(with_token(v1::ListModelsRequest::default(), &key_b)).await.expect("list");
    let names: Vec<_> = listed.into_inner().models.into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["base"]);

    let mut adapters = AdapterServiceClient::new(platform.admin_channel().await);
    let mut keys = ApiKeyServiceClient::new(platform.admin_channel().await);
    let mut tenants = TenantServiceClient::new(platform.admin_channel().await);
    let (theirs, nobodys) = ("tenants/acme/adapters/finance", "tenants/acme/adapters/nothing");
    let get = |name: &str| with_token(v1::GetAdapterRequest { name: name.to_owned() }, &admin_b);
    let theirs_said = adapters.get_adapter(get(theirs)).await.expect_err("not theirs");
    assert_alike(&theirs_said, theirs, &adapters.get_adapter(get(nobodys)).await.expect_err("not there"), nobodys);
    let delete = |name: &str| with_token(v1::DeleteAdapterRequest { name: name.to_owned() }, &admin_b);
    let theirs_said = adapters.delete_adapter(delete(theirs)).await.expect_err("not theirs");
    assert_alike(&theirs_said, theirs, &adapters.delete_adapter(delete(nobodys)).await.expect_err("none"), nobodys);
    for parent in ["tenants/acme", "tenants/nobody"] {
        let request = v1::ListAdaptersRequest { parent: parent.to_owned(), ..Default::default() };
        assert_eq!(
            adapters.list_adapters(with_token(request, &admin_b)).await.expect_err(parent).code(),
            Code::NotFound
        );
        let request = v1::ListApiKeysRequest { parent: parent.to_owned(), ..Default::default() };
        assert_eq!(keys.list_api_keys(with_token(request, &admin_b)).await.expect_err(parent).code(), Code::NotFound);
        let request = v1::GetTenantRequest { name: parent.to_owned() };
        assert_eq!(tenants.get_tenant(with_token(request, &admin_b)).await.expect_err(parent).code(), Code::NotFound);
    }

    // And acme still has everything.
    generate(&mut client, &key_a, ask("acme/finance", "E-17?", 4)).await.expect("untouched");
    platform.stop().await;
}

/// The same refusal, once each one's own name is taken out of it.
fn assert_alike(theirs: &Status, their_name: &str, nobodys: &Status, nobodys_name: &str) {
    assert_eq!(theirs.code(), Code::NotFound, "{theirs:?}");
    assert_eq!(nobodys.code(), Code::NotFound, "{nobodys:?}");
    // A refusal names the model in its shortest form.
    let words = |status: &Status, name: &str| status.message().replace(name.trim_end_matches("@live"), "…");
    assert_eq!(words(theirs, their_name), words(nobodys, nobodys_name));
}
