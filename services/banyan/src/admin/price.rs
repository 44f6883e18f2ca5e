//! `banyan price …`.

use prost_types::Timestamp;
use proto::v1::{ListPricesRequest, Price, SetPriceRequest};
use serde_json::{Value, json};

use crate::{
    cli::{PriceArgs, PriceVerb},
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn price(args: PriceArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let prices = match args.verb {
        PriceVerb::Set { model, tenant, price, effective } => {
            let price = Price {
                parent: parent(tenant),
                model,
                input_micros: price.input,
                cached_input_micros: price.cached_input.unwrap_or(price.input),
                output_micros: price.output,
                effective_time: effective.map(|at| Timestamp { seconds: at.unix_timestamp(), nanos: 0 }),
                ..Price::default()
            };
            vec![admin.prices().set_price(SetPriceRequest { price: Some(price) }).await?.into_inner()]
        }
        PriceVerb::List { tenant, history } => {
            let mut prices = list(&admin, parent(tenant)).await?;
            prices.retain(|price| history || price.in_effect || !is_past(price));
            prices
        }
    };
    if as_json {
        let prices: Vec<_> = prices.iter().map(wire).collect();
        return Ok(output::print_json(&json!({ "prices": prices }))?);
    }
    let mut table = Table::new(&["MODEL", "INPUT", "CACHED INPUT", "OUTPUT", "FROM", "HOLDS"]);
    for price in &prices {
        table.row([
            price.model.clone(),
            price.input_micros.to_string(),
            price.cached_input_micros.to_string(),
            price.output_micros.to_string(),
            time_text(price.effective_time.as_ref()),
            if price.in_effect { "now".to_owned() } else { String::new() },
        ]);
    }
    Ok(table.print()?)
}

async fn list(admin: &Admin, parent: String) -> Result<Vec<Price>, crate::failure::Failure> {
    let (mut prices, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListPricesRequest { parent: parent.clone(), page_size: 0, page_token };
        let page = admin.prices().list_prices(request).await?.into_inner();
        prices.extend(page.prices);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(prices);
        }
    }
}

fn parent(tenant: Option<domain::Slug>) -> String {
    tenant.map(|tenant| domain::TenantName { tenant }.to_string()).unwrap_or_default()
}

/// Whether a later one has taken its place.
fn is_past(price: &Price) -> bool {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    !price.in_effect && price.effective_time.is_some_and(|from| from.seconds <= now)
}

fn wire(price: &Price) -> Value {
    json!({
        "parent": price.parent,
        "model": price.model,
        "input_micros": price.input_micros,
        "cached_input_micros": price.cached_input_micros,
        "output_micros": price.output_micros,
        "effective_time": json::moment(price.effective_time.as_ref()),
        "create_time": json::moment(price.create_time.as_ref()),
        "in_effect": price.in_effect,
    })
}
