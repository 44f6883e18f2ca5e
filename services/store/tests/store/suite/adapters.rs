//! Adapters, their aliases, and model names.

use domain::{AliasChange, RolloutError, VersionSelector};
use store::{Page, Precondition, Resource, Stock, Store, StoreError};

use super::{adapter, digest, no_tenant, push, slug, tenant};
use crate::assert_refused;

pub async fn an_adapter_lives_from_creation_to_deletion(store: &Store) {
    let (own, _) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let claims = slug("claims");
    let made = own.create_adapter(&claims, "Claims", 9).await.expect("create");
    assert_eq!((&made.slug, made.display_name.as_str(), made.aliases.len()), (&claims, "Claims", 0));
    assert_refused!(
        own.create_adapter(&claims, "", 1).await,
        StoreError::AlreadyExists { what: Resource::Adapter, .. }
    );
    other.create_adapter(&claims, "another tenant's", 9).await.expect("the same name elsewhere");
    assert_refused!(
        store.tenant(no_tenant()).create_adapter(&claims, "", 9).await,
        StoreError::NotFound { what: Resource::Tenant, .. }
    );
    assert_eq!(own.get_adapter(&claims).await.expect("get"), made);

    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, Some("canary")).await;
    adapter(&own, "billing").await;
    let listed = own.list_adapters(&Page::first(10)).await.expect("list").items;
    let names: Vec<_> = listed.iter().map(|adapter| adapter.slug.as_str()).collect();
    assert_eq!(names, ["billing", "claims"]);
    let aliases: Vec<_> = listed[1].aliases.iter().map(|alias| (alias.name.as_str(), alias.targets.stable)).collect();
    assert_eq!(aliases, [("canary", digest(2)), ("live", digest(1))]);

    let mut abandoned = own.delete_adapter(&claims).await.expect("delete");
    abandoned.sort();
    assert_eq!(abandoned, [digest(1), digest(2)]);
    assert_refused!(own.get_adapter(&claims).await, StoreError::NotFound { what: Resource::Adapter, .. });
    assert_refused!(own.delete_adapter(&claims).await, StoreError::NotFound { .. });
    assert_eq!(other.get_adapter(&claims).await.expect("untouched").display_name, "another tenant's");
    adapter(&own, "claims").await;
    assert_refused!(own.get_version(&claims, digest(1)).await, StoreError::NotFound { .. });
}

pub async fn the_number_of_adapters_is_bounded(store: &Store) {
    let (own, _) = tenant(store).await;
    let [first, second, third] = ["first", "second", "third"].map(slug);
    own.create_adapter(&first, "", 2).await.expect("one of two");
    own.create_adapter(&second, "", 2).await.expect("two of two");
    assert_refused!(
        own.create_adapter(&third, "", 2).await,
        StoreError::QuotaExceeded { stock: Stock::Adapters, max: 2, used: 2, wanted: 1 }
    );
    assert_eq!(own.used_stock().await.expect("count").adapters, 2);
    own.delete_adapter(&first).await.expect("delete");
    own.create_adapter(&third, "", 2).await.expect("there is room again");
}

pub async fn an_alias_moves_back_and_forth(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, None).await;
    push(&own, &claims, 2, None).await;
    assert_refused!(
        own.change_alias(&claims, &live, AliasChange::Rollback, None).await,
        StoreError::NotFound { what: Resource::Alias, .. }
    );
    let first = own.move_alias(&claims, &live, digest(1), None).await.expect("make");
    assert_eq!((first.targets.stable, first.targets.previous), (digest(1), None));
    assert_refused!(
        own.change_alias(&claims, &live, AliasChange::Rollback, None).await,
        StoreError::FailedPrecondition(Precondition::Rollout(RolloutError::NoPreviousVersion))
    );
    let second = own.move_alias(&claims, &live, digest(2), None).await.expect("move");
    assert_eq!((second.targets.stable, second.targets.previous), (digest(2), Some(digest(1))));
    assert_ne!(first.etag, second.etag);
    let same = own.move_alias(&claims, &live, digest(2), None).await.expect("move to where it is");
    assert_eq!(same, second, "the way back is kept");
    let back = own.change_alias(&claims, &live, AliasChange::Rollback, None).await.expect("roll back");
    assert_eq!((back.targets.stable, back.targets.previous), (digest(1), Some(digest(2))));
    let forth = own.change_alias(&claims, &live, AliasChange::Rollback, None).await.expect("roll back again");
    assert_eq!((forth.targets.stable, forth.targets.previous), (digest(2), Some(digest(1))));

    assert_refused!(
        own.move_alias(&claims, &live, digest(3), None).await,
        StoreError::NotFound { what: Resource::AdapterVersion, .. }
    );
    assert_refused!(
        own.move_alias(&slug("absent"), &live, digest(1), None).await,
        StoreError::NotFound { what: Resource::Adapter, .. }
    );
    own.delete_version(&claims, digest(1)).await.expect("delete the previous version");
    assert_refused!(
        own.change_alias(&claims, &live, AliasChange::Rollback, None).await,
        StoreError::FailedPrecondition(Precondition::Rollout(RolloutError::NoPreviousVersion))
    );
    own.delete_alias(&claims, &live).await.expect("delete");
    assert_refused!(own.delete_alias(&claims, &live).await, StoreError::NotFound { what: Resource::Alias, .. });
}

pub async fn an_alias_moves_only_from_where_it_was_seen(store: &Store) {
    let (own, _) = tenant(store).await;
    let (claims, live) = (adapter(&own, "claims").await, slug("live"));
    push(&own, &claims, 1, None).await;
    push(&own, &claims, 2, None).await;
    assert_refused!(
        own.move_alias(&claims, &live, digest(1), Some("anything")).await,
        StoreError::Conflict { what: Resource::Alias, .. }
    );
    let seen = own.move_alias(&claims, &live, digest(1), None).await.expect("make").etag;
    let moved = own.move_alias(&claims, &live, digest(2), Some(&seen)).await.expect("move");
    assert_refused!(own.move_alias(&claims, &live, digest(1), Some(&seen)).await, StoreError::Conflict { .. });
    assert_refused!(
        own.change_alias(&claims, &live, AliasChange::Rollback, Some(&seen)).await,
        StoreError::Conflict { .. }
    );
    let back = own.change_alias(&claims, &live, AliasChange::Rollback, Some(&moved.etag)).await.expect("roll back");
    assert_eq!(back.targets.stable, digest(1));
    own.delete_alias(&claims, &live).await.expect("delete");
    own.move_alias(&claims, &live, digest(1), None).await.expect("make again");
    assert_refused!(own.move_alias(&claims, &live, digest(2), Some(&back.etag)).await, StoreError::Conflict { .. });
}

pub async fn a_model_name_resolves_to_a_pinned_version(store: &Store) {
    let (own, name) = tenant(store).await;
    let (other, other_name) = tenant(store).await;
    let claims = adapter(&own, "claims").await;
    adapter(&own, "unpublished").await;
    push(&own, &claims, 1, Some("live")).await;
    push(&own, &claims, 2, Some("canary")).await;
    let billing = adapter(&own, "billing").await;
    push(&own, &billing, 3, Some("live")).await;
    push(&other, &adapter(&other, "claims").await, 4, Some("live")).await;

    let by_alias = |alias: &str| VersionSelector::Alias(slug(alias));
    let live = own.route(&name, &claims, &VersionSelector::live()).await.expect("live");
    assert_eq!((live.stable.digest, live.stable.base_digest), (digest(1), digest(0xba)));
    assert_eq!(own.route(&name, &claims, &by_alias("canary")).await.expect("canary").stable.digest, digest(2));
    let pinned = own.route(&name, &claims, &VersionSelector::Digest(digest(2))).await.expect("digest");
    assert_eq!(pinned.stable.digest, digest(2));
    for absent in [by_alias("absent"), VersionSelector::Digest(digest(3))] {
        assert_refused!(own.route(&name, &claims, &absent).await, StoreError::NotFound { .. });
    }
    let unpublished = own.route(&name, &slug("unpublished"), &VersionSelector::live()).await;
    assert_refused!(unpublished, StoreError::NotFound { what: Resource::Model, .. });

    // Not there and not yours: the same words.
    let theirs = own.route(&other_name, &claims, &VersionSelector::live()).await.expect_err("theirs");
    let nobodys = own.route(&slug("nobody"), &claims, &VersionSelector::live()).await.expect_err("nobody's");
    let words = |error: StoreError, name: &str| error.to_string().replace(name, "…");
    assert_eq!(words(theirs, other_name.as_str()), words(nobodys, "nobody"));

    let first = own.list_models(&Page::first(1)).await.expect("list");
    assert_eq!((&first.items[0].adapter, first.items[0].digest), (&billing, digest(3)));
    let rest = own.list_models(&Page { size: 1, token: first.next_page_token }).await.expect("list");
    assert_eq!((&rest.items[0].adapter, rest.items[0].digest), (&claims, digest(1)));
    assert_eq!(rest.next_page_token, "", "an adapter without `live` is no model");
}
