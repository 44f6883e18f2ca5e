//! `banyan plan …`.

use prost_types::FieldMask;
use proto::v1::{
    CreatePlanRequest, DeletePlanRequest, GetPlanRequest, ListPlansRequest, Outage, Plan, PlanShare, UpdatePlanRequest,
};
use serde_json::json;

use super::limits;
use crate::{
    cli::{OutageArg, PlanArgs, PlanTermsArgs, PlanVerb},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, last_segment, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn plan(args: PlanArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    let mut plans = admin.plans();
    let plan = match args.verb {
        PlanVerb::List => return list(&admin, as_json).await,
        PlanVerb::Delete { plan } => {
            plans.delete_plan(DeletePlanRequest { name: name(plan) }).await?;
            return Ok(());
        }
        PlanVerb::Show { plan } => plans.get_plan(GetPlanRequest { name: name(plan) }).await?,
        PlanVerb::Create { plan, terms } => {
            let request = CreatePlanRequest { plan_id: plan.to_string(), plan: Some(wire(String::new(), terms)) };
            plans.create_plan(request).await?
        }
        PlanVerb::Update { plan, terms } => {
            let paths = changed(&terms);
            if paths.is_empty() {
                return Err(Failure::Usage(
                    "say what to change: a limit, a part, --outage or --display-name".to_owned(),
                ));
            }
            let plan = Some(wire(name(plan), terms));
            plans.update_plan(UpdatePlanRequest { plan, update_mask: Some(FieldMask { paths }) }).await?
        }
    };
    show(plan.get_ref(), as_json)
}

fn name(plan: domain::Slug) -> String {
    domain::PlanName { plan }.to_string()
}

fn wire(name: String, terms: PlanTermsArgs) -> Plan {
    let share = terms.share;
    let outage = terms.outage.map_or(Outage::Unspecified, |outage| match outage {
        OutageArg::Closed => Outage::Closed,
        OutageArg::Leased => Outage::Leased,
        OutageArg::Open => Outage::Open,
    });
    Plan {
        name,
        display_name: terms.display_name.unwrap_or_default(),
        limits: Some(limits::wire(&terms.limits)),
        share: Some(PlanShare {
            weight: share.weight.unwrap_or(0),
            priority: share.priority.unwrap_or(0),
            kv_blocks_max: share.kv_blocks_max.unwrap_or(0),
            resident_adapters_max: share.resident_adapters_max.unwrap_or(0),
            waiting_requests_max: share.waiting_requests_max.unwrap_or(0),
        }),
        outage: outage.into(),
        ..Plan::default()
    }
}

fn changed(terms: &PlanTermsArgs) -> Vec<String> {
    let given = [
        ("display_name", terms.display_name.is_some()),
        ("outage", terms.outage.is_some()),
        ("share.weight", terms.share.weight.is_some()),
        ("share.priority", terms.share.priority.is_some()),
        ("share.kv_blocks_max", terms.share.kv_blocks_max.is_some()),
        ("share.resident_adapters_max", terms.share.resident_adapters_max.is_some()),
        ("share.waiting_requests_max", terms.share.waiting_requests_max.is_some()),
    ];
    [limits::paths(&given), limits::changed(&terms.limits)].concat()
}

async fn list(admin: &Admin, as_json: bool) -> Outcome {
    let mut plans = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = admin.plans().list_plans(ListPlansRequest { page_size: 0, page_token }).await?.into_inner();
        plans.extend(page.plans);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let plans: Vec<_> = plans.iter().map(json::plan).collect();
        return Ok(output::print_json(&json!({ "plans": plans }))?);
    }
    let mut table = Table::new(&["PLAN", "DISPLAY NAME", "WEIGHT", "PRIORITY", "OUTAGE", "CREATED"]);
    for plan in &plans {
        let share = plan.share.unwrap_or_default();
        table.row([
            last_segment(&plan.name).to_owned(),
            plan.display_name.clone(),
            number(share.weight),
            number(share.priority),
            json::outage(plan.outage()).to_owned(),
            time_text(plan.create_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}

fn show(plan: &Plan, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&json::plan(plan))?);
    }
    let share = plan.share.unwrap_or_default();
    let mut table = Table::new(&["PLAN", last_segment(&plan.name)]);
    table.row(["display name".into(), plan.display_name.clone()]);
    limits::rows(&mut table, plan.limits.unwrap_or_default(), "default");
    table.row(["weight".into(), number(share.weight)]);
    table.row(["priority".into(), number(share.priority)]);
    table.row(["KV blocks".into(), number(share.kv_blocks_max)]);
    table.row(["resident adapters".into(), number(share.resident_adapters_max)]);
    table.row(["waiting requests".into(), number(share.waiting_requests_max)]);
    table.row(["outage of shared limits".into(), json::outage(plan.outage()).to_owned()]);
    table.row(["created".into(), time_text(plan.create_time.as_ref())]);
    Ok(table.print()?)
}

fn number(value: u32) -> String {
    if value == 0 { "default".to_owned() } else { value.to_string() }
}
