//! Plans, and what they mean for tenants and keys.

use domain::{Outage, Role, Share, TenantLimits};
use store::{
    ApiKeyFields, DEFAULT_PLAN, DeleteTenant, NewApiKey, NewPlan, Page, PlanFields, Precondition, Resource, Store,
    StoreError, TenantFields,
};

use super::{slug, tenant, unique};
use crate::assert_refused;

fn gold() -> PlanFields {
    PlanFields {
        display_name: "Gold".to_owned(),
        limits: TenantLimits {
            requests_per_minute: Some(100),
            output_tokens_per_minute: Some(2_000),
            budget_month: Some(5_000_000_000),
            ..TenantLimits::default()
        },
        share: Share { weight: 4, priority: 2, kv_blocks_max: 100, resident_adapters_max: 8, waiting_requests_max: 9 },
        outage: Outage::Open,
    }
}

pub async fn a_plan_lives_from_creation_to_deletion(store: &Store) {
    let platform = store.platform();
    let name = unique("gold");
    let new = NewPlan { slug: name.clone(), fields: gold() };
    let made = platform.create_plan(new.clone()).await.expect("create");
    assert_eq!((&made.slug, &made.fields), (&name, &gold()));
    assert_refused!(platform.create_plan(new).await, StoreError::AlreadyExists { what: Resource::Plan, .. });
    assert_eq!(platform.get_plan(&name).await.expect("get"), made);

    let changed = platform
        .update_plan(&name, Some(&made.etag), |fields| {
            fields.outage = Outage::Closed;
            fields.limits.requests_per_minute = None;
        })
        .await
        .expect("update");
    assert_eq!((changed.fields.outage, changed.fields.limits.requests_per_minute), (Outage::Closed, None));
    assert_ne!(changed.etag, made.etag);
    let stale = platform.update_plan(&name, Some(&made.etag), |fields| *fields = PlanFields::default()).await;
    assert_refused!(stale, StoreError::Conflict { what: Resource::Plan, .. });
    assert_eq!(platform.get_plan(&name).await.expect("get"), changed, "a refused change changes nothing");
    let zero = platform.update_plan(&name, None, |fields| fields.limits.adapters_max = Some(0)).await;
    assert_refused!(zero, StoreError::InvalidValue { field: "limits", .. });

    let (mut listed, mut page) = (Vec::new(), Page::first(1));
    loop {
        let part = platform.list_plans(&page).await.expect("list");
        listed.extend(part.items.into_iter().map(|plan| plan.slug));
        page.token = part.next_page_token;
        if page.token.is_empty() {
            break;
        }
    }
    assert!(listed.is_sorted() && listed.contains(&name) && listed.contains(&slug(DEFAULT_PLAN)));
    platform.delete_plan(&name).await.expect("delete");
    assert_refused!(platform.get_plan(&name).await, StoreError::NotFound { what: Resource::Plan, .. });
    assert_refused!(platform.delete_plan(&name).await, StoreError::NotFound { .. });
}

pub async fn a_plan_fills_in_what_its_tenants_limits_leave_open(store: &Store) {
    let platform = store.platform();
    let (own, name) = tenant(store).await;
    assert_eq!(own.get().await.expect("get").fields.plan, slug(DEFAULT_PLAN));
    let plan = unique("gold");
    let to_plan = |fields: &mut TenantFields| {
        fields.plan = plan.clone();
        fields.limits.requests_per_minute = Some(7);
        fields.limits.adapters_max = Some(3);
    };
    assert_refused!(
        platform.update_tenant(&name, None, to_plan).await,
        StoreError::NotFound { what: Resource::Plan, .. }
    );
    platform.create_plan(NewPlan { slug: plan.clone(), fields: gold() }).await.expect("create");
    platform.update_tenant(&name, None, to_plan).await.expect("update");

    let public_id = &unique("k").as_str()[2..14].to_owned();
    let key = NewApiKey {
        public_id: public_id.clone(),
        secret_hash: [7; 32],
        role: Role::Inference,
        fields: ApiKeyFields::default(),
    };
    own.create_api_key(key).await.expect("create a key");
    let found = store.find_api_key(public_id).await.expect("look up").expect("known");
    let expected = TenantLimits {
        requests_per_minute: Some(7),
        output_tokens_per_minute: Some(2_000),
        budget_month: Some(5_000_000_000),
        adapters_max: Some(3),
        ..TenantLimits::default()
    };
    assert_eq!((found.limits, found.share, found.outage), (expected, gold().share, Outage::Open));
    assert_eq!(platform.get_tenant_with_limits(&name).await.expect("get").1, expected);

    assert_refused!(platform.delete_plan(&plan).await, StoreError::FailedPrecondition(Precondition::PlanInUse));
    platform.delete_tenant(&name, DeleteTenant::IfWithoutAdapters).await.expect("delete the tenant");
    platform.delete_plan(&plan).await.expect("delete");
}

pub async fn the_default_plan_stays(store: &Store) {
    let refused = store.platform().delete_plan(&slug(DEFAULT_PLAN)).await;
    assert_refused!(refused, StoreError::FailedPrecondition(Precondition::PlanIsDefault));
}
