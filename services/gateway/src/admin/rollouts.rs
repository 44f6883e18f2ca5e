//! `banyan.v1.RolloutService`: how an alias moves from one version to the next.

mod pins;
mod progress;
mod schedules;
mod shadow;

use std::time::Duration;

use domain::{AliasChange, AliasName, BasisPoints, Digest, Fault, Limits, Part};
use proto::v1::{self, rollout_service_server::RolloutService};
use store::{Store, TenantScope};
use tonic::{Request, Response, Status};

use super::{
    adapters::{etag, fault, wire_alias},
    reach,
};
use crate::{
    config::RolloutsConfig,
    edge::answer,
    guard::Session,
    models::Models,
    parse::{self, Violations},
};

pub struct Rollouts {
    store: Store,
    models: Models,
    defaults: Limits,
    config: RolloutsConfig,
    /// A gateway that was not heard of for longer is gone.
    alive: Duration,
}

impl Rollouts {
    pub const fn new(store: Store, models: Models, defaults: Limits, config: RolloutsConfig, alive: Duration) -> Self {
        Self { store, models, defaults, config, alive }
    }

    /// To the rows of the tenant that owns this alias.
    async fn reach(&self, session: &Session, name: &AliasName) -> Result<TenantScope, Fault> {
        let adapter = name.parent();
        Ok(reach(&self.store, session, &adapter.tenant, "adapter", &adapter, self.defaults).await?.rows)
    }

    /// Makes the change, and answers with it from here on.
    async fn change(
        &self,
        session: &Session,
        name: &AliasName,
        change: AliasChange,
        expected: &str,
    ) -> Result<v1::Alias, Fault> {
        let rows = self.reach(session, name).await?;
        let digest = match change {
            AliasChange::Canary(part) | AliasChange::Shadow(part) => Some(part.digest),
            _ => None,
        };
        let adapter = name.parent();
        let changed = rows.change_alias(&name.adapter, &name.alias, change, etag(expected)).await;
        let changed = changed.map_err(|error| fault(error, &adapter, digest, name))?;
        self.models.forget(rows.id(), &name.adapter);
        Ok(wire_alias(&adapter, changed))
    }
}

#[tonic::async_trait]
impl RolloutService for Rollouts {
    async fn set_canary(&self, request: Request<v1::SetCanaryRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let name = violations.parse::<AliasName>("name", &message.name);
            let digest = violations.parse_optional::<Digest>("digest", &message.digest);
            let share = basis_points(&mut violations, "basis_points", message.basis_points);
            let (name, share) = violations.check(name.zip(share))?;
            let change = match digest {
                Some(digest) => AliasChange::Canary(Part { digest, share }),
                None => AliasChange::Weight(share),
            };
            self.change(&session, &name, change, &message.etag).await
        })
        .await
    }

    async fn clear_canary(&self, request: Request<v1::ClearCanaryRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let name = parse::name("name", &message.name)?;
            self.change(&session, &name, AliasChange::ClearCanary, &message.etag).await
        })
        .await
    }

    async fn promote_canary(&self, request: Request<v1::PromoteCanaryRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let name = parse::name("name", &message.name)?;
            self.change(&session, &name, AliasChange::Promote, &message.etag).await
        })
        .await
    }

    async fn set_shadow(&self, request: Request<v1::SetShadowRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let name = violations.parse::<AliasName>("name", &message.name);
            let digest = violations.parse::<Digest>("digest", &message.digest);
            let share = basis_points(&mut violations, "basis_points", message.basis_points);
            violations.require(
                "basis_points",
                message.basis_points > 0,
                "must be at least 1; ClearShadow ends a shadow",
            );
            let (name, (digest, share)) = violations.check(name.zip(digest.zip(share)))?;
            self.change(&session, &name, AliasChange::Shadow(Part { digest, share }), &message.etag).await
        })
        .await
    }

    async fn clear_shadow(&self, request: Request<v1::ClearShadowRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let name = parse::name("name", &message.name)?;
            self.change(&session, &name, AliasChange::ClearShadow, &message.etag).await
        })
        .await
    }

    async fn get_shadow_report(
        &self,
        request: Request<v1::GetShadowReportRequest>,
    ) -> Result<Response<v1::ShadowReport>, Status> {
        answer(request, |session, message| async move { self.shadow_report(&session, &message).await }).await
    }

    async fn create_pin(&self, request: Request<v1::CreatePinRequest>) -> Result<Response<v1::Pin>, Status> {
        answer(request, |session, message| async move { self.pin(&session, message).await }).await
    }

    async fn list_pins(&self, request: Request<v1::ListPinsRequest>) -> Result<Response<v1::ListPinsResponse>, Status> {
        answer(request, |session, message| async move { self.pins(&session, &message).await }).await
    }

    async fn delete_pin(&self, request: Request<v1::DeletePinRequest>) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move { self.unpin(&session, &message).await }).await
    }

    async fn create_schedule(
        &self,
        request: Request<v1::CreateScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        answer(request, |session, message| async move { self.plan(&session, message).await }).await
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        answer(request, |session, message| async move { self.planned(&session, &message).await }).await
    }

    async fn cancel_schedule(
        &self,
        request: Request<v1::CancelScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        answer(request, |session, message| async move { self.cancel(&session, &message).await }).await
    }

    async fn get_rollout(&self, request: Request<v1::GetRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        answer(request, |session, message| async move { self.progress(&session, &message).await }).await
    }
}

fn basis_points(violations: &mut Violations, field: &str, value: u32) -> Option<BasisPoints> {
    BasisPoints::new(value).map_err(|error| violations.add(field, error)).ok()
}
