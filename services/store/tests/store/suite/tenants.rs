//! Tenants and their API keys.

use domain::{KeyLimits, Role, TenantLimits};
use store::{
    ApiKeyFields, DeleteTenant, KeyUse, NewApiKey, NewTenant, Page, Precondition, Resource, Store, StoreError,
    TenantFields,
};
use time::{Duration, OffsetDateTime};

use super::{adapter, no_tenant, push, slug, tenant, unique};
use crate::assert_refused;

pub async fn a_tenant_lives_from_creation_to_deletion(store: &Store) {
    let platform = store.platform();
    let name = unique("acme");
    let limits =
        TenantLimits { input_tokens_per_minute: Some(5), adapter_bytes_max: Some(1 << 40), ..TenantLimits::default() };
    let fields = TenantFields { display_name: "Acme – 保险".to_owned(), limits, ..TenantFields::default() };
    let new = NewTenant { slug: name.clone(), fields: fields.clone() };
    let made = platform.create_tenant(new.clone()).await.expect("create");
    assert_eq!((&made.slug, &made.fields), (&name, &fields));
    assert_eq!(made.share_group, made.id.uuid());
    assert_refused!(platform.create_tenant(new).await, StoreError::AlreadyExists { what: Resource::Tenant, .. });
    assert_eq!(platform.get_tenant(&name).await.expect("get"), made);
    assert_eq!(store.tenant(made.id).get().await.expect("get its own"), made);

    let updated = platform
        .update_tenant(&name, Some(&made.etag), |fields| {
            fields.limits.input_tokens_per_minute = None;
            fields.limits.concurrent_requests = Some(3);
        })
        .await
        .expect("update");
    assert_eq!(updated.fields.display_name, fields.display_name);
    let limits = TenantLimits { concurrent_requests: Some(3), input_tokens_per_minute: None, ..limits };
    assert_eq!(updated.fields.limits, limits);
    assert!(updated.updated_at > made.updated_at && updated.created_at == made.created_at);
    assert_eq!(platform.get_tenant(&name).await.expect("get"), updated);
    let stale = platform.update_tenant(&name, Some(&made.etag), |_| {}).await;
    assert_refused!(stale, StoreError::Conflict { what: Resource::Tenant, .. });

    platform.delete_tenant(&name, DeleteTenant::IfWithoutAdapters).await.expect("delete");
    assert_refused!(platform.get_tenant(&name).await, StoreError::NotFound { what: Resource::Tenant, .. });
    assert_refused!(store.tenant(made.id).get().await, StoreError::NotFound { .. });
    assert_refused!(platform.update_tenant(&name, None, |_| {}).await, StoreError::NotFound { .. });
    assert_refused!(platform.delete_tenant(&name, DeleteTenant::WithAdapters).await, StoreError::NotFound { .. });
}

pub async fn tenants_are_listed_by_slug_in_pages(store: &Store) {
    let platform = store.platform();
    let mut made = Vec::new();
    // `z-` and digits: an order that a language's collation would turn round.
    for prefix in ["zz-b", "zz-a", "zz1", "zz"] {
        let name = unique(prefix);
        let new = NewTenant { slug: name.clone(), fields: TenantFields::default() };
        platform.create_tenant(new).await.expect("create");
        made.push(name);
    }
    made.sort();
    let (mut listed, mut page) = (Vec::new(), Page::first(2));
    loop {
        let part = platform.list_tenants(&page).await.expect("list");
        assert!(part.items.len() <= 2);
        listed.extend(part.items.into_iter().map(|tenant| tenant.slug));
        if part.next_page_token.is_empty() {
            break;
        }
        page.token = part.next_page_token;
    }
    assert!(listed.is_sorted());
    listed.retain(|name| made.contains(name));
    assert_eq!(listed, made);
    let forged = Page { size: 2, token: "bm90IG91cnM".to_owned() };
    assert_refused!(platform.list_tenants(&forged).await, StoreError::InvalidPageToken);
}

pub async fn a_tenant_with_adapters_is_deleted_only_by_force(store: &Store) {
    let platform = store.platform();
    let (own, name) = tenant(store).await;
    let claims = adapter(&own, "claims").await;
    push(&own, &claims, 1, Some("live")).await;
    own.create_api_key(key("forceforce22", Role::Inference)).await.expect("create a key");
    assert_refused!(
        platform.delete_tenant(&name, DeleteTenant::IfWithoutAdapters).await,
        StoreError::FailedPrecondition(Precondition::TenantHasAdapters)
    );
    assert_eq!(own.get_adapter(&claims).await.expect("still there").aliases.len(), 1);
    platform.delete_tenant(&name, DeleteTenant::WithAdapters).await.expect("delete");
    assert_refused!(own.get_adapter(&claims).await, StoreError::NotFound { .. });
    assert!(store.find_api_key("forceforce22").await.expect("look up").is_none());
    let due = platform.claim_blob_deletions(u16::MAX, super::LEASE).await.expect("claim");
    assert!(due.iter().any(|deletion| deletion.tenant == own.id()), "its files are handed over to deletion");
}

pub async fn a_key_is_found_by_its_public_id_until_its_tenant_is_gone(store: &Store) {
    let (own, name) = tenant(store).await;
    let expires_at = OffsetDateTime::now_utc().replace_nanosecond(0).expect("in range") + Duration::days(1);
    let limits = KeyLimits { output_tokens_per_minute: Some(7), budget_day: Some(1 << 50), ..KeyLimits::default() };
    let models = Some(vec!["base".to_owned()]);
    let new = || NewApiKey {
        fields: ApiKeyFields {
            expires_at: Some(expires_at),
            limits,
            models: models.clone(),
            ..ApiKeyFields::default()
        },
        ..key("findfind2345", Role::TenantAdmin)
    };
    let made = own.create_api_key(new()).await.expect("create");
    assert_eq!((made.role, made.fields.expires_at, made.revoked_at), (Role::TenantAdmin, Some(expires_at), None));
    assert_refused!(own.create_api_key(new()).await, StoreError::AlreadyExists { what: Resource::ApiKey, .. });
    let (other, _) = tenant(store).await;
    assert_refused!(other.create_api_key(new()).await, StoreError::AlreadyExists { .. });
    assert_refused!(other.get_api_key("findfind2345").await, StoreError::NotFound { what: Resource::ApiKey, .. });
    assert_refused!(
        store.tenant(no_tenant()).create_api_key(key("nonenone2345", Role::Inference)).await,
        StoreError::NotFound { what: Resource::Tenant, .. }
    );

    store
        .platform()
        .update_tenant(&name, None, |fields| fields.limits.requests_per_minute = Some(9))
        .await
        .expect("set a limit");
    let found = store.find_api_key("findfind2345").await.expect("look up").expect("known");
    assert_eq!((found.id, found.tenant, &found.tenant_slug), (made.id, own.id(), &name));
    assert_eq!((found.secret_hash, found.role, found.expires_at), ([7; 32], Role::TenantAdmin, Some(expires_at)));
    assert_eq!((found.share_group, found.limits.requests_per_minute), (own.id().uuid(), Some(9)));
    assert_eq!((found.key_limits, &found.models, &found.methods), (limits, &models, &None));
    assert_eq!((made.fields.limits, &made.fields.models, &made.fields.methods), (limits, &models, &None));
    for unknown in ["", "findfind234", "findfind2345 ", "' or true --", "%"] {
        assert!(store.find_api_key(unknown).await.expect("look up").is_none(), "{unknown}");
    }
    store.platform().delete_tenant(&name, DeleteTenant::IfWithoutAdapters).await.expect("delete the tenant");
    assert!(store.find_api_key("findfind2345").await.expect("look up").is_none());
}

pub async fn a_key_is_revoked_once(store: &Store) {
    let (own, _) = tenant(store).await;
    let (other, _) = tenant(store).await;
    for public_id in ["revokeaaaaaa", "revokebbbbbb", "revokecccccc"] {
        own.create_api_key(key(public_id, Role::Inference)).await.expect("create");
    }
    assert_refused!(other.revoke_api_key("revokeaaaaaa").await, StoreError::NotFound { .. });
    let revoked = own.revoke_api_key("revokeaaaaaa").await.expect("revoke");
    assert!(revoked.revoked_at.is_some());
    assert_eq!(own.revoke_api_key("revokeaaaaaa").await.expect("revoke again"), revoked);
    assert_eq!(own.get_api_key("revokeaaaaaa").await.expect("get"), revoked);
    let found = store.find_api_key("revokeaaaaaa").await.expect("look up").expect("known");
    assert_eq!(found.revoked_at, revoked.revoked_at);

    let first = own.list_api_keys(&Page::first(2)).await.expect("list");
    let rest = own.list_api_keys(&Page { size: 2, token: first.next_page_token }).await.expect("list");
    let listed: Vec<_> = first.items.iter().chain(&rest.items).map(|key| key.public_id.as_str()).collect();
    assert_eq!(listed, ["revokeaaaaaa", "revokebbbbbb", "revokecccccc"]);
    assert_eq!(rest.next_page_token, "");
    assert!(other.list_api_keys(&Page::first(2)).await.expect("list").items.is_empty());
}

pub async fn a_key_changes_only_from_where_it_was_seen(store: &Store) {
    let (own, _) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let made = own.create_api_key(key("updateaaaaaa", Role::Inference)).await.expect("create");
    let rename = |fields: &mut ApiKeyFields| fields.display_name = "another".to_owned();
    assert_refused!(other.update_api_key("updateaaaaaa", None, rename).await, StoreError::NotFound { .. });
    let updated = own.update_api_key("updateaaaaaa", Some(&made.etag), rename).await.expect("update");
    assert_eq!(updated.fields, ApiKeyFields { display_name: "another".to_owned(), ..made.fields });
    assert_ne!(updated.etag, made.etag);
    assert_refused!(
        own.update_api_key("updateaaaaaa", Some(&made.etag), rename).await,
        StoreError::Conflict { what: Resource::ApiKey, .. }
    );
    let limit = |fields: &mut ApiKeyFields| fields.limits.requests_per_minute = Some(3);
    own.update_api_key("updateaaaaaa", None, limit).await.expect("update");
    let found = store.find_api_key("updateaaaaaa").await.expect("look up").expect("known");
    assert_eq!(found.key_limits.requests_per_minute, Some(3));
    own.revoke_api_key("updateaaaaaa").await.expect("revoke");
    assert_refused!(
        own.update_api_key("updateaaaaaa", None, rename).await,
        StoreError::FailedPrecondition(Precondition::KeyIsRevoked)
    );
}

pub async fn a_rotated_key_has_two_secrets_for_a_while(store: &Store) {
    let (own, _) = tenant(store).await;
    let made = own.create_api_key(key("rotateaaaaaa", Role::Inference)).await.expect("create");
    let rotate = |hash: [u8; 32], hours: u64| {
        let (own, overlap) = (own.clone(), std::time::Duration::from_secs(3_600 * hours));
        async move { own.rotate_api_key("rotateaaaaaa", None, &hash, overlap).await }
    };
    let rotated = rotate([8; 32], 2).await.expect("rotate");
    let until = rotated.previous_secret_expires_at.expect("an overlap");
    assert!((until - OffsetDateTime::now_utc() - Duration::hours(2)).abs() < Duration::minutes(5));
    assert_ne!(rotated.etag, made.etag);
    let found = store.find_api_key("rotateaaaaaa").await.expect("look up").expect("known");
    assert_eq!((found.secret_hash, found.previous_secret), ([8; 32], Some(([7; 32], until))));
    rotate([9; 32], 1).await.expect("rotate");
    let found = store.find_api_key("rotateaaaaaa").await.expect("look up").expect("known");
    assert_eq!((found.secret_hash, found.previous_secret.map(|(hash, _)| hash)), ([9; 32], Some([8; 32])));
    own.revoke_api_key("rotateaaaaaa").await.expect("revoke");
    assert_refused!(rotate([1; 32], 1).await, StoreError::FailedPrecondition(Precondition::KeyIsRevoked));
}

pub async fn the_last_use_of_a_key_is_kept_apart_from_it(store: &Store) {
    let (own, _) = tenant(store).await;
    let made = own.create_api_key(key("usesaaaaaaaa", Role::Inference)).await.expect("create");
    assert_eq!(made.last_used_at, None);
    let head = store.platform().change_head().await.expect("head");
    let at = OffsetDateTime::now_utc().replace_nanosecond(0).expect("in range");
    let used = |at| KeyUse { tenant: own.id(), key: made.id, at };
    let gone = KeyUse { tenant: no_tenant(), key: made.id, at };
    store.platform().record_key_uses(&[used(at), gone, used(at - Duration::hours(1))]).await.expect("record");
    store.platform().record_key_uses(&[used(at - Duration::hours(2))]).await.expect("record");
    let found = own.get_api_key("usesaaaaaaaa").await.expect("get");
    assert_eq!((found.last_used_at, &found.etag), (Some(at), &made.etag));
    assert_eq!(own.list_api_keys(&Page::first(9)).await.expect("list").items, [found]);
    assert_eq!(store.platform().change_head().await.expect("head"), head, "nobody need hear of it");
}

pub async fn values_that_the_schema_refuses_are_called_by_name(store: &Store) {
    let (own, name) = tenant(store).await;
    let long = "x".repeat(257);
    let refused = own.create_adapter(&slug("claims"), &long, 9).await;
    assert_refused!(refused, StoreError::InvalidValue { field: "display_name", .. });
    assert_refused!(
        own.create_adapter(&slug("claims"), "a\0b", 9).await,
        StoreError::InvalidValue { field: "text", .. }
    );
    assert_refused!(
        store.platform().update_tenant(&name, None, |fields| fields.display_name = long).await,
        StoreError::InvalidValue { field: "display_name", .. }
    );
    assert_refused!(
        store.platform().update_tenant(&name, None, |fields| fields.limits.adapters_max = Some(0)).await,
        StoreError::InvalidValue { field: "limits", .. }
    );
    let much = |fields: &mut TenantFields| fields.limits.budget_month = Some(1 << 53);
    assert_refused!(
        store.platform().update_tenant(&name, None, much).await,
        StoreError::InvalidValue { field: "limits", .. }
    );
    let fields = ApiKeyFields { models: Some(Vec::new()), ..ApiKeyFields::default() };
    let none = NewApiKey { fields, ..key("nonemodels22", Role::Inference) };
    assert_refused!(own.create_api_key(none).await, StoreError::InvalidValue { field: "scopes", .. });
}

fn key(public_id: &str, role: Role) -> NewApiKey {
    NewApiKey {
        public_id: public_id.to_owned(),
        secret_hash: [7; 32],
        role,
        fields: ApiKeyFields { display_name: "a key".to_owned(), ..ApiKeyFields::default() },
    }
}
