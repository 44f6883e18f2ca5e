//! Price lists: who sets them, who sees them.

use domain::Reason;
use proto::v1::{self, price_service_client::PriceServiceClient};

use crate::{
    fake_worker::FakeWorker,
    platform::{Bearer, OPERATOR, Platform, fault},
};

type Client = PriceServiceClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Bearer>>;

fn prices(platform: &Platform, token: &str) -> Client {
    let channel = platform.channel(platform.gateway.admin_addr);
    PriceServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
}

fn price(parent: &str, model: &str, input_micros: u64) -> v1::SetPriceRequest {
    let price = v1::Price { parent: parent.into(), model: model.into(), input_micros, ..v1::Price::default() };
    v1::SetPriceRequest { price: Some(price) }
}

async fn listed(platform: &Platform, token: &str, parent: &str) -> Result<Vec<(String, u64)>, domain::Fault> {
    let request = v1::ListPricesRequest { parent: parent.into(), ..v1::ListPricesRequest::default() };
    let page = prices(platform, token).list_prices(request).await.map_err(|status| fault(&status))?.into_inner();
    Ok(page.prices.into_iter().map(|price| (price.model, price.input_micros)).collect())
}

#[tokio::test]
async fn the_operator_sets_prices_and_a_tenant_sees_its_own_and_the_platforms() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let rival = platform.tenant("rival", v1::TenantLimits::default()).await;
    let mut operator = prices(&platform, OPERATOR);
    let set = operator.set_price(price("", "base", 150_000)).await.expect("sets").into_inner();
    assert!(set.in_effect && set.effective_time.is_some());
    operator.set_price(price("tenants/acme", "acme/claims", 90_000)).await.expect("sets");

    for token in [OPERATOR, &acme.admin] {
        assert_eq!(listed(&platform, token, "").await, Ok(vec![("base".to_owned(), 150_000)]));
        let own = listed(&platform, token, "tenants/acme").await;
        assert_eq!(own, Ok(vec![("acme/claims".to_owned(), 90_000)]));
    }
    let theirs = listed(&platform, &rival.admin, "tenants/acme").await.expect_err("not its own");
    assert_eq!(theirs.reason, Reason::NotFound);
    for token in [&acme.admin, &acme.key] {
        let refused = prices(&platform, token).set_price(price("", "base", 0)).await.expect_err("no operator");
        assert_eq!(fault(&refused).reason, Reason::PermissionDenied);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_price_names_a_model_of_its_own_list() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut operator = prices(&platform, OPERATOR);
    for (parent, model) in [
        ("", "acme/claims"),
        ("tenants/acme", "rival/claims"),
        ("tenants/acme", "acme/claims@canary"),
        ("tenants/acme", "acme/claims@live"),
        ("", ""),
        ("", "No Model"),
    ] {
        let refused = fault(&operator.set_price(price(parent, model, 1)).await.expect_err(model));
        assert_eq!(refused.reason, Reason::InvalidRequest, "{parent} {model}");
    }
    let nobody = fault(&operator.set_price(price("tenants/nobody", "*", 1)).await.expect_err("nobody"));
    assert_eq!(nobody.reason, Reason::NotFound);
    platform.stop().await;
}
