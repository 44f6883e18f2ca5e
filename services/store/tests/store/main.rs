//! The store on a real PostgreSQL, connected as a service connects: with a login role that owns nothing.

mod audit;
mod changes;
mod database;
mod faults;
mod isolation;
mod races;
mod suite;

use database::Database;

macro_rules! on_postgres {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let database = Database::new().await;
                suite::$name(&database.store).await;
            }
        )+
    };
}

on_postgres!(
    a_tenant_lives_from_creation_to_deletion,
    tenants_are_listed_by_slug_in_pages,
    a_tenants_own_price_comes_before_the_platforms,
    a_price_holds_from_its_time_on_and_its_past_stays,
    a_tenant_with_adapters_is_deleted_only_by_force,
    a_key_is_found_by_its_public_id_until_its_tenant_is_gone,
    a_key_is_revoked_once,
    a_key_changes_only_from_where_it_was_seen,
    a_rotated_key_has_two_secrets_for_a_while,
    the_last_use_of_a_key_is_kept_apart_from_it,
    an_adapter_lives_from_creation_to_deletion,
    the_number_of_adapters_is_bounded,
    a_version_is_inserted_once_and_only_with_its_files,
    equal_content_is_stored_once_and_deleted_with_its_last_version,
    the_bytes_of_versions_are_bounded,
    versions_are_listed_newest_first_in_pages,
    an_alias_moves_back_and_forth,
    an_alias_moves_only_from_where_it_was_seen,
    a_version_under_an_alias_is_not_deleted,
    a_model_name_resolves_to_a_pinned_version,
    a_version_goes_through_its_life_and_every_step_is_written_down,
    a_retired_version_can_be_neither_named_nor_asked,
    what_an_alias_canary_shadow_or_pin_names_is_neither_retired_nor_deleted,
    a_canary_is_begun_promoted_and_taken_back_in_one_step,
    pins_are_made_once_for_each_caller_and_change_the_etag,
    planned_changes_follow_one_another_and_yield_to_anybody_else,
    comparisons_with_a_shadow_add_up_and_are_kept_for_the_last_pairs,
    files_to_delete_are_claimed_by_one_and_forgotten_when_gone,
    an_upload_that_was_given_up_is_cleaned_up,
    usage_is_recorded_once_per_request,
    a_request_ends_once_whoever_says_it_first,
    sums_come_out_of_the_ledger_exactly,
    requests_without_an_end_are_found_by_their_gateway_and_deadline,
    a_named_request_has_one_run_until_it_is_answered_released_or_dead,
    a_named_request_is_forgotten_with_its_window_and_its_key,
    the_named_requests_of_a_tenant_and_the_bytes_of_their_answers_are_bounded,
    values_that_the_schema_refuses_are_called_by_name,
);

#[tokio::test]
async fn everything_works_with_one_connection() {
    let database = Database::with_pool(1).await;
    suite::all(&database.store).await;
}
