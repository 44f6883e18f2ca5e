//! `banyan adapter evaluate | retire | history`: the life of a version.

use std::{io::Read as _, path::Path};

use domain::VersionName;
use proto::v1::{
    AdapterVersion, EvaluateAdapterVersionRequest, ListAdapterVersionStepsRequest, RetireAdapterVersionRequest,
};
use serde_json::json;

use super::name::Named;
use crate::{
    cli::{EvaluateArgs, RetireArgs},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, time_text},
};

/// # Errors
/// The report cannot be read, or the server's refusal.
pub async fn evaluate(admin: &Admin, named: &Named, args: EvaluateArgs, as_json: bool) -> Outcome {
    let report_json = read(&args.report)?;
    let request = EvaluateAdapterVersionRequest { name: name(named)?, report_json, reason: args.reason };
    let version = admin.adapters().evaluate_adapter_version(request).await?.into_inner();
    print(&version, as_json)
}

/// # Errors
/// The server's refusal.
pub async fn retire(admin: &Admin, named: &Named, args: RetireArgs, as_json: bool) -> Outcome {
    let request = RetireAdapterVersionRequest { name: name(named)?, reason: args.reason };
    let version = admin.adapters().retire_adapter_version(request).await?.into_inner();
    print(&version, as_json)
}

/// # Errors
/// The server's refusal.
pub async fn history(admin: &Admin, named: &Named, as_json: bool) -> Outcome {
    let (parent, mut steps, mut page_token) = (name(named)?, Vec::new(), String::new());
    loop {
        let request = ListAdapterVersionStepsRequest { parent: parent.clone(), page_size: 0, page_token };
        let page = admin.adapters().list_adapter_version_steps(request).await?.into_inner();
        steps.extend(page.steps);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "from": json::state(step.from()),
                    "to": json::state(step.to()),
                    "reason": step.reason,
                    "actor": step.actor,
                    "time": json::moment(step.time.as_ref()),
                })
            })
            .collect();
        return Ok(output::print_json(&json!({ "steps": steps }))?);
    }
    let mut table = Table::new(&["TIME", "FROM", "TO", "BY", "REASON"]);
    for step in steps {
        let to = match json::state(step.to()) {
            "" => "deleted",
            state => state,
        };
        table.row([
            time_text(step.time.as_ref()),
            json::state(step.from()).to_owned(),
            to.to_owned(),
            step.actor,
            step.reason,
        ]);
    }
    Ok(table.print()?)
}

fn name(named: &Named) -> Result<String, Failure> {
    let digest = named.digest.ok_or_else(|| Failure::Usage("name a version: …@sha256:<digest>".to_owned()))?;
    let adapter = named.adapter.clone();
    Ok(VersionName { tenant: adapter.tenant, adapter: adapter.adapter, digest }.to_string())
}

fn read(report: &Path) -> Result<String, Failure> {
    let text = if report == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(report)
    };
    text.map_err(|error| Failure::Failed(format!("{}: {error}", report.display())))
}

fn print(version: &AdapterVersion, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&json::version(version))?);
    }
    Ok(output::line(&format!("{} is {}", version.digest, json::state(version.state())))?)
}
