//! `banyan adapter pin …`: callers that are tied to a version until a time.

use std::time::SystemTime;

use domain::AdapterName;
use proto::v1::{CreatePinRequest, DeletePinRequest, ListPinsRequest, Pin, pin::Who};
use serde_json::{Value, json};

use super::rollout::{alias_name, named};
use crate::{
    cli::PinVerb,
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, last_segment, short_digest, time_text},
};

/// As it was typed.
pub fn name(verb: &PinVerb) -> String {
    match verb {
        PinVerb::Set { change, .. } | PinVerb::Delete { change, .. } => change.alias.name.to_string(),
        PinVerb::List { alias } => alias.name.to_string(),
    }
}

/// # Errors
/// The server's refusal.
pub async fn pin(admin: &Admin, adapter: AdapterName, verb: PinVerb, as_json: bool) -> Outcome {
    match verb {
        PinVerb::Set { change, digest, tenant: _, api_key, routing_key, lasting, reason } => {
            let (parent, etag) = named(admin, adapter, &change).await?;
            let who = match (api_key, routing_key) {
                (Some(key), _) => Who::ApiKey(key),
                (None, Some(key)) => Who::RoutingKey(key),
                (None, None) => Who::Tenant(()),
            };
            let pin = Pin {
                who: Some(who),
                digest: digest.to_string(),
                reason,
                expire_time: Some((SystemTime::now() + lasting.unsigned_abs()).into()),
                ..Pin::default()
            };
            let request = CreatePinRequest { parent, pin: Some(pin), etag };
            let made = admin.rollouts().create_pin(request).await?.into_inner();
            if as_json {
                return Ok(output::print_json(&pin_json(&made))?);
            }
            print(&[made])
        }
        PinVerb::List { alias } => {
            let parent = alias_name(&adapter, alias.alias);
            let pins = admin.rollouts().list_pins(ListPinsRequest { parent }).await?.into_inner().pins;
            if as_json {
                let pins: Vec<_> = pins.iter().map(pin_json).collect();
                return Ok(output::print_json(&json!({ "pins": pins }))?);
            }
            print(&pins)
        }
        PinVerb::Delete { change, id } => {
            let (alias, etag) = named(admin, adapter, &change).await?;
            let name = format!("{alias}/pins/{id}");
            admin.rollouts().delete_pin(DeletePinRequest { name, etag }).await?;
            Ok(())
        }
    }
}

fn print(pins: &[Pin]) -> Outcome {
    let mut table = Table::new(&["ID", "WHO", "VERSION", "UNTIL", "BY", "REASON"]);
    for pin in pins {
        let who = match &pin.who {
            Some(Who::ApiKey(key)) => format!("API key {key}"),
            Some(Who::RoutingKey(key)) => format!("routing key {key}"),
            Some(Who::Tenant(())) | None => "all of the tenant".to_owned(),
        };
        table.row([
            last_segment(&pin.name).to_owned(),
            who,
            short_digest(&pin.digest).to_owned(),
            time_text(pin.expire_time.as_ref()),
            pin.actor.clone(),
            pin.reason.clone(),
        ]);
    }
    Ok(table.print()?)
}

fn pin_json(pin: &Pin) -> Value {
    let (api_key, routing_key) = match &pin.who {
        Some(Who::ApiKey(key)) => (Some(key), None),
        Some(Who::RoutingKey(key)) => (None, Some(key)),
        Some(Who::Tenant(())) | None => (None, None),
    };
    json!({
        "name": pin.name,
        "api_key": api_key,
        "routing_key": routing_key,
        "digest": pin.digest,
        "reason": pin.reason,
        "actor": pin.actor,
        "expire_time": json::moment(pin.expire_time.as_ref()),
        "create_time": json::moment(pin.create_time.as_ref()),
    })
}
