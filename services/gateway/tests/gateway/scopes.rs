//! What a key may be used for, beside its role: models and methods.

use domain::Reason;
use proto::v1;

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{OPERATOR, Platform, ask, fault, inference_key},
};

#[tokio::test]
async fn a_key_uses_and_sees_the_models_of_its_scope_alone() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let key = |models: &[&str]| {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        platform.make(&acme, v1::ApiKey { models, ..inference_key() })
    };
    let (base, claims) = (key(&["base"]).await, key(&["acme/claims"]).await);
    platform.generate(&base, ask("base")).await.expect("in its scope");
    let refused = platform.generate(&claims, ask("base")).await.err().expect("not in its scope");
    assert_eq!(refused.reason, Reason::PermissionDenied);
    assert!(refused.message.contains("acme/claims"), "{}", refused.message);
    // Every version and alias of the adapter is in its scope; that there is none is another matter.
    for name in ["acme/claims", "acme/claims@next"] {
        assert_eq!(platform.generate(&claims, ask(name)).await.err().expect("none").reason, Reason::NotFound);
    }
    let listed = |key: String| {
        let mut client = platform.inference(&key);
        async move {
            let models = client.list_models(v1::ListModelsRequest::default()).await.expect("lists").into_inner().models;
            models.into_iter().map(|model| model.name).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed(base).await, ["base"]);
    assert!(listed(claims).await.is_empty());
    platform.stop().await;
}

#[tokio::test]
async fn a_key_calls_the_methods_of_its_scope_alone() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let key = platform.make(&acme, v1::ApiKey { methods: vec!["Generate".into()], ..inference_key() }).await;
    platform.generate(&key, ask("base")).await.expect("in its scope");
    let refused = platform.inference(&key).list_models(v1::ListModelsRequest::default()).await.expect_err("not in it");
    assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    platform.stop().await;
}

#[tokio::test]
async fn a_scope_that_means_nothing_is_refused() {
    let platform = Platform::start(&[]).await;
    platform.tenant("acme", v1::TenantLimits::default()).await;
    let create = |api_key| async {
        let request = v1::CreateApiKeyRequest { parent: "tenants/acme".into(), api_key: Some(api_key) };
        fault(&platform.keys(OPERATOR).create_api_key(request).await.expect_err("refused"))
    };
    let models = vec!["Not A Model".into(), "acme/claims@live".into()];
    let refused = create(v1::ApiKey { models, methods: vec!["Destroy".into()], ..inference_key() }).await;
    assert_eq!((refused.reason, refused.details.len()), (Reason::InvalidRequest, 3), "{refused:?}");
    platform.stop().await;
}
