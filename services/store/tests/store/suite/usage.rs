//! Usage records.

use std::time::Duration;

use domain::{ApiKeyId, RequestId};
use store::{FinishReason, Outcome, Page, Store, UsageRecord};
use uuid::Uuid;

use super::{digest, tenant};

pub async fn usage_is_recorded_once_per_request(store: &Store) {
    let (own, _) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let outcomes = [
        Outcome::Finished(FinishReason::Eos),
        Outcome::Finished(FinishReason::Stop),
        Outcome::Finished(FinishReason::Length),
        Outcome::Cancelled,
        Outcome::DeadlineExceeded,
        Outcome::Failed,
    ];
    let mut records: Vec<_> = outcomes.into_iter().map(record).collect();
    records[1].adapter_digest = None;
    records[3].first_token = None;
    let (first, rest) = records.split_at(1);
    assert_eq!(own.record_usage(first).await.expect("record one"), 1);
    assert_eq!(own.record_usage(rest).await.expect("record many"), 5);
    let changed = UsageRecord { completion_tokens: 999, ..records[0].clone() };
    let further = record(Outcome::Cancelled);
    let again = [changed, further.clone(), further.clone()];
    assert_eq!(own.record_usage(&again).await.expect("record again"), 1, "the first record stays");
    records.push(further);
    let first = own.list_usage(&Page::first(4)).await.expect("list");
    let rest = own.list_usage(&Page { size: 4, token: first.next_page_token }).await.expect("list");
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).collect();
    records.reverse();
    assert_eq!(listed, records);
    assert!(other.list_usage(&Page::first(4)).await.expect("list").items.is_empty());
}

fn record(outcome: Outcome) -> UsageRecord {
    UsageRecord {
        request: RequestId::new(Uuid::now_v7()),
        api_key: ApiKeyId::new(Uuid::now_v7()),
        model: "acme/claims@canary".to_owned(),
        adapter_digest: Some(digest(1)),
        base_digest: digest(0xba),
        worker: "worker-1".to_owned(),
        prompt_tokens: 12,
        cached_prompt_tokens: 4,
        completion_tokens: 30,
        outcome,
        first_token: Some(Duration::from_millis(12)),
        duration: Duration::from_millis(345),
    }
}
