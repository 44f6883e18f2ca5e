//! Canaries, shadows, pins and planned changes of aliases.

use domain::{AliasChange, Role, RolloutError, VersionSelector};
use store::{
    ApiKeyFields, NewApiKey, NewSchedule, Pinned, Precondition, Resource, ScheduleState, ShadowPair, ShadowTally,
    Stock, Store, StoreError,
};
use time::{Duration, OffsetDateTime};

use super::{adapter, digest, part, pin, push, slug, tenant};
use crate::assert_refused;

fn soon(change: AliasChange) -> NewSchedule {
    NewSchedule { change, due_at: OffsetDateTime::now_utc() - Duration::SECOND }
}

pub async fn a_canary_is_begun_promoted_and_taken_back_in_one_step(store: &Store) {
    let (own, name) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, None).await;
    let absent = own.change_alias(&claims, &slug("other"), AliasChange::Promote, None).await;
    assert_refused!(absent, StoreError::NotFound { what: Resource::Alias, .. });
    assert_refused!(
        own.change_alias(&claims, &live, AliasChange::Promote, None).await,
        StoreError::FailedPrecondition(Precondition::Rollout(RolloutError::NoCanary))
    );
    let canary = |byte, share| AliasChange::Canary(part(byte, share));
    assert_refused!(
        own.change_alias(&claims, &live, canary(9, 1), None).await,
        StoreError::NotFound { what: Resource::AdapterVersion, .. }
    );
    let begun = own.change_alias(&claims, &live, canary(2, 500), None).await.expect("begin");
    let route = own.route(&name, &claims, &VersionSelector::live()).await.expect("route");
    let found = route.canary.expect("a canary");
    assert_eq!((found.version.digest, found.share), (digest(2), part(2, 500).share));
    let stale = own.change_alias(&claims, &live, AliasChange::Promote, Some("stale")).await;
    assert_refused!(stale, StoreError::Conflict { .. });
    let promoted = own.change_alias(&claims, &live, AliasChange::Promote, Some(&begun.etag)).await.expect("promote");
    assert_eq!((promoted.targets.stable, promoted.targets.previous), (digest(2), Some(digest(1))));
    assert!(promoted.targets.canary.is_none() && promoted.etag != begun.etag);
    let salt = own.route(&name, &claims, &VersionSelector::live()).await.expect("route").salt;
    assert_eq!(salt, route.salt, "a key falls on the same side for the life of the alias");
    let back = own.change_alias(&claims, &live, AliasChange::Rollback, Some(&promoted.etag)).await.expect("back");
    assert_eq!(back.targets.stable, digest(1));
    assert_eq!(own.get_alias(&claims, &live).await.expect("get"), back);
}

pub async fn pins_are_made_once_for_each_caller_and_change_the_etag(store: &Store) {
    let (own, name) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, None).await;
    let key = NewApiKey {
        public_id: uuid::Uuid::now_v7().simple().to_string()[20..].to_owned(),
        secret_hash: [1; 32],
        role: Role::Inference,
        fields: ApiKeyFields::default(),
    };
    let key = own.create_api_key(key).await.expect("a key");
    let before = own.get_alias(&claims, &live).await.expect("get").etag;
    let ann = Pinned::RoutingKey("ann".into());
    own.create_pin(&claims, &live, pin(ann.clone(), 1), 2, Some(&before)).await.expect("pin");
    assert_refused!(
        own.create_pin(&claims, &live, pin(ann.clone(), 2), 2, Some(&before)).await,
        StoreError::Conflict { .. }
    );
    own.create_pin(&claims, &live, pin(ann.clone(), 2), 2, None).await.expect("in place of the first");
    let of_key = pin(Pinned::ApiKey(key.public_id.clone()), 2);
    let of_key = own.create_pin(&claims, &live, of_key, 2, None).await.expect("pin");
    assert_eq!(of_key.api_key, Some(key.id));
    assert_refused!(
        own.create_pin(&claims, &live, pin(Pinned::Tenant, 1), 2, None).await,
        StoreError::QuotaExceeded { stock: Stock::Pins, max: 2, used: 2, wanted: 1 }
    );
    let nobody = pin(Pinned::ApiKey("nobodynobody".into()), 1);
    assert_refused!(
        own.create_pin(&claims, &live, nobody, 9, None).await,
        StoreError::NotFound { what: Resource::ApiKey, .. }
    );
    let listed = own.list_pins(&claims, &live).await.expect("list");
    assert_eq!(
        listed.iter().map(|pin| (&pin.who, pin.digest)).collect::<Vec<_>>(),
        [(&ann, digest(2)), (&of_key.who, digest(2))]
    );
    assert_eq!(own.route(&name, &claims, &VersionSelector::live()).await.expect("route").pins.len(), 2);
    own.delete_pin(&claims, &live, of_key.id, None).await.expect("unpin");
    assert_refused!(own.delete_pin(&claims, &live, of_key.id, None).await, StoreError::NotFound { .. });

    let mut over = pin(Pinned::Tenant, 2);
    over.expires_at = OffsetDateTime::now_utc() - Duration::SECOND;
    own.create_pin(&claims, &live, over, 9, None).await.expect("one that is over");
    let known = own.route(&name, &claims, &VersionSelector::live()).await.expect("route").pins;
    assert_eq!(known.into_iter().map(|pin| pin.who).collect::<Vec<_>>(), [ann]);
    own.delete_pin(&claims, &live, listed[0].id, None).await.expect("unpin");
    own.delete_version(&claims, digest(2)).await.expect("a pin that is over holds nothing");
}

pub async fn planned_changes_follow_one_another_and_yield_to_anybody_else(store: &Store) {
    let (own, _) = tenant(store).await;
    let own = own.by("ann");
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, None).await;
    let plan = |change| own.create_schedule(&claims, &live, change, 9, None);
    let begin = plan(soon(AliasChange::Canary(part(2, 500)))).await.expect("plan");
    let more = plan(soon(AliasChange::Weight(part(2, 5_000).share))).await.expect("plan");
    let promote = plan(soon(AliasChange::Promote)).await.expect("plan");
    let mine: Vec<_> = due(store).await.into_iter().filter(|(tenant, _)| *tenant == own.id()).collect();
    let order: Vec<_> = [&begin, &more, &promote].iter().map(|schedule| (own.id(), schedule.id)).collect();
    assert_eq!(mine, order);
    for id in [begin.id, more.id] {
        let (adapter, done) = own.run_schedule(id).await.expect("run").expect("was due");
        assert_eq!((adapter, done.state), (claims.clone(), ScheduleState::Done));
        assert!(own.run_schedule(id).await.expect("run again").is_none(), "once is enough");
    }
    assert_eq!(own.get_alias(&claims, &live).await.expect("get").targets.canary, Some(part(2, 5_000)));
    // Somebody else takes the wheel.
    own.change_alias(&claims, &live, AliasChange::Weight(part(2, 100).share), None).await.expect("by hand");
    let (_, failed) = own.run_schedule(promote.id).await.expect("run").expect("was due");
    assert_eq!(failed.state, ScheduleState::Failed);
    assert!(failed.outcome.contains("somebody else"), "{}", failed.outcome);
    assert_eq!(own.get_alias(&claims, &live).await.expect("get").targets.stable, digest(1), "nothing has changed");

    let later =
        NewSchedule { change: AliasChange::Move(digest(2)), due_at: OffsetDateTime::now_utc() + Duration::HOUR };
    let later = own.create_schedule(&claims, &live, later, 9, None).await.expect("plan");
    assert!(own.run_schedule(later.id).await.expect("run").is_none(), "its time has not come");
    let cancelled = own.cancel_schedule(&claims, &live, later.id).await.expect("cancel");
    assert_eq!(cancelled.state, ScheduleState::Cancelled);
    assert_refused!(
        own.cancel_schedule(&claims, &live, later.id).await,
        StoreError::FailedPrecondition(Precondition::ScheduleIsOver)
    );
    assert_refused!(plan(soon(AliasChange::Move(digest(9)))).await, StoreError::NotFound { .. });
    assert_refused!(plan(soon(AliasChange::ClearShadow)).await, StoreError::InvalidValue { .. });
    assert_refused!(
        own.create_schedule(&claims, &live, soon(AliasChange::Promote), 0, None).await,
        StoreError::QuotaExceeded { stock: Stock::Schedules, .. }
    );
    let orphan = plan(soon(AliasChange::Promote)).await.expect("plan");
    own.delete_alias(&claims, &live).await.expect("delete");
    assert!(own.run_schedule(orphan.id).await.expect("run").is_none());
    let listed = own.list_schedules(&claims, &live).await.expect("list");
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|schedule| schedule.actor == "ann" && schedule.finished_at.is_some()));
    assert_eq!(listed[0].outcome, "the alias was deleted");
}

async fn due(store: &Store) -> Vec<(domain::TenantId, uuid::Uuid)> {
    store.platform().due_schedules(1_000).await.expect("due")
}

pub async fn comparisons_with_a_shadow_add_up_and_are_kept_for_the_last_pairs(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    let pair = |byte| ShadowPair {
        adapter: claims.clone(),
        alias: live.clone(),
        digest: digest(1),
        shadow_digest: digest(byte),
    };
    let one = ShadowTally { compared: 1, equal: 1, similarity: 10_000, answer_ms: 5, ..ShadowTally::default() };
    let other = ShadowTally { compared: 1, equal_tokens: 3, similarity: 2_000, shadow_ms: 7, ..ShadowTally::default() };
    own.add_to_shadow_report(&pair(2), one).await.expect("add");
    own.add_to_shadow_report(&pair(2), other).await.expect("add");
    let report = own.shadow_reports(&claims, &live).await.expect("report").remove(0);
    let sum = ShadowTally { compared: 2, equal_tokens: 3, similarity: 12_000, shadow_ms: 7, ..one };
    assert_eq!((report.shadow_digest, report.tally), (digest(2), sum));
    for byte in 3..=20 {
        own.add_to_shadow_report(&pair(byte), one).await.expect("add");
    }
    let kept = own.shadow_reports(&claims, &live).await.expect("report");
    assert_eq!(
        kept.iter().map(|report| report.shadow_digest).collect::<Vec<_>>(),
        (5..=20).rev().map(digest).collect::<Vec<_>>()
    );
    let gone = ShadowPair { adapter: slug("absent"), ..pair(2) };
    own.add_to_shadow_report(&gone, one).await.expect("an adapter that is gone keeps nothing");
}
