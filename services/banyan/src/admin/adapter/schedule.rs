//! `banyan adapter schedule …`: changes of an alias that take effect at a time.

use std::time::SystemTime;

use domain::AdapterName;
use proto::v1::{
    AliasPart, CancelScheduleRequest, CreateScheduleRequest, ListSchedulesRequest, Schedule, ScheduleState,
    schedule::Change,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::rollout::{alias_name, etag_now, percent};
use crate::{
    cli::{ScheduleAddArgs, ScheduleVerb},
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, last_segment, short_digest, time_text},
};

/// As it was typed.
pub fn name(verb: &ScheduleVerb) -> String {
    match verb {
        ScheduleVerb::Add(args) => args.alias.name.to_string(),
        ScheduleVerb::List { alias } | ScheduleVerb::Cancel { alias, .. } => alias.name.to_string(),
    }
}

/// # Errors
/// The server's refusal.
pub async fn schedule(admin: &Admin, adapter: AdapterName, verb: ScheduleVerb, as_json: bool) -> Outcome {
    let listed = match verb {
        ScheduleVerb::Add(args) => vec![add(admin, &adapter, *args).await?],
        ScheduleVerb::Cancel { alias, id } => {
            let name = format!("{}/schedules/{id}", alias_name(&adapter, alias.alias));
            vec![admin.rollouts().cancel_schedule(CancelScheduleRequest { name }).await?.into_inner()]
        }
        ScheduleVerb::List { alias } => {
            let parent = alias_name(&adapter, alias.alias);
            let schedules =
                admin.rollouts().list_schedules(ListSchedulesRequest { parent }).await?.into_inner().schedules;
            if as_json {
                let schedules: Vec<_> = schedules.iter().map(schedule_json).collect();
                return Ok(output::print_json(&json!({ "schedules": schedules }))?);
            }
            schedules
        }
    };
    match (&listed[..], as_json) {
        ([one], true) => Ok(output::print_json(&schedule_json(one))?),
        _ => print(&listed),
    }
}

async fn add(admin: &Admin, adapter: &AdapterName, args: ScheduleAddArgs) -> Result<Schedule, crate::failure::Failure> {
    let parent = alias_name(adapter, args.alias.alias.clone());
    let etag = match &args.etag {
        Some(etag) => etag.clone(),
        None => etag_now(admin, adapter, &parent).await?,
    };
    let due = match (args.at, args.after) {
        (Some(at), _) => at,
        (None, after) => OffsetDateTime::now_utc() + after.unwrap_or_default(),
    };
    let schedule =
        Schedule { change: Some(change(&args)), due_time: Some(SystemTime::from(due).into()), ..Schedule::default() };
    let request = CreateScheduleRequest { parent, schedule: Some(schedule), etag };
    Ok(admin.rollouts().create_schedule(request).await?.into_inner())
}

/// The flags let exactly one change through.
fn change(args: &ScheduleAddArgs) -> Change {
    let basis_points = args.weight.map(|weight| u32::from(weight.get())).unwrap_or_default();
    match (args.move_to, args.canary) {
        (Some(digest), _) => Change::MoveTo(digest.to_string()),
        (None, Some(digest)) => Change::Canary(AliasPart { digest: digest.to_string(), basis_points }),
        (None, None) if args.promote => Change::Promote(()),
        (None, None) if args.rollback => Change::Rollback(()),
        (None, None) if args.end_canary => Change::ClearCanary(()),
        (None, None) => Change::CanaryBasisPoints(basis_points),
    }
}

fn print(schedules: &[Schedule]) -> Outcome {
    let mut table = Table::new(&["ID", "DUE", "CHANGE", "STATE", "BY", "OUTCOME"]);
    for schedule in schedules {
        table.row([
            last_segment(&schedule.name).to_owned(),
            time_text(schedule.due_time.as_ref()),
            words(schedule.change.as_ref()),
            state(schedule.state()).to_owned(),
            schedule.actor.clone(),
            schedule.outcome.clone(),
        ]);
    }
    Ok(table.print()?)
}

fn words(change: Option<&Change>) -> String {
    match change {
        Some(Change::MoveTo(digest)) => format!("move to {}", short_digest(digest)),
        Some(Change::Canary(part)) => {
            format!("canary {} at {}", short_digest(&part.digest), percent(part.basis_points))
        }
        Some(Change::CanaryBasisPoints(share)) => format!("canary at {}", percent(*share)),
        Some(Change::ClearCanary(())) => "end the canary".to_owned(),
        Some(Change::Promote(())) => "promote the canary".to_owned(),
        Some(Change::Rollback(())) => "roll back".to_owned(),
        None => "unknown".to_owned(),
    }
}

const fn state(state: ScheduleState) -> &'static str {
    match state {
        ScheduleState::Unspecified => "",
        ScheduleState::Pending => "pending",
        ScheduleState::Done => "done",
        ScheduleState::Failed => "failed",
        ScheduleState::Cancelled => "cancelled",
    }
}

fn schedule_json(schedule: &Schedule) -> Value {
    let change = match &schedule.change {
        Some(Change::MoveTo(digest)) => json!({ "move_to": digest }),
        Some(Change::Canary(part)) => json!({ "canary": json::part(part) }),
        Some(Change::CanaryBasisPoints(share)) => json!({ "canary_basis_points": share }),
        Some(Change::ClearCanary(())) => json!({ "clear_canary": {} }),
        Some(Change::Promote(())) => json!({ "promote": {} }),
        Some(Change::Rollback(())) => json!({ "rollback": {} }),
        None => Value::Null,
    };
    json!({
        "name": schedule.name,
        "change": change,
        "due_time": json::moment(schedule.due_time.as_ref()),
        "state": state(schedule.state()),
        "outcome": schedule.outcome,
        "actor": schedule.actor,
        "create_time": json::moment(schedule.create_time.as_ref()),
        "finish_time": json::moment(schedule.finish_time.as_ref()),
    })
}
