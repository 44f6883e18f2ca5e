//! `banyan adapter shadow …`: a version that answers besides, and what became of it.

use domain::AdapterName;
use proto::v1::{ClearShadowRequest, GetShadowReportRequest, SetShadowRequest, ShadowComparison};
use serde_json::{Value, json};

use super::rollout::{alias_name, finish, named};
use crate::{
    cli::ShadowVerb,
    client::Admin,
    failure::Outcome,
    output::{self, Table, json, short_digest},
};

/// As it was typed.
pub fn name(verb: &ShadowVerb) -> String {
    match verb {
        ShadowVerb::Set { change, .. } | ShadowVerb::End { change } => change.alias.name.to_string(),
        ShadowVerb::Show { alias } => alias.name.to_string(),
    }
}

/// # Errors
/// The server's refusal.
pub async fn shadow(admin: &Admin, adapter: AdapterName, verb: ShadowVerb, as_json: bool) -> Outcome {
    match verb {
        ShadowVerb::Set { change, digest, rate } => {
            let (name, etag) = named(admin, adapter, &change).await?;
            let (digest, basis_points) = (digest.to_string(), rate.get().into());
            let set = admin.rollouts().set_shadow(SetShadowRequest { name, digest, basis_points, etag }).await?;
            finish(admin, set.get_ref(), change.wait, as_json).await
        }
        ShadowVerb::End { change } => {
            let (name, etag) = named(admin, adapter, &change).await?;
            let ended = admin.rollouts().clear_shadow(ClearShadowRequest { name, etag }).await?;
            finish(admin, ended.get_ref(), change.wait, as_json).await
        }
        ShadowVerb::Show { alias } => {
            let name = alias_name(&adapter, alias.alias);
            let report = admin.rollouts().get_shadow_report(GetShadowReportRequest { name }).await?.into_inner();
            if as_json {
                let comparisons: Vec<_> = report.comparisons.iter().map(comparison_json).collect();
                return Ok(output::print_json(&json!({ "comparisons": comparisons }))?);
            }
            print(&report.comparisons)
        }
    }
}

fn print(comparisons: &[ShadowComparison]) -> Outcome {
    let mut table = Table::new(&[
        "ANSWERED",
        "SHADOW",
        "COMPARED",
        "EQUAL",
        "DIFFERS AFTER",
        "SIMILARITY",
        "ANSWER",
        "SHADOW TOOK",
        "FAILED",
        "SKIPPED",
    ]);
    for comparison in comparisons {
        table.row([
            short_digest(&comparison.digest).to_owned(),
            short_digest(&comparison.shadow_digest).to_owned(),
            comparison.compared.to_string(),
            comparison.equal.to_string(),
            format!("{:.1} tokens", comparison.equal_tokens_mean),
            format!("{:.3}", comparison.similarity_mean),
            format!("{:.0} ms", comparison.answer_ms_mean),
            format!("{:.0} ms", comparison.shadow_ms_mean),
            comparison.failed.to_string(),
            comparison.skipped.to_string(),
        ]);
    }
    Ok(table.print()?)
}

fn comparison_json(comparison: &ShadowComparison) -> Value {
    json!({
        "digest": comparison.digest,
        "shadow_digest": comparison.shadow_digest,
        "compared": comparison.compared,
        "equal": comparison.equal,
        "failed": comparison.failed,
        "skipped": comparison.skipped,
        "equal_tokens_mean": comparison.equal_tokens_mean,
        "similarity_mean": comparison.similarity_mean,
        "answer_ms_mean": comparison.answer_ms_mean,
        "shadow_ms_mean": comparison.shadow_ms_mean,
        "prompt_tokens": comparison.prompt_tokens,
        "completion_tokens": comparison.completion_tokens,
        "create_time": json::moment(comparison.create_time.as_ref()),
        "update_time": json::moment(comparison.update_time.as_ref()),
    })
}
