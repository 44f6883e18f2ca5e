//! The ledger and the usage records that come with it.

use std::time::Duration;

use domain::{ApiKeyId, Price, RequestId, TenantId};
use store::{
    End, EntryKind, FinishReason, GroupBy, Hold, LedgerEntry, Outcome, Page, Store, TenantScope, UsageGroup,
    UsageRecord,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{digest, tenant};

const GATEWAY: Uuid = Uuid::from_u128(7);
const PRICE: Price = Price { input: 1_000_000, cached_input: 100_000, output: 2_000_000 };
const HOUR: Duration = Duration::from_secs(3600);

pub fn hold(tenant: TenantId) -> Hold {
    Hold {
        tenant,
        request: RequestId::new(Uuid::now_v7()),
        api_key: ApiKeyId::new(Uuid::now_v7()),
        model: "acme/claims@canary".to_owned(),
        adapter_digest: Some(digest(1)),
        base_digest: digest(0xba),
        at: OffsetDateTime::from_unix_timestamp(1_795_000_000).expect("a time"),
        deadline: OffsetDateTime::from_unix_timestamp(1_795_000_300).expect("a time"),
        price: PRICE,
        prompt_tokens: 12,
        answer_tokens_max: 30,
        held: 72,
        process: Uuid::from_u128(70),
    }
}

pub async fn usage_is_recorded_once_per_request(store: &Store) {
    let (own, _) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let outcomes = [
        Outcome::Finished(FinishReason::Eos),
        Outcome::Finished(FinishReason::Stop),
        Outcome::Finished(FinishReason::Length),
        Outcome::Finished(FinishReason::Budget),
        Outcome::Cancelled,
        Outcome::DeadlineExceeded,
        Outcome::Failed,
    ];
    let mut requests: Vec<_> = outcomes.into_iter().map(|outcome| used(hold(own.id()), outcome)).collect();
    requests[1].0.adapter_digest = None;
    requests[1].1.adapter_digest = None;
    requests[3].1.first_token = None;
    let entries: Vec<_> =
        requests.iter().flat_map(|(hold, record)| both(hold, End::Posted(Box::new(record.clone())))).collect();
    let platform = store.platform();
    assert_eq!(platform.post(GATEWAY, &entries[..3]).await.expect("post").written, 3);
    assert_eq!(platform.post(GATEWAY, &entries).await.expect("post again").written, 11, "the first three stay");
    assert_eq!(platform.post(GATEWAY, &entries).await.expect("post again"), store::Posted::default());
    let first = own.list_usage(&Page::first(4)).await.expect("list");
    let rest = own.list_usage(&Page { size: 4, token: first.next_page_token }).await.expect("list");
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).collect();
    let mut records: Vec<_> = requests.into_iter().map(|(_, record)| record).collect();
    records.reverse();
    assert_eq!(listed, records);
    assert!(other.list_usage(&Page::first(4)).await.expect("list").items.is_empty());
}

pub async fn a_request_ends_once_whoever_says_it_first(store: &Store) {
    let (own, _) = tenant(store).await;
    let platform = store.platform();
    let (hold, record) = used(hold(own.id()), Outcome::Cancelled);
    let posted = LedgerEntry::Ended(hold.clone(), End::Posted(Box::new(record)));
    let begun = [LedgerEntry::Reserved(hold.clone())];
    platform.post(GATEWAY, &begun).await.expect("post");
    assert_eq!(spent(&own, &hold, &[]).await, hold.held);
    let expired = [LedgerEntry::Ended(hold.clone(), End::Expired)];
    // Two at the same time, and then the other once more.
    let (one, two) = tokio::join!(platform.post(GATEWAY, &expired), platform.post(Uuid::nil(), &expired));
    assert_eq!(one.expect("post").written + two.expect("post").written, 1);
    let late = platform.post(GATEWAY, &[posted]).await.expect("post");
    assert_eq!((late.written, late.ended_before), (0, vec![hold.request]));
    let entries = own.list_entries(&Page::first(10)).await.expect("list").items;
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.held, entry.charged)).collect();
    assert_eq!(kinds, [(EntryKind::Reserved, hold.held, 0), (EntryKind::Expired, hold.held, 0)]);
    assert_eq!(spent(&own, &hold, &[]).await, 0);
    assert!(own.list_usage(&Page::first(4)).await.expect("list").items.is_empty());
}

pub async fn sums_come_out_of_the_ledger_exactly(store: &Store) {
    let (own, _) = tenant(store).await;
    let platform = store.platform();
    let before = platform.ledger_balances().await.expect("balances");
    let dear = Price { output: 7, ..PRICE };
    let mut entries = Vec::new();
    let (mut charged, mut last) = (0, None);
    for (price, model, days) in
        [(PRICE, "base", 0), (PRICE, "acme/claims@canary", 0), (dear, "base", 1), (dear, "base", 40)]
    {
        let start = hold(own.id());
        let at = start.at + time::Duration::days(days);
        let (hold, record) = used(Hold { price, model: model.to_owned(), at, ..start }, Outcome::Cancelled);
        charged += price.cost(12, 4, 30);
        entries.extend(both(&hold, End::Posted(Box::new(record))));
        last = Some(hold);
    }
    let open = Hold { at: last.expect("one").at, ..hold(own.id()) };
    entries.push(LedgerEntry::Reserved(open.clone()));
    platform.post(GATEWAY, &entries).await.expect("post");

    let (from, to) = (open.at - time::Duration::days(60), open.at + time::Duration::days(60));
    let all = own.usage_summary(from, to, &[]).await.expect("sum");
    assert_eq!((all.len(), all[0].requests, all[0].charged), (1, 4, charged));
    assert_eq!((all[0].prompt_tokens, all[0].cached_prompt_tokens, all[0].completion_tokens), (48, 16, 120));
    for by in
        [&[GroupBy::Day, GroupBy::Model, GroupBy::ApiKey][..], &[GroupBy::Month], &[GroupBy::Model, GroupBy::Price]]
    {
        let groups = own.usage_summary(from, to, by).await.expect("sum");
        assert_eq!(groups.iter().map(|group| group.charged).sum::<u64>(), charged, "{by:?}");
        assert!(groups.len() > 1 && groups.iter().all(|group| fits(group, by)), "{by:?}: {groups:?}");
    }
    assert_eq!(spent(&own, &open, &[]).await, dear.cost(12, 4, 30) + open.held, "of that day");
    assert_eq!(spent(&own, &open, &[open.request]).await, dear.cost(12, 4, 30));

    let after = platform.ledger_balances().await.expect("balances");
    assert_eq!(after.debits, after.credits);
    assert_eq!(after.without_beginning, 0);
    // Other tests may write at the same time: no more than this is sure.
    assert!(after.revenue >= before.revenue + i64::try_from(charged).expect("small"));
    assert!(after.posted >= before.posted + 4 && after.open >= 1);
}

pub async fn requests_without_an_end_are_found_by_their_gateway_and_deadline(store: &Store) {
    let (own, _) = tenant(store).await;
    let gateway = Uuid::now_v7();
    let now = OffsetDateTime::now_utc();
    let old = Hold { deadline: now + HOUR, ..hold(own.id()) };
    let border = RequestId::new(Uuid::now_v7());
    let running = Hold { deadline: now + HOUR, ..hold(own.id()) };
    let late = Hold { deadline: now - HOUR, ..hold(own.id()) };
    let entries = [&old, &running, &late].map(|hold| LedgerEntry::Reserved(hold.clone()));
    store.platform().post(gateway, &entries).await.expect("post");
    let found = async |gateway, own_grace: u32, grace: u32| {
        let platform = store.platform();
        let found = platform.open_holds(gateway, border, HOUR * own_grace, HOUR * grace, 1_000).await.expect("find");
        let mine: Vec<_> = found.into_iter().filter(|open| open.hold.tenant == own.id()).collect();
        mine
    };
    let ids = |found: &[store::OpenHold]| found.iter().map(|open| open.hold.request).collect::<Vec<_>>();
    let of_this = found(gateway, 0, 999).await;
    assert_eq!(ids(&of_this), [late.request, old.request], "those before the border and those that are late");
    assert_eq!(micros(&of_this[1].hold), micros(&old), "with all that it takes to end them");
    assert_eq!(ids(&found(gateway, 2, 999).await), [old.request]);
    assert!(found(Uuid::nil(), 0, 999).await.is_empty(), "another gateway's");
    assert_eq!(ids(&found(Uuid::nil(), 0, 0).await), [late.request], "until they are late enough for everybody");
}

fn used(hold: Hold, outcome: Outcome) -> (Hold, UsageRecord) {
    let record = UsageRecord {
        worker: "worker-1".to_owned(),
        cached_prompt_tokens: 4,
        completion_tokens: 30,
        outcome,
        first_token: Some(Duration::from_millis(12)),
        duration: Duration::from_millis(345),
        ..hold.record()
    };
    (hold, record)
}

fn both(hold: &Hold, end: End) -> [LedgerEntry; 2] {
    [LedgerEntry::Reserved(hold.clone()), LedgerEntry::Ended(hold.clone(), end)]
}

async fn spent(own: &TenantScope, of: &Hold, except: &[RequestId]) -> u64 {
    let day = of.at.replace_time(time::Time::MIDNIGHT);
    let all = own.spent(None, day, day + time::Duration::days(1), except).await.expect("sum");
    let key = own.spent(Some(of.api_key), day, day + time::Duration::days(1), except).await.expect("sum");
    assert!(key <= all);
    all
}

fn fits(group: &UsageGroup, by: &[GroupBy]) -> bool {
    let period = by.contains(&GroupBy::Day) || by.contains(&GroupBy::Month);
    group.period.is_some() == period
        && group.model.is_some() == by.contains(&GroupBy::Model)
        && group.api_key.is_some() == by.contains(&GroupBy::ApiKey)
        && group.price.is_some() == by.contains(&GroupBy::Price)
}

/// Times as the database keeps them.
fn micros(hold: &Hold) -> Hold {
    let cut = |time: OffsetDateTime| time.replace_nanosecond(time.microsecond() * 1_000).expect("a time");
    Hold { at: cut(hold.at), deadline: cut(hold.deadline), ..hold.clone() }
}
