//! What shadows were found to answer, as a message.

use domain::{AliasName, BasisPoints, Fault};
use proto::v1;
use store::ShadowReport;

use super::Rollouts;
use crate::{
    admin::adapters::fault,
    guard::Session,
    parse::{self, wire_time},
};

impl Rollouts {
    pub(super) async fn shadow_report(
        &self,
        session: &Session,
        message: &v1::GetShadowReportRequest,
    ) -> Result<v1::ShadowReport, Fault> {
        let name: AliasName = parse::name("name", &message.name)?;
        let rows = self.reach(session, &name).await?;
        let reports = rows.shadow_reports(&name.adapter, &name.alias).await;
        let reports = reports.map_err(|error| fault(error, &name.parent(), None, &name))?;
        Ok(v1::ShadowReport { comparisons: reports.into_iter().map(wire).collect() })
    }
}

fn wire(report: ShadowReport) -> v1::ShadowComparison {
    let tally = report.tally;
    let whole = f64::from(BasisPoints::WHOLE.get());
    v1::ShadowComparison {
        digest: report.digest.to_string(),
        shadow_digest: report.shadow_digest.to_string(),
        compared: tally.compared,
        equal: tally.equal,
        failed: tally.failed,
        skipped: tally.skipped,
        equal_tokens_mean: mean(tally.equal_tokens, tally.compared - tally.equal),
        similarity_mean: mean(tally.similarity, tally.compared) / whole,
        answer_ms_mean: mean(tally.answer_ms, tally.compared),
        shadow_ms_mean: mean(tally.shadow_ms, tally.compared),
        prompt_tokens: tally.prompt_tokens,
        completion_tokens: tally.completion_tokens,
        create_time: Some(wire_time(report.created_at)),
        update_time: Some(wire_time(report.updated_at)),
    }
}

/// 0 of nothing.
fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}
