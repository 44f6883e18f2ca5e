//! Planned changes as messages.

use domain::{AliasChange, AliasName, Digest, Fault, Part, ScheduleName};
use proto::v1::{self, schedule::Change};
use store::{NewSchedule, Resource, Schedule, ScheduleState, StoreError};

use super::{Rollouts, basis_points};
use crate::{
    admin::adapters::{etag, fault, wire_part},
    guard::Session,
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
};

impl Rollouts {
    pub(super) async fn plan(
        &self,
        session: &Session,
        message: v1::CreateScheduleRequest,
    ) -> Result<v1::Schedule, Fault> {
        let mut violations = Violations::default();
        let name = violations.parse::<AliasName>("parent", &message.parent);
        let new = read(&mut violations, message.schedule.unwrap_or_default());
        let (name, new) = violations.check(name.zip(new))?;
        let rows = self.reach(session, &name).await?;
        let digest = match new.change {
            AliasChange::Move(digest) | AliasChange::Canary(Part { digest, .. }) => Some(digest),
            _ => None,
        };
        let most = self.config.schedules_max;
        let made = rows.create_schedule(&name.adapter, &name.alias, new, most, etag(&message.etag)).await;
        Ok(wire(&name, made.map_err(|error| fault(error, &name.parent(), digest, &name))?))
    }

    pub(super) async fn planned(
        &self,
        session: &Session,
        message: &v1::ListSchedulesRequest,
    ) -> Result<v1::ListSchedulesResponse, Fault> {
        let name: AliasName = parse::name("parent", &message.parent)?;
        let rows = self.reach(session, &name).await?;
        let listed = rows.list_schedules(&name.adapter, &name.alias).await;
        let listed = listed.map_err(|error| fault(error, &name.parent(), None, &name))?;
        Ok(v1::ListSchedulesResponse { schedules: listed.into_iter().map(|schedule| wire(&name, schedule)).collect() })
    }

    pub(super) async fn cancel(
        &self,
        session: &Session,
        message: &v1::CancelScheduleRequest,
    ) -> Result<v1::Schedule, Fault> {
        let schedule: ScheduleName = parse::name("name", &message.name)?;
        let ScheduleName { tenant, adapter, alias, schedule: id } = schedule.clone();
        let name = AliasName { tenant, adapter, alias };
        let rows = self.reach(session, &name).await?;
        let cancelled = rows.cancel_schedule(&name.adapter, &name.alias, id).await;
        let cancelled = cancelled.map_err(|error| match &error {
            StoreError::NotFound { what: Resource::Schedule, .. } => error.fault(&schedule),
            _ => fault(error, &name.parent(), None, &schedule),
        })?;
        Ok(wire(&name, cancelled))
    }
}

fn read(violations: &mut Violations, wire: v1::Schedule) -> Option<NewSchedule> {
    let change = match wire.change {
        Some(Change::MoveTo(digest)) => violations.parse::<Digest>("schedule.move_to", &digest).map(AliasChange::Move),
        Some(Change::Canary(part)) => {
            let digest = violations.parse::<Digest>("schedule.canary.digest", &part.digest);
            let share = basis_points(violations, "schedule.canary.basis_points", part.basis_points);
            digest.zip(share).map(|(digest, share)| AliasChange::Canary(Part { digest, share }))
        }
        Some(Change::CanaryBasisPoints(share)) => {
            basis_points(violations, "schedule.canary_basis_points", share).map(AliasChange::Weight)
        }
        Some(Change::ClearCanary(())) => Some(AliasChange::ClearCanary),
        Some(Change::Promote(())) => Some(AliasChange::Promote),
        Some(Change::Rollback(())) => Some(AliasChange::Rollback),
        None => {
            violations.add("schedule", "must have one change");
            None
        }
    };
    let due_at = match &wire.due_time {
        Some(time) => parse::timestamp(violations, "schedule.due_time", time),
        None => {
            violations.add("schedule.due_time", "must be set");
            None
        }
    };
    let (change, due_at) = change.zip(due_at)?;
    Some(NewSchedule { change, due_at })
}

fn wire(alias: &AliasName, schedule: Schedule) -> v1::Schedule {
    let AliasName { tenant, adapter, alias } = alias.clone();
    v1::Schedule {
        name: ScheduleName { tenant, adapter, alias, schedule: schedule.id }.to_string(),
        change: match schedule.change {
            AliasChange::Move(digest) => Some(Change::MoveTo(digest.to_string())),
            AliasChange::Canary(part) => Some(Change::Canary(wire_part(part))),
            AliasChange::Weight(share) => Some(Change::CanaryBasisPoints(share.get().into())),
            AliasChange::ClearCanary => Some(Change::ClearCanary(())),
            AliasChange::Promote => Some(Change::Promote(())),
            AliasChange::Rollback => Some(Change::Rollback(())),
            AliasChange::Shadow(_) | AliasChange::ClearShadow => None,
        },
        due_time: Some(wire_time(schedule.due_at)),
        state: match schedule.state {
            ScheduleState::Pending => v1::ScheduleState::Pending,
            ScheduleState::Done => v1::ScheduleState::Done,
            ScheduleState::Failed => v1::ScheduleState::Failed,
            ScheduleState::Cancelled => v1::ScheduleState::Cancelled,
        }
        .into(),
        outcome: schedule.outcome,
        actor: schedule.actor,
        create_time: Some(wire_time(schedule.created_at)),
        finish_time: schedule.finished_at.map(wire_time),
    }
}
