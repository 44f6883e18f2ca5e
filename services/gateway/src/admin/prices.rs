//! `banyan.v1.PriceService`.

use domain::{Fault, ModelName, Price, TenantName};
use proto::v1::{self, price_service_server::PriceService};
use store::{ListedPrice, NewPrice, PricedModel, Store};
use tonic::{Request, Response, Status};

use crate::{
    access,
    edge::answer,
    guard::Session,
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
};

const MODEL_RULE: &str = "must be `base`, `<tenant>/<adapter>` without a version, or `*`";
const OWN_RULE: &str = "must be a model of the tenant whose list it is";

pub struct Prices {
    store: Store,
}

impl Prices {
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    async fn set(&self, session: &Session, wire: v1::Price) -> Result<v1::Price, Fault> {
        let mut violations = Violations::default();
        let parent = violations.parse_optional::<TenantName>("price.parent", &wire.parent);
        let model = read_model(&mut violations, &wire.model, parent.as_ref());
        let effective_at =
            wire.effective_time.and_then(|time| parse::timestamp(&mut violations, "price.effective_time", &time));
        let model = violations.check(model)?;
        let tenant = match &parent {
            Some(name) => {
                let found = self.store.platform().get_tenant(&name.tenant).await;
                Some(found.map_err(|error| error.fault(name))?.id)
            }
            None => None,
        };
        let price =
            Price { input: wire.input_micros, cached_input: wire.cached_input_micros, output: wire.output_micros };
        let new = NewPrice { tenant, model, price, effective_at };
        let about = parent.map_or_else(|| "prices".to_owned(), |name| format!("{name}/prices"));
        let store = session.acting(&self.store, about);
        let set = store.platform().set_price(&new).await.map_err(|error| error.fault("price"))?;
        Ok(wire_price(set, wire.parent))
    }

    async fn list(&self, session: Session, message: v1::ListPricesRequest) -> Result<v1::ListPricesResponse, Fault> {
        let mut violations = Violations::default();
        let parent = violations.parse_optional::<TenantName>("parent", &message.parent);
        violations.check(Some(()))?;
        let page = parse::page(message.page_size, message.page_token)?;
        let found = match (&parent, &session.identity.caller) {
            (Some(name), caller) => {
                access::sees(caller, &name.tenant, "tenant", name)?;
                let id = match caller {
                    domain::Caller::Tenant { tenant, .. } => *tenant,
                    _ => {
                        let found = self.store.platform().get_tenant(&name.tenant).await;
                        found.map_err(|error| error.fault(name))?.id
                    }
                };
                self.store.tenant(id).list_prices(&page).await
            }
            (None, domain::Caller::Tenant { tenant, .. }) => {
                self.store.tenant(*tenant).list_platform_prices(&page).await
            }
            (None, _) => self.store.platform().list_prices(&page).await,
        };
        let found = found.map_err(|error| error.fault("prices"))?;
        let prices = found.items.into_iter().map(|price| wire_price(price, message.parent.clone())).collect();
        Ok(v1::ListPricesResponse { prices, next_page_token: found.next_page_token })
    }
}

#[tonic::async_trait]
impl PriceService for Prices {
    async fn set_price(&self, request: Request<v1::SetPriceRequest>) -> Result<Response<v1::Price>, Status> {
        answer(request, |session, message| async move {
            self.set(&session, message.price.ok_or_else(|| Fault::invalid("price", "must be set"))?).await
        })
        .await
    }

    async fn list_prices(
        &self,
        request: Request<v1::ListPricesRequest>,
    ) -> Result<Response<v1::ListPricesResponse>, Status> {
        answer(request, |session, message| self.list(session, message)).await
    }
}

/// An adapter belongs to a tenant, and its price stands in that tenant's list.
fn read_model(violations: &mut Violations, text: &str, list: Option<&TenantName>) -> Option<PricedModel> {
    if text == "*" {
        return Some(PricedModel::Every);
    }
    let name = text.parse::<ModelName>().ok().filter(|name| name.without_version() == text);
    let Some(name) = name else {
        violations.add("price.model", MODEL_RULE);
        return None;
    };
    if let ModelName::Adapter { tenant, .. } = &name {
        violations.require("price.model", list.is_some_and(|list| list.tenant == *tenant), OWN_RULE);
    }
    Some(PricedModel::One(text.to_owned()))
}

fn wire_price(listed: ListedPrice, parent: String) -> v1::Price {
    v1::Price {
        parent,
        model: listed.model.to_string(),
        input_micros: listed.price.input,
        cached_input_micros: listed.price.cached_input,
        output_micros: listed.price.output,
        effective_time: Some(wire_time(listed.effective_at)),
        create_time: Some(wire_time(listed.created_at)),
        in_effect: listed.in_effect,
    }
}
