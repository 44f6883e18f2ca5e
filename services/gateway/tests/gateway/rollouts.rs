//! Aliases on their way from one version to the next: who gets which version, and what nobody gets.

use std::time::{Duration, SystemTime};

use domain::{Detail, Reason};
use proto::v1::{self, pin::Who, rollout_service_client::RolloutServiceClient, schedule::Change};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    fake_worker::{Act, FakeWorker},
    platform::{Bearer, OPERATOR, Platform, TestTenant, ask, collect, fault, within},
    uploads::{files, make_adapter, upload},
};

const CLAIMS: &str = "tenants/acme/adapters/claims";
const LIVE: &str = "tenants/acme/adapters/claims/aliases/live";
const MODEL: &str = "acme/claims";

/// A platform whose `acme/claims` is live on the first of two versions.
pub struct Stage {
    pub worker: FakeWorker,
    pub platform: Platform,
    pub acme: TestTenant,
    pub old: String,
    pub new: String,
}

impl Stage {
    pub async fn set(settings: &str) -> Self {
        let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
        let platform = Platform::start_with(&[&worker], settings).await;
        let acme = platform.tenant("acme", generous()).await;
        make_adapter(&platform, &acme.admin, "acme", "claims").await;
        let old = upload(&platform, &acme.admin, CLAIMS, "live", files("finance")).await.expect("taken").digest;
        let new = upload(&platform, &acme.admin, CLAIMS, "", files("legal")).await.expect("taken").digest;
        Self { worker, platform, acme, old, new }
    }

    pub fn rollouts(&self) -> RolloutServiceClient<InterceptedService<Channel, Bearer>> {
        self.rollouts_of(&self.acme.admin)
    }

    fn rollouts_of(&self, token: &str) -> RolloutServiceClient<InterceptedService<Channel, Bearer>> {
        let channel = self.platform.channel(self.platform.gateway.admin_addr);
        RolloutServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    pub async fn canary(&self, digest: &str, basis_points: u32) -> v1::Alias {
        let request =
            v1::SetCanaryRequest { name: LIVE.into(), digest: digest.into(), basis_points, ..Default::default() };
        self.rollouts().set_canary(request).await.expect("sets a canary").into_inner()
    }

    /// The version that answered.
    pub async fn answered_by(&self, routing_key: &str) -> String {
        let request = v1::GenerateRequest { routing_key: routing_key.to_owned(), ..ask(MODEL) };
        let answer = self.platform.generate(&self.acme.key, request).await.expect("an answer");
        answer.finish.receipt.expect("a receipt").adapter_digest
    }
}

fn generous() -> v1::TenantLimits {
    v1::TenantLimits {
        requests_per_minute: 100_000,
        input_tokens_per_minute: 100_000_000,
        output_tokens_per_minute: 100_000_000,
        concurrent_requests: 1_000,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_canary_takes_its_share_of_keys_keeps_them_as_it_grows_and_goes_back_in_one_step() {
    let stage = Stage::set("").await;
    let keys: Vec<_> = (0..120).map(|number| format!("user-{number}")).collect();
    let mut before = vec![false; keys.len()];
    for (weight, bounds) in [(2_500, 11..=49), (6_000, 50..=94), (10_000, 120..=120)] {
        let digest = if weight == 2_500 { stage.new.as_str() } else { "" };
        stage.canary(digest, weight).await;
        let mut share = 0;
        for (key, before) in keys.iter().zip(&mut before) {
            let on_canary = stage.answered_by(key).await == stage.new;
            assert!(on_canary || !*before, "{key} went back at {weight}");
            *before = on_canary;
            share += usize::from(on_canary);
        }
        // Four standard deviations of a binomial distribution.
        assert!(bounds.contains(&share), "{share} of 120 at {weight}");
    }
    let promoted = v1::PromoteCanaryRequest { name: LIVE.into(), ..Default::default() };
    let promoted = stage.rollouts().promote_canary(promoted).await.expect("promotes").into_inner();
    assert_eq!((&promoted.digest, &promoted.previous_digest), (&stage.new, &stage.old));
    assert_eq!(promoted.canary, None);
    assert_eq!(stage.answered_by("user-1").await, stage.new);
    let back = v1::RollbackAliasRequest { name: LIVE.into(), etag: promoted.etag };
    stage.platform.adapters(&stage.acme.admin).rollback_alias(back).await.expect("rolls back");
    for key in &keys[..10] {
        assert_eq!(stage.answered_by(key).await, stage.old);
    }
    // What ran is what is on record, once the last of them has been shipped.
    within(async {
        while last_on_record(&stage).await != stage.old {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stage.platform.stop().await;
}

async fn last_on_record(stage: &Stage) -> String {
    let records = stage.platform.usage(&stage.acme).await;
    records[0].adapter_digest.expect("an adapter").to_string()
}

#[tokio::test]
async fn every_gateway_sends_a_key_to_the_same_version() {
    let stage = Stage::set("").await;
    stage.canary(&stage.new, 5_000).await;
    let beside = stage.platform.beside(&[&stage.worker], "").await;
    for number in 0..20 {
        let key = format!("user-{number}");
        let here = stage.answered_by(&key).await;
        let request = v1::GenerateRequest { routing_key: key.clone(), ..ask(MODEL) };
        let mut there = stage.platform.inference_at(beside.inference_addr, &stage.acme.key);
        let stream = there.generate(request).await.expect("begins").into_inner();
        let there = collect(stream).await.expect("an answer").finish.receipt.expect("a receipt");
        assert_eq!(there.adapter_digest, here, "{key}");
    }
    stage.platform.stop().await;
    within(beside.join()).await.expect("ends well");
}

#[tokio::test]
async fn without_a_routing_key_each_request_is_drawn() {
    let stage = Stage::set("").await;
    stage.canary(&stage.new, 5_000).await;
    let mut on_canary = 0;
    for _ in 0..60 {
        on_canary += usize::from(stage.answered_by("").await == stage.new);
    }
    // Four standard deviations: once in sixteen thousand runs it is outside.
    assert!((14..=46).contains(&on_canary), "{on_canary} of 60");
    stage.platform.stop().await;
}

#[tokio::test]
async fn of_two_operators_who_saw_the_same_alias_one_is_refused() {
    let stage = Stage::set("").await;
    let seen = stage.canary(&stage.new, 1_000).await.etag;
    let more = |basis_points| v1::SetCanaryRequest {
        name: LIVE.into(),
        basis_points,
        etag: seen.clone(),
        ..Default::default()
    };
    let (mut one, mut other) = (stage.rollouts(), stage.rollouts_of(OPERATOR));
    let outcomes = tokio::join!(one.set_canary(more(2_000)), other.set_canary(more(3_000)));
    let lost = match outcomes {
        (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => fault(&lost),
        other => panic!("one wins: {other:?}"),
    };
    assert_eq!(lost.reason, Reason::EtagMismatch);
    let promote = v1::PromoteCanaryRequest { name: LIVE.into(), etag: seen };
    assert_eq!(fault(&one.promote_canary(promote).await.expect_err("stale")).reason, Reason::EtagMismatch);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_pinned_caller_keeps_its_version_wherever_the_alias_goes() {
    let stage = Stage::set("").await;
    let pin = |who, digest: &str, seconds| v1::CreatePinRequest {
        parent: LIVE.into(),
        pin: Some(v1::Pin {
            who: Some(who),
            digest: digest.into(),
            expire_time: Some((SystemTime::now() + Duration::from_secs(seconds)).into()),
            reason: "a complaint".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut rollouts = stage.rollouts();
    let ann = Who::RoutingKey("ann".into());
    rollouts.create_pin(pin(ann, &stage.old, 3_600)).await.expect("pins");
    let move_on = v1::MoveAliasRequest { name: LIVE.into(), digest: stage.new.clone(), ..Default::default() };
    stage.platform.adapters(&stage.acme.admin).move_alias(move_on).await.expect("moves");
    assert_eq!(stage.answered_by("ann").await, stage.old);
    assert_eq!(stage.answered_by("bob").await, stage.new);
    let of_key = Who::ApiKey(stage.acme.key[3..15].to_owned());
    rollouts.create_pin(pin(of_key, &stage.old, 3_600)).await.expect("pins");
    assert_eq!(stage.answered_by("bob").await, stage.old);

    let refused = retire(&stage, &stage.old).await.expect_err("pinned");
    assert_eq!(refused.reason, Reason::FailedPrecondition);
    let [Detail::Precondition { kind, .. }, ..] = &refused.details[..] else { panic!("{refused:?}") };
    assert_eq!(kind, "VersionHasPin");

    let pins = rollouts.list_pins(v1::ListPinsRequest { parent: LIVE.into() }).await.expect("lists").into_inner().pins;
    assert_eq!(pins.len(), 2);
    for pin in pins {
        rollouts.delete_pin(v1::DeletePinRequest { name: pin.name, ..Default::default() }).await.expect("unpins");
    }
    assert_eq!(stage.answered_by("ann").await, stage.new);
    let nobody = pin(Who::ApiKey("nobodynobody".into()), &stage.old, 60);
    let missing = fault(&rollouts.create_pin(nobody).await.expect_err("no such key"));
    assert_eq!((missing.reason, missing.message.as_str()), (Reason::NotFound, "API key `nobodynobody` was not found"));
    let empty = v1::CreatePinRequest { parent: LIVE.into(), ..Default::default() };
    assert_eq!(fault(&rollouts.create_pin(empty).await.expect_err("empty")).reason, Reason::InvalidRequest);
    stage.platform.stop().await;
}

async fn retire(stage: &Stage, digest: &str) -> Result<v1::AdapterVersion, domain::Fault> {
    let name = version_name(digest);
    let request = v1::RetireAdapterVersionRequest { name, reason: "not needed any more".into() };
    let retired = stage.platform.adapters(&stage.acme.admin).retire_adapter_version(request).await;
    retired.map(tonic::Response::into_inner).map_err(|status| fault(&status))
}

fn version_name(digest: &str) -> String {
    format!("{CLAIMS}/versions/{}", digest.strip_prefix("sha256:").expect("a digest"))
}

#[tokio::test]
async fn a_retired_version_is_refused_and_its_life_can_be_read() {
    let stage = Stage::set("").await;
    let mut adapters = stage.platform.adapters(&stage.acme.admin);
    let by_digest = format!("{MODEL}@{}", stage.new);
    stage.platform.generate(&stage.acme.key, ask(&by_digest)).await.expect("an answer");
    let evaluate = v1::EvaluateAdapterVersionRequest {
        name: version_name(&stage.new),
        report_json: "{\"score\":0.5}".into(),
        ..Default::default()
    };
    let evaluated = adapters.evaluate_adapter_version(evaluate.clone()).await.expect("evaluates").into_inner();
    assert_eq!((evaluated.state(), evaluated.report_json.as_str()), (v1::VersionState::Evaluated, "{\"score\":0.5}"));
    for wrong in ["", "[1]", "{\"a\":\"\\u0000\"}"] {
        let wrong = v1::EvaluateAdapterVersionRequest { report_json: wrong.into(), ..evaluate.clone() };
        let refused = fault(&adapters.evaluate_adapter_version(wrong).await.expect_err("no report"));
        assert_eq!(refused.reason, Reason::InvalidRequest);
    }
    assert_eq!(retire(&stage, &stage.new).await.expect("retires").state(), v1::VersionState::Retired);
    let refused = stage.platform.generate(&stage.acme.key, ask(&by_digest)).await.err().expect("retired");
    assert_eq!(refused.reason, Reason::FailedPrecondition);
    assert!(refused.message.contains("retired"), "{}", refused.message);
    let named = retire(&stage, &stage.old).await.expect_err("an alias names it");
    assert_eq!(named.reason, Reason::FailedPrecondition);

    let request = v1::ListAdapterVersionStepsRequest { parent: version_name(&stage.new), ..Default::default() };
    let steps = adapters.list_adapter_version_steps(request).await.expect("lists").into_inner().steps;
    use v1::VersionState::{Checked, Evaluated, Retired, Uploaded};
    let states: Vec<_> = steps.iter().rev().map(v1::AdapterVersionStep::to).collect();
    assert_eq!(states, [Uploaded, Checked, Evaluated, Retired]);
    assert_eq!(steps[0].reason, "not needed any more");
    assert!(!steps[0].actor.is_empty() && steps[0].actor != "platform", "{}", steps[0].actor);
    stage.platform.stop().await;
}

#[tokio::test]
async fn planned_changes_happen_at_their_time_and_can_be_taken_back() {
    let stage = Stage::set("rollouts.schedule_interval_ms = 20").await;
    let mut rollouts = stage.rollouts();
    let plan = |change, seconds| v1::CreateScheduleRequest {
        parent: LIVE.into(),
        schedule: Some(v1::Schedule {
            change: Some(change),
            due_time: Some((SystemTime::now() + Duration::from_secs(seconds)).into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let later = rollouts.create_schedule(plan(Change::Rollback(()), 3_600)).await.expect("plans").into_inner();
    let now = plan(Change::MoveTo(stage.new.clone()), 0);
    rollouts.create_schedule(now).await.expect("plans");
    within(async { while stage.answered_by("").await != stage.new {} }).await;
    let listed = rollouts.list_schedules(v1::ListSchedulesRequest { parent: LIVE.into() }).await.expect("lists");
    let states: Vec<_> = listed.into_inner().schedules.iter().map(v1::Schedule::state).collect();
    assert_eq!(states, [v1::ScheduleState::Pending, v1::ScheduleState::Done]);
    let cancel = v1::CancelScheduleRequest { name: later.name };
    let cancelled = rollouts.cancel_schedule(cancel.clone()).await.expect("cancels").into_inner();
    assert_eq!(cancelled.state(), v1::ScheduleState::Cancelled);
    let again = fault(&rollouts.cancel_schedule(cancel).await.expect_err("over"));
    assert_eq!(again.reason, Reason::FailedPrecondition);
    let mut empty = plan(Change::Promote(()), 0);
    empty.schedule = None;
    assert_eq!(fault(&rollouts.create_schedule(empty).await.expect_err("empty")).reason, Reason::InvalidRequest);
    stage.platform.stop().await;
}

/// With everything that tells gateways of changes cut down to the poll of the feed, and with it switched off in effect.
#[tokio::test]
async fn a_change_reaches_every_gateway_within_its_bound_and_the_fleet_says_when() {
    let slow_feed = "changes.poll_ms = 600000\nmodels.staleness_max_ms = 1000\n";
    for settings in ["", slow_feed] {
        let stage = Stage::set(settings).await;
        let beside = stage.platform.beside(&[&stage.worker], settings).await;
        let mut there = stage.platform.inference_at(beside.inference_addr, &stage.acme.key);
        let mut rollouts = stage.rollouts_of(OPERATOR);
        for round in 0..4 {
            let to = if round % 2 == 0 { &stage.new } else { &stage.old };
            // The other gateway remembers what the alias means now.
            let stream = there.generate(ask(MODEL)).await.expect("begins").into_inner();
            collect(stream).await.expect("an answer");
            let request = v1::MoveAliasRequest { name: LIVE.into(), digest: to.clone(), ..Default::default() };
            stage.platform.adapters(&stage.acme.admin).move_alias(request).await.expect("moves");
            let moved = std::time::Instant::now();
            assert_eq!(stage.answered_by("").await, *to, "at once where it was changed");
            within(async {
                loop {
                    let asked = std::time::Instant::now();
                    let stream = there.generate(ask(MODEL)).await.expect("begins").into_inner();
                    let answer = collect(stream).await.expect("an answer");
                    if answer.finish.receipt.expect("a receipt").adapter_digest == *to {
                        break;
                    }
                    let age = asked - moved;
                    assert!(age < Duration::from_millis(1_000), "stale after {age:?}");
                }
            })
            .await;
        }
        if settings.is_empty() {
            let mut request = v1::GetRolloutRequest { name: LIVE.into(), position: 0 };
            let rollout = within(async {
                loop {
                    let rollout = rollouts.get_rollout(request.clone()).await.expect("gets").into_inner();
                    if rollout.converged {
                        return rollout;
                    }
                    request.position = rollout.position;
                }
            })
            .await;
            assert_eq!(rollout.gateways.len(), 2);
            assert!(rollout.gateways.iter().all(|gateway| gateway.position >= rollout.position));
            assert_eq!(rollout.alias.expect("an alias").digest, stage.old);
        }
        stage.platform.stop().await;
        within(beside.join()).await.expect("ends well");
    }
}
