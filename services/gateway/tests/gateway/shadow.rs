//! Shadows: compared, never returned, never in the way.

use std::time::Instant;

use proto::v1;
use store::Outcome;

use crate::{fake_worker::Act, platform::within, rollouts::Stage};

const LIVE: &str = "tenants/acme/adapters/claims/aliases/live";

async fn shadow(stage: &Stage) {
    let request = v1::SetShadowRequest {
        name: LIVE.into(),
        digest: stage.new.clone(),
        basis_points: 10_000,
        ..Default::default()
    };
    stage.rollouts().set_shadow(request).await.expect("sets a shadow");
}

/// Waits until the one comparison says so.
async fn report(stage: &Stage, until: impl Fn(&v1::ShadowComparison) -> bool) -> v1::ShadowComparison {
    within(async {
        loop {
            let request = v1::GetShadowReportRequest { name: LIVE.into() };
            let report = stage.rollouts().get_shadow_report(request).await.expect("gets").into_inner();
            if let Some(found) = report.comparisons.into_iter().find(&until) {
                return found;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_shadow_answers_unseen_at_no_cost_and_behind_everybody() {
    let stage = Stage::set("").await;
    shadow(&stage).await;
    stage.worker.will_with(&stage.new, vec![Act::Say("ab"), Act::Finish]);
    stage.worker.will(vec![Act::Say("ac"), Act::Say("d"), Act::Finish]);
    for _ in 0..3 {
        assert_eq!(stage.answered_by("").await, stage.old);
    }
    let found = report(&stage, |comparison| comparison.compared == 3).await;
    assert_eq!((&found.digest, &found.shadow_digest), (&stage.old, &stage.new));
    assert_eq!((found.equal, found.failed, found.equal_tokens_mean), (0, 0, 1.0));
    assert_eq!(found.completion_tokens, 6);
    // One record for each real answer, none for the shadow's.
    let records = stage.platform.usage_of(&stage.acme, 3).await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.adapter_digest.expect("an adapter").to_string() == stage.old));
    // A worker serves it behind every tenant, at nobody's expense.
    let asked = stage.worker.requests();
    let (shadows, real): (Vec<_>, Vec<_>) =
        asked.iter().partition(|request| request.adapter.as_ref().is_some_and(|pin| pin.digest == stage.new));
    assert_eq!((shadows.len(), real.len()), (3, 3));
    let (shadow, real) = (shadows[0].share.clone().expect("a share"), real[0].share.clone().expect("a share"));
    assert_eq!(shadow.priority, 1);
    assert!(shadow.tenant_id != real.tenant_id);

    stage.worker.will(vec![Act::Say("ab"), Act::Finish]);
    stage.answered_by("").await;
    let found = report(&stage, |comparison| comparison.compared == 4).await;
    assert_eq!(found.equal, 1);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_shadow_that_hangs_or_fails_neither_delays_nor_fails_an_answer() {
    let settings = "[shadow]\nqueue_max = 2\nrunning_max = 1\ndeadline_ms = 600\n";
    let stage = Stage::set(settings).await;
    shadow(&stage).await;
    stage.worker.will_with(&stage.new, vec![Act::Hang]);
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(stage.answered_by("").await, stage.old);
    }
    let took = begin.elapsed();
    // One after another, two of them would have waited longer than this for a shadow.
    assert!(took.as_millis() < 1_200, "ten answers took {took:?}");
    let found = report(&stage, |comparison| comparison.failed >= 2 && comparison.skipped > 0).await;
    assert_eq!(found.compared, 0);
    assert!(found.failed + found.skipped <= 10, "{found:?}");
    stage.worker.will_with(&stage.new, vec![Act::Break]);
    assert_eq!(stage.answered_by("").await, stage.old);
    let records = stage.platform.usage_of(&stage.acme, 11).await;
    assert!(records.iter().all(|record| matches!(record.outcome, Outcome::Finished(_))));
    stage.platform.stop().await;
}
