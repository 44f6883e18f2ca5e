//! Every method of the store, on whatever PostgreSQL it is given. Included as it is by the tests of the embedded one, so
//! that both behave alike. Each function makes its own tenants and may run beside or after any other.

#[path = "suite/adapters.rs"]
mod adapters;
#[path = "suite/blobs.rs"]
mod blobs;
#[path = "suite/client_requests.rs"]
mod client_requests;
#[path = "suite/ledger.rs"]
mod ledger;
#[path = "suite/lifecycle.rs"]
mod lifecycle;
#[path = "suite/plans.rs"]
mod plans;
#[path = "suite/prices.rs"]
mod prices;
#[path = "suite/rollouts.rs"]
mod rollouts;
#[path = "suite/tenants.rs"]
mod tenants;
#[path = "suite/versions.rs"]
mod versions;

use domain::{Digest, Slug, TenantId};
use serde_json::json;
use store::{BlobLease, InsertedVersion, NewTenant, NewVersion, Store, TenantFields, TenantScope};
use uuid::Uuid;

pub use adapters::*;
pub use blobs::*;
pub use client_requests::*;
pub use ledger::*;
pub use lifecycle::*;
pub use plans::*;
pub use prices::*;
pub use rollouts::*;
pub use tenants::*;
pub use versions::*;

pub const LEASE: std::time::Duration = std::time::Duration::from_secs(600);

/// All of it, one after another.
pub async fn all(store: &Store) {
    a_tenant_lives_from_creation_to_deletion(store).await;
    tenants_are_listed_by_slug_in_pages(store).await;
    a_plan_lives_from_creation_to_deletion(store).await;
    a_plan_fills_in_what_its_tenants_limits_leave_open(store).await;
    the_default_plan_stays(store).await;
    a_tenants_own_price_comes_before_the_platforms(store).await;
    a_price_holds_from_its_time_on_and_its_past_stays(store).await;
    a_tenant_with_adapters_is_deleted_only_by_force(store).await;
    a_key_is_found_by_its_public_id_until_its_tenant_is_gone(store).await;
    a_key_is_revoked_once(store).await;
    a_key_changes_only_from_where_it_was_seen(store).await;
    a_rotated_key_has_two_secrets_for_a_while(store).await;
    the_last_use_of_a_key_is_kept_apart_from_it(store).await;
    an_adapter_lives_from_creation_to_deletion(store).await;
    the_number_of_adapters_is_bounded(store).await;
    a_version_is_inserted_once_and_only_with_its_files(store).await;
    equal_content_is_stored_once_and_deleted_with_its_last_version(store).await;
    the_bytes_of_versions_are_bounded(store).await;
    versions_are_listed_newest_first_in_pages(store).await;
    an_alias_moves_back_and_forth(store).await;
    an_alias_moves_only_from_where_it_was_seen(store).await;
    a_version_under_an_alias_is_not_deleted(store).await;
    a_model_name_resolves_to_a_pinned_version(store).await;
    a_version_goes_through_its_life_and_every_step_is_written_down(store).await;
    a_retired_version_can_be_neither_named_nor_asked(store).await;
    what_an_alias_canary_shadow_or_pin_names_is_neither_retired_nor_deleted(store).await;
    a_canary_is_begun_promoted_and_taken_back_in_one_step(store).await;
    pins_are_made_once_for_each_caller_and_change_the_etag(store).await;
    planned_changes_follow_one_another_and_yield_to_anybody_else(store).await;
    comparisons_with_a_shadow_add_up_and_are_kept_for_the_last_pairs(store).await;
    files_to_delete_are_claimed_by_one_and_forgotten_when_gone(store).await;
    an_upload_that_was_given_up_is_cleaned_up(store).await;
    usage_is_recorded_once_per_request(store).await;
    a_request_ends_once_whoever_says_it_first(store).await;
    sums_come_out_of_the_ledger_exactly(store).await;
    requests_without_an_end_are_found_by_their_gateway_and_deadline(store).await;
    a_named_request_has_one_run_until_it_is_answered_released_or_dead(store).await;
    a_named_request_is_forgotten_with_its_window_and_its_key(store).await;
    the_named_requests_of_a_tenant_and_the_bytes_of_their_answers_are_bounded(store).await;
    values_that_the_schema_refuses_are_called_by_name(store).await;
}

/// `Err(pattern)` or a panic that shows what came instead.
#[macro_export]
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}

pub fn slug(text: &str) -> Slug {
    text.parse().expect("a slug")
}

/// A name that no other test uses, with `prefix` in front.
pub fn unique(prefix: &str) -> Slug {
    slug(&format!("{prefix}-{}", Uuid::now_v7().simple()))
}

pub fn digest(byte: u8) -> Digest {
    Digest::new([byte; 32])
}

pub fn no_tenant() -> TenantId {
    TenantId::new(Uuid::now_v7())
}

/// A new tenant's handle and slug.
pub async fn tenant(store: &Store) -> (TenantScope, Slug) {
    let name = unique("acme");
    let new = NewTenant { slug: name.clone(), fields: TenantFields::default() };
    let made = store.platform().create_tenant(new).await.expect("create a tenant");
    (store.tenant(made.id), name)
}

/// A new adapter of this name.
pub async fn adapter(tenant: &TenantScope, name: &str) -> Slug {
    let name = slug(name);
    tenant.create_adapter(&name, "", 1_000).await.expect("create an adapter");
    name
}

pub fn new_version(byte: u8) -> NewVersion {
    let receipt = json!({"parameters": 7, "modules": [{"module": "model.layers.0.mlp.up_proj", "rank": 8}]});
    NewVersion { digest: digest(byte), base_digest: digest(0xba), size_bytes: 1_000, receipt }
}

/// Reserves and inserts the version whose digest is all `byte`.
pub async fn push(tenant: &TenantScope, adapter: &Slug, byte: u8, alias: Option<&str>) -> InsertedVersion {
    let lease = tenant.reserve_blob(digest(byte), 1_000, u64::MAX, LEASE).await.expect("reserve");
    assert!(matches!(lease, BlobLease::Write { .. } | BlobLease::Stored));
    let alias = alias.map(slug);
    tenant.insert_version(adapter, new_version(byte), alias.as_ref()).await.expect("insert a version")
}
