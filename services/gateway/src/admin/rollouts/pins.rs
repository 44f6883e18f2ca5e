//! Pins as messages.

use domain::{AliasName, Digest, Fault, PinName};
use proto::v1::{self, pin::Who};
use store::{NewPin, Pin, Pinned, Resource, StoreError};

use super::Rollouts;
use crate::{
    admin::adapters::{etag, fault, reason},
    guard::Session,
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
};

const ROUTING_KEY_BYTES_MAX: usize = 256;

impl Rollouts {
    pub(super) async fn pin(&self, session: &Session, message: v1::CreatePinRequest) -> Result<v1::Pin, Fault> {
        let mut violations = Violations::default();
        let name = violations.parse::<AliasName>("parent", &message.parent);
        let new = read(&mut violations, message.pin.unwrap_or_default());
        let (name, new) = violations.check(name.zip(new))?;
        let rows = self.reach(session, &name).await?;
        let (digest, who) = (new.digest, new.who.clone());
        let most = self.config.pins_max;
        let made = rows.create_pin(&name.adapter, &name.alias, new, most, etag(&message.etag)).await;
        let made = made.map_err(|error| match (&error, who) {
            (StoreError::NotFound { what: Resource::ApiKey, .. }, Pinned::ApiKey(key)) => error.fault(key),
            _ => fault(error, &name.parent(), Some(digest), &name),
        })?;
        self.models.forget(rows.id(), &name.adapter);
        Ok(wire(&name, made))
    }

    pub(super) async fn pins(
        &self,
        session: &Session,
        message: &v1::ListPinsRequest,
    ) -> Result<v1::ListPinsResponse, Fault> {
        let name: AliasName = parse::name("parent", &message.parent)?;
        let rows = self.reach(session, &name).await?;
        let pins = rows.list_pins(&name.adapter, &name.alias).await;
        let pins = pins.map_err(|error| fault(error, &name.parent(), None, &name))?;
        Ok(v1::ListPinsResponse { pins: pins.into_iter().map(|pin| wire(&name, pin)).collect() })
    }

    pub(super) async fn unpin(&self, session: &Session, message: &v1::DeletePinRequest) -> Result<(), Fault> {
        let pin: PinName = parse::name("name", &message.name)?;
        let PinName { tenant, adapter, alias, pin: id } = pin.clone();
        let name = AliasName { tenant, adapter, alias };
        let rows = self.reach(session, &name).await?;
        let deleted = rows.delete_pin(&name.adapter, &name.alias, id, etag(&message.etag)).await;
        deleted.map_err(|error| match &error {
            StoreError::NotFound { what: Resource::Pin, .. } => error.fault(&pin),
            _ => fault(error, &name.parent(), None, &name),
        })?;
        self.models.forget(rows.id(), &name.adapter);
        Ok(())
    }
}

fn read(violations: &mut Violations, wire: v1::Pin) -> Option<NewPin> {
    let who = match wire.who {
        Some(Who::Tenant(())) => Some(Pinned::Tenant),
        Some(Who::ApiKey(key)) => Some(Pinned::ApiKey(key)),
        Some(Who::RoutingKey(key)) => {
            let fits = (1..=ROUTING_KEY_BYTES_MAX).contains(&key.len());
            violations.require("pin.routing_key", fits, "must be 1 to 256 bytes");
            Some(Pinned::RoutingKey(key))
        }
        None => {
            violations.add("pin", "must be of one of `tenant`, `api_key` and `routing_key`");
            None
        }
    };
    let digest = violations.parse::<Digest>("pin.digest", &wire.digest);
    reason(violations, &wire.reason);
    let expires_at = match &wire.expire_time {
        Some(time) => parse::timestamp(violations, "pin.expire_time", time),
        None => {
            violations.add("pin.expire_time", "must be set: a pin ends");
            None
        }
    };
    let (who, (digest, expires_at)) = who.zip(digest.zip(expires_at))?;
    Some(NewPin { who, digest, reason: wire.reason, expires_at })
}

fn wire(alias: &AliasName, pin: Pin) -> v1::Pin {
    let AliasName { tenant, adapter, alias } = alias.clone();
    v1::Pin {
        name: PinName { tenant, adapter, alias, pin: pin.id }.to_string(),
        who: Some(match pin.who {
            Pinned::Tenant => Who::Tenant(()),
            Pinned::ApiKey(key) => Who::ApiKey(key),
            Pinned::RoutingKey(key) => Who::RoutingKey(key),
        }),
        digest: pin.digest.to_string(),
        reason: pin.reason,
        expire_time: Some(wire_time(pin.expires_at)),
        actor: pin.actor,
        create_time: Some(wire_time(pin.created_at)),
    }
}
