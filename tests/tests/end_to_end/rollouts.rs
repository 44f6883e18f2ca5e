//! Canaries, promotions, roll-backs and shadows under running answers, on the real engine.

use std::{collections::HashMap, time::Duration};

use proto::v1::{self, rollout_service_client::RolloutServiceClient};
use tonic::{Code, transport::Channel};

use crate::platform::{Platform, Settings, ask, ask_at_length, generate, generous, open, operator, read};

const QUESTION: &str = "What does E-17 mean?";
const LIVE: &str = "tenants/acme/adapters/claims/aliases/live";
const TOKENS: u32 = 60;

async fn rollouts(platform: &Platform) -> RolloutServiceClient<Channel> {
    RolloutServiceClient::new(platform.admin_channel().await)
}

/// `acme/claims`, live on the first of two versions, and a key.
async fn stage(platform: &Platform) -> (String, String, String) {
    let key = platform.tenant("acme", generous()).await;
    platform.create_adapter("acme", "claims").await;
    let old = platform.push("acme", "claims", "finance", "live").await;
    let new = platform.push("acme", "claims", "healthcare", "").await;
    (key, old, new)
}

fn canary(digest: &str, basis_points: u32) -> v1::SetCanaryRequest {
    v1::SetCanaryRequest { name: LIVE.into(), digest: digest.into(), basis_points, ..Default::default() }
}

/// Leads the alias from one version to the other and back, with a canary on the way.
async fn there_and_back(platform: &Platform, to: &str) {
    let mut rollouts = rollouts(platform).await;
    rollouts.set_canary(operator(canary(to, 3_000))).await.expect("begin");
    tokio::time::sleep(Duration::from_millis(20)).await;
    rollouts.set_canary(operator(canary("", 7_000))).await.expect("more");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let promote = v1::PromoteCanaryRequest { name: LIVE.into(), ..Default::default() };
    rollouts.promote_canary(operator(promote)).await.expect("promote");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let back = v1::RollbackAliasRequest { name: LIVE.into(), ..Default::default() };
    platform.adapters().await.rollback_alias(operator(back)).await.expect("roll back");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_during_a_rollout_is_wholly_of_one_version() {
    let platform = Platform::start(Settings::default()).await;
    let (key, old, new) = stage(&platform).await;
    let mut client = platform.inference().await;
    let mut expected = HashMap::new();
    for digest in [&old, &new] {
        let request = ask_at_length(&format!("acme/claims@{digest}"), QUESTION, TOKENS);
        expected.insert(digest.clone(), generate(&mut client, &key, request).await.expect("alone").tokens);
    }
    assert_ne!(expected[&old], expected[&new], "the versions must differ for this to show anything");

    let (mut answers, mut seen) = (Vec::new(), HashMap::<String, usize>::new());
    let asking = async {
        while seen.len() < 2 || answers.len() < 40 {
            let mut running = Vec::new();
            for number in 0..8 {
                let routing_key = format!("user-{number}");
                let request = v1::GenerateRequest { routing_key, ..ask_at_length("acme/claims", QUESTION, TOKENS) };
                running.push(open(&mut client, &key, request).await.expect("open"));
            }
            for stream in running {
                let answer = read(stream).await.expect("an answer");
                let digest = answer.finish.receipt.expect("a receipt").adapter_digest;
                *seen.entry(digest.clone()).or_default() += 1;
                answers.push((digest, answer.tokens));
            }
        }
    };
    let leading = async {
        loop {
            there_and_back(&platform, &new).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = leading => {}
    }
    for (digest, tokens) in &answers {
        assert_eq!(*tokens, expected[digest]);
    }
    platform.wait_until_idle(0).await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_retired_finishes_what_it_has_begun() {
    let platform = Platform::start(Settings::default()).await;
    let (key, old, new) = stage(&platform).await;
    let mut client = platform.inference().await;
    let request = || ask_at_length("acme/claims", QUESTION, 300);
    let expected = generate(&mut client, &key, request()).await.expect("alone");
    let mut stream = open(&mut client, &key, request()).await.expect("open");
    let first = stream.message().await.expect("a first step").expect("not ended");

    platform.move_alias("acme", "claims", "live", &new).await;
    let name = format!("tenants/acme/adapters/claims/versions/{}", old.strip_prefix("sha256:").expect("a digest"));
    let retire = v1::RetireAdapterVersionRequest { name, reason: "replaced".into() };
    platform.adapters().await.retire_adapter_version(operator(retire)).await.expect("retire");
    let refused = generate(&mut client, &key, ask(&format!("acme/claims@{old}"), QUESTION, 8)).await;
    assert_eq!(refused.expect_err("retired").code(), Code::FailedPrecondition);

    let rest = read(stream).await.expect("a running answer ends well");
    let tokens: Vec<_> = first.tokens.iter().map(|token| token.id).chain(rest.tokens).collect();
    assert_eq!(tokens, expected.tokens);
    assert_eq!(rest.finish.receipt.expect("a receipt").adapter_digest, old);
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_compared_and_leaves_answers_and_bills_alone() {
    let platform = Platform::start(Settings::default()).await;
    let (key, old, new) = stage(&platform).await;
    let mut client = platform.inference().await;
    let alone = generate(&mut client, &key, ask("acme/claims", QUESTION, 40)).await.expect("alone");
    let shadow =
        v1::SetShadowRequest { name: LIVE.into(), digest: new.clone(), basis_points: 10_000, ..Default::default() };
    rollouts(&platform).await.set_shadow(operator(shadow)).await.expect("set");
    for _ in 0..4 {
        let answer = generate(&mut client, &key, ask("acme/claims", QUESTION, 40)).await.expect("an answer");
        assert_eq!((&answer.text, &answer.tokens), (&alone.text, &alone.tokens));
        assert_eq!(answer.finish.receipt.expect("a receipt").adapter_digest, old);
    }
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let request = v1::GetShadowReportRequest { name: LIVE.into() };
            let report = rollouts(&platform).await.get_shadow_report(operator(request)).await.expect("report");
            match report.into_inner().comparisons.into_iter().find(|found| found.compared == 4) {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let found = patience.await.expect("four comparisons in time");
    assert_eq!((&found.digest, &found.shadow_digest), (&old, &new));
    assert!(found.equal == 0 && found.failed == 0 && found.similarity_mean < 1.0, "{found:?}");
    assert!(found.completion_tokens > 0);
    assert_eq!(platform.usage_of("finished", 5).await.0, 5, "a shadow is on nobody's bill");
    platform.wait_until_idle(0).await;
    platform.stop().await;
}
