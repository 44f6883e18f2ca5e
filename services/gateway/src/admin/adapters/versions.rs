//! The life of versions: evaluated, retired, and what became of each.

use domain::{AdapterName, Digest, Fault, VersionName};
use proto::v1;
use serde_json::Value;
use store::TenantScope;

use super::{
    Adapters, fault,
    wire::{wire_step, wire_version},
};
use crate::{
    guard::Session,
    parse::{self, Violations},
};

const REPORT_BYTES_MAX: usize = 128 << 10;
const REASON_CHARS_MAX: usize = 1_024;

impl Adapters {
    pub(super) async fn evaluate(
        &self,
        session: &Session,
        message: v1::EvaluateAdapterVersionRequest,
    ) -> Result<v1::AdapterVersion, Fault> {
        let mut violations = Violations::default();
        let name = violations.parse::<VersionName>("name", &message.name);
        let report = report(&mut violations, &message.report_json);
        reason(&mut violations, &message.reason);
        let (name, report) = violations.check(name.zip(report))?;
        let (rows, adapter, digest) = self.version(session, &name).await?;
        let evaluated = rows.evaluate_version(&adapter.adapter, digest, &report, &message.reason).await;
        Ok(wire_version(&adapter, evaluated.map_err(|error| fault(error, &adapter, Some(digest), &name))?))
    }

    pub(super) async fn retire(
        &self,
        session: &Session,
        message: v1::RetireAdapterVersionRequest,
    ) -> Result<v1::AdapterVersion, Fault> {
        let mut violations = Violations::default();
        let name = violations.parse::<VersionName>("name", &message.name);
        violations.require("reason", !message.reason.is_empty(), "must not be empty");
        reason(&mut violations, &message.reason);
        let name = violations.check(name)?;
        let (rows, adapter, digest) = self.version(session, &name).await?;
        let retired = rows.retire_version(&adapter.adapter, digest, &message.reason).await;
        let retired = retired.map_err(|error| fault(error, &adapter, Some(digest), &name))?;
        self.models.forget(rows.id(), &adapter.adapter);
        Ok(wire_version(&adapter, retired))
    }

    pub(super) async fn steps(
        &self,
        session: &Session,
        message: v1::ListAdapterVersionStepsRequest,
    ) -> Result<v1::ListAdapterVersionStepsResponse, Fault> {
        let name: VersionName = parse::name("parent", &message.parent)?;
        let page = parse::page(message.page_size, message.page_token)?;
        let (rows, adapter, digest) = self.version(session, &name).await?;
        let steps = rows.version_history(&adapter.adapter, digest, &page).await;
        let steps = steps.map_err(|error| fault(error, &adapter, Some(digest), &name))?;
        Ok(v1::ListAdapterVersionStepsResponse {
            steps: steps.items.into_iter().map(wire_step).collect(),
            next_page_token: steps.next_page_token,
        })
    }

    async fn version(
        &self,
        session: &Session,
        name: &VersionName,
    ) -> Result<(TenantScope, AdapterName, Digest), Fault> {
        let adapter = AdapterName { tenant: name.tenant.clone(), adapter: name.adapter.clone() };
        let rows = self.reach(session, &adapter).await?.rows;
        Ok((rows, adapter, name.digest))
    }
}

/// Text that people read.
pub fn reason(violations: &mut Violations, text: &str) {
    let fits = text.chars().count() <= REASON_CHARS_MAX && !text.chars().any(char::is_control);
    violations.require("reason", fits, "must have at most 1024 characters, none of them a control character");
}

fn report(violations: &mut Violations, text: &str) -> Option<Value> {
    if text.len() > REPORT_BYTES_MAX {
        violations.add("report_json", "must be at most 128 KiB");
        return None;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(report) if report.is_object() => Some(report),
        Ok(_) => {
            violations.add("report_json", "must be a JSON object");
            None
        }
        Err(error) => {
            violations.add("report_json", format!("is not JSON: {error}"));
            None
        }
    }
}
