//! How far the fleet is: which gateways answer with an alias as it is now.

use domain::{AliasName, Caller, Fault};
use proto::v1;
use store::GatewayRow;

use super::Rollouts;
use crate::{
    admin::adapters::{fault, wire_alias},
    guard::Session,
    parse::{self, wire_time},
    store_fault::StoreFault as _,
};

impl Rollouts {
    pub(super) async fn progress(
        &self,
        session: &Session,
        message: &v1::GetRolloutRequest,
    ) -> Result<v1::Rollout, Fault> {
        let name: AliasName = parse::name("name", &message.name)?;
        if message.position < 0 {
            return Err(Fault::invalid("position", "must not be negative"));
        }
        let rows = self.reach(session, &name).await?;
        let alias = rows.get_alias(&name.adapter, &name.alias).await;
        let alias = alias.map_err(|error| fault(error, &name.parent(), None, &name))?;
        let platform = self.store.platform();
        // Asked after the alias: whoever has seen this position has seen the alias change to what it is.
        let position = match message.position {
            0 => platform.change_head().await.map_err(|error| error.fault(&name))?,
            position => position,
        };
        let listed = platform.list_gateways(self.alive).await;
        let listed = listed.map_err(|error| error.fault(&name))?;
        let operator = !matches!(session.identity.caller, Caller::Tenant { .. });
        let gateways: Vec<_> = listed.into_iter().map(|row| wire(row, position, operator)).collect();
        Ok(v1::Rollout {
            alias: Some(wire_alias(&name.parent(), alias)),
            position,
            converged: gateways.iter().all(|gateway| gateway.converged),
            gateways,
        })
    }
}

/// How gateways are called is the operator's business.
fn wire(row: GatewayRow, position: i64, operator: bool) -> v1::GatewayProgress {
    v1::GatewayProgress {
        gateway: if operator { row.name } else { row.id.to_string() },
        position: row.seen_change,
        converged: row.seen_change >= position,
        seen_time: Some(wire_time(row.seen_at)),
    }
}
