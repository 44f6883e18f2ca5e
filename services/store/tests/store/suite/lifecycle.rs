//! The life of versions.

use domain::{AliasChange, BasisPoints, Part, VersionSelector, VersionState};
use serde_json::json;
use store::{NewPin, Page, Pinned, Precondition, Store, StoreError, TenantScope};
use time::{Duration, OffsetDateTime};

use super::{adapter, digest, push, slug, tenant};
use crate::assert_refused;

async fn states(own: &TenantScope, byte: u8) -> Vec<Option<VersionState>> {
    let steps = own.version_history(&slug("claims"), digest(byte), &Page::first(50)).await.expect("history").items;
    steps.into_iter().rev().map(|step| step.to).collect()
}

pub fn part(byte: u8, share: u32) -> Part {
    Part { digest: digest(byte), share: BasisPoints::new(share).expect("in range") }
}

pub async fn a_version_goes_through_its_life_and_every_step_is_written_down(store: &Store) {
    use VersionState::{Checked, Evaluated, Live, Retired, Uploaded};
    let (own, _) = tenant(store).await;
    let own = own.by("ann");
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    assert_eq!(push(&own, &claims, 1, None).await.version.state, Checked);
    assert_eq!(push(&own, &claims, 2, Some("live")).await.version.state, Live);
    let report = json!({"score": 0.9});
    let evaluated = own.evaluate_version(&claims, digest(1), &report, "nightly").await.expect("evaluate");
    assert_eq!((evaluated.state, evaluated.report), (Evaluated, Some(report.clone())));
    let of_live = own.evaluate_version(&claims, digest(2), &report, "").await.expect("evaluate");
    assert_eq!(of_live.state, Live, "a live version stays live");
    own.move_alias(&claims, &live, digest(1), None).await.expect("move");
    assert_eq!(own.get_version(&claims, digest(2)).await.expect("get").state, Evaluated);
    let retired = own.retire_version(&claims, digest(2), "worse than the next one").await.expect("retire");
    assert_eq!(retired.state, Retired);
    own.retire_version(&claims, digest(2), "again").await.expect("idempotent");

    let some = |states: &[VersionState]| states.iter().copied().map(Some).collect::<Vec<_>>();
    assert_eq!(states(&own, 1).await, some(&[Uploaded, Checked, Evaluated, Live]));
    assert_eq!(states(&own, 2).await, some(&[Uploaded, Checked, Live, Live, Evaluated, Retired]));
    let last = own.version_history(&claims, digest(2), &Page::first(1)).await.expect("history");
    assert_eq!((last.items[0].actor.as_str(), last.items[0].reason.as_str()), ("ann", "worse than the next one"));
    let second = Page { token: last.next_page_token, ..Page::first(1) };
    let second = own.version_history(&claims, digest(2), &second).await.expect("second page");
    assert_eq!(second.items[0].to, Some(Evaluated));
    own.delete_version(&claims, digest(2)).await.expect("delete");
    assert_eq!(states(&own, 2).await.last(), Some(&None), "the history outlives the version");
    assert_refused!(own.version_history(&claims, digest(9), &Page::first(1)).await, StoreError::NotFound { .. });
}

pub async fn a_retired_version_can_be_neither_named_nor_asked(store: &Store) {
    let (own, name) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, None).await;
    own.move_alias(&claims, &live, digest(2), None).await.expect("move");
    own.retire_version(&claims, digest(1), "old").await.expect("retire");
    let by_digest = VersionSelector::Digest(digest(1));
    assert_refused!(
        own.route(&name, &claims, &by_digest).await,
        StoreError::FailedPrecondition(Precondition::VersionRetired)
    );
    let changes = [
        AliasChange::Move(digest(1)),
        AliasChange::Canary(part(1, 1)),
        AliasChange::Shadow(part(1, 1)),
        AliasChange::Rollback,
    ];
    for change in changes {
        assert_refused!(
            own.change_alias(&claims, &live, change, None).await,
            StoreError::FailedPrecondition(Precondition::VersionRetired)
        );
    }
    assert_refused!(
        own.move_alias(&claims, &slug("fresh"), digest(1), None).await,
        StoreError::FailedPrecondition(Precondition::VersionRetired)
    );
    assert_refused!(
        own.evaluate_version(&claims, digest(1), &json!({}), "").await,
        StoreError::FailedPrecondition(Precondition::VersionRetired)
    );
    assert_refused!(
        own.create_pin(&claims, &live, pin(Pinned::Tenant, 1), 9, None).await,
        StoreError::FailedPrecondition(Precondition::VersionRetired)
    );
}

pub async fn what_an_alias_canary_shadow_or_pin_names_is_neither_retired_nor_deleted(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, Some("live")).await;
    for byte in 2..=4 {
        push(&own, &claims, byte, None).await;
    }
    own.change_alias(&claims, &live, AliasChange::Canary(part(2, 100)), None).await.expect("canary");
    own.change_alias(&claims, &live, AliasChange::Shadow(part(3, 100)), None).await.expect("shadow");
    let made = own.create_pin(&claims, &live, pin(Pinned::RoutingKey("ann".into()), 4), 9, None).await.expect("pin");
    assert_eq!(own.get_version(&claims, digest(2)).await.expect("get").state, VersionState::Live);
    assert_eq!(own.get_version(&claims, digest(3)).await.expect("get").state, VersionState::Checked);
    for byte in 1..=3 {
        assert_refused!(
            own.retire_version(&claims, digest(byte), "").await,
            StoreError::FailedPrecondition(Precondition::VersionHasAlias)
        );
        assert_refused!(
            own.delete_version(&claims, digest(byte)).await,
            StoreError::FailedPrecondition(Precondition::VersionHasAlias)
        );
    }
    assert_refused!(
        own.retire_version(&claims, digest(4), "").await,
        StoreError::FailedPrecondition(Precondition::VersionHasPin)
    );
    assert_refused!(
        own.delete_version(&claims, digest(4)).await,
        StoreError::FailedPrecondition(Precondition::VersionHasPin)
    );
    own.change_alias(&claims, &live, AliasChange::ClearCanary, None).await.expect("end the canary");
    own.change_alias(&claims, &live, AliasChange::ClearShadow, None).await.expect("end the shadow");
    own.delete_pin(&claims, &live, made.id, None).await.expect("unpin");
    for byte in 2..=4 {
        own.retire_version(&claims, digest(byte), "done with it").await.expect("retire");
        own.delete_version(&claims, digest(byte)).await.expect("delete");
    }
}

pub fn pin(who: Pinned, byte: u8) -> NewPin {
    let expires_at = OffsetDateTime::now_utc() + Duration::HOUR;
    NewPin { who, digest: digest(byte), reason: "a complaint".to_owned(), expires_at }
}
