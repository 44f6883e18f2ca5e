//! Requests that their clients have named.

use std::time::Duration;

use domain::{ApiKeyId, RequestId, Role};
use store::{
    Claimed, ClientRequest, DeleteTenant, Full, FullOf, MostKept, NewRun, Resource, Store, StoreError, TenantScope,
};
use uuid::Uuid;

use super::{digest, tenant, unique};
use crate::assert_refused;

const LONG: Duration = Duration::from_secs(600);

const PLENTY: MostKept = MostKept { requests: 1_000, bytes: 1 << 30, answer_bytes: 1 << 20 };

pub fn new_run() -> NewRun {
    let run = RequestId::new(Uuid::now_v7());
    NewRun { run, fingerprint: digest(7), seed: u64::MAX, claim: LONG, window: LONG, most: PLENTY }
}

pub async fn named(own: &TenantScope) -> ClientRequest {
    let new = store::NewApiKey {
        public_id: unique("k").to_string().replace('-', "").chars().rev().take(12).collect(),
        secret_hash: [1; 32],
        role: Role::Inference,
        fields: store::ApiKeyFields::default(),
    };
    ClientRequest { key: own.create_api_key(new).await.expect("create").id, id: "order-17".parse().expect("an id") }
}

pub async fn a_named_request_has_one_run_until_it_is_answered_released_or_dead(store: &Store) {
    let (own, _) = tenant(store).await;
    let request = named(&own).await;
    let claim = async |new: NewRun| own.claim_client_request(&request, new).await.expect("claim");
    let first = new_run();
    assert_eq!(claim(first).await, Claimed::Own { seed: u64::MAX });
    assert_eq!(claim(new_run()).await, Claimed::Running { run: first.run, seed: u64::MAX });
    assert_eq!(claim(NewRun { fingerprint: digest(8), ..new_run() }).await, Claimed::Mismatch);
    // Released, it is anybody's.
    assert!(own.release_client_request(&request, first.run).await.expect("release"));
    let second = NewRun { seed: 5, claim: Duration::ZERO, ..new_run() };
    assert_eq!(claim(second).await, Claimed::Own { seed: 5 });
    // Dead (its claim is over): the next run has its seed, and it is too late for the dead one.
    let third = new_run();
    assert_eq!(claim(NewRun { fingerprint: digest(8), ..third }).await, Claimed::Mismatch);
    assert_eq!(claim(third).await, Claimed::Own { seed: 5 });
    for late in [
        own.renew_client_request(&request, second.run, LONG).await,
        own.answer_client_request(&request, second.run, b"late").await,
        own.release_client_request(&request, second.run).await,
    ] {
        assert!(!late.expect("asks"));
    }
    assert!(own.renew_client_request(&request, third.run, LONG).await.expect("renew"));
    assert!(own.answer_client_request(&request, third.run, b"answer").await.expect("answer"));
    let answered = Claimed::Answered { run: third.run, seed: 5, answer: b"answer".to_vec() };
    assert_eq!(claim(new_run()).await, answered);
    assert!(!own.release_client_request(&request, third.run).await.expect("asks"), "an answer stays");
    assert!(!own.answer_client_request(&request, third.run, b"other").await.expect("asks"), "and does not change");
    // Another key's, and another tenant's, are others.
    let other_key = named(&own).await;
    assert_eq!(own.claim_client_request(&other_key, new_run()).await.expect("claim"), Claimed::Own { seed: u64::MAX });
    let nobody = ClientRequest { key: ApiKeyId::new(Uuid::now_v7()), ..request.clone() };
    let refused = own.claim_client_request(&nobody, new_run()).await;
    assert_refused!(refused, StoreError::NotFound { what: Resource::ApiKey, .. });
}

pub async fn a_named_request_is_forgotten_with_its_window_and_its_key(store: &Store) {
    let (own, slug) = tenant(store).await;
    let request = named(&own).await;
    let over = NewRun { window: Duration::ZERO, ..new_run() };
    own.claim_client_request(&request, over).await.expect("claim");
    assert!(own.answer_client_request(&request, over.run, b"answer").await.expect("answer"));
    // Its window is over, so its name is free, whatever for; and it is deleted.
    let next = NewRun { fingerprint: digest(8), seed: 6, window: Duration::ZERO, ..new_run() };
    assert_eq!(own.claim_client_request(&request, next).await.expect("claim"), Claimed::Own { seed: 6 });
    assert!(store.platform().delete_expired_client_requests(1_000).await.expect("delete") >= 1);
    assert!(!own.answer_client_request(&request, next.run, b"gone").await.expect("asks"));
    own.claim_client_request(&request, new_run()).await.expect("claim");
    store.platform().delete_tenant(&slug, DeleteTenant::IfWithoutAdapters).await.expect("its requests go with it");
}

pub async fn the_named_requests_of_a_tenant_and_the_bytes_of_their_answers_are_bounded(store: &Store) {
    let (own, slug) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let request = named(&own).await;
    let called = |id: &str| ClientRequest { id: id.parse().expect("an id"), ..request.clone() };
    // Three requests, or two that run: each counts as having the longest answer.
    let most = MostKept { requests: 3, bytes: 20, answer_bytes: 10 };
    let run = || NewRun { most, ..new_run() };
    let claim = async |id: &str, new: NewRun| own.claim_client_request(&called(id), new).await.expect("claim");
    let full = |claimed: Claimed| match claimed {
        Claimed::Full(Full { kind, retry_after }) if retry_after > LONG / 2 && retry_after <= LONG => kind,
        other => panic!("{other:?}"),
    };
    let (a, b) = (run(), run());
    assert_eq!(claim("a", a).await, Claimed::Own { seed: u64::MAX });
    assert_eq!(claim("b", b).await, Claimed::Own { seed: u64::MAX });
    assert_eq!(full(claim("c", run()).await), FullOf::Bytes);
    assert_eq!(claim("a", run()).await, Claimed::Running { run: a.run, seed: u64::MAX }, "what is there stays");
    // Short answers leave room; of two that are long together there is none for a third.
    assert!(own.answer_client_request(&called("a"), a.run, b"1234567890").await.expect("answer"));
    assert!(own.renew_client_request(&called("b"), b.run, LONG).await.expect("renew"));
    assert_eq!(full(claim("c", run()).await), FullOf::Bytes);
    assert!(own.answer_client_request(&called("b"), b.run, b"").await.expect("answer"));
    let c = NewRun { claim: Duration::ZERO, ..run() };
    assert_eq!(claim("c", c).await, Claimed::Own { seed: u64::MAX });
    assert_eq!(full(claim("d", run()).await), FullOf::Requests);
    // One that takes the place of a dead one needs no more room; what is released gives it back.
    let again = run();
    assert_eq!(claim("c", again).await, Claimed::Own { seed: u64::MAX });
    assert!(own.release_client_request(&called("c"), again.run).await.expect("release"));
    let over = NewRun { window: Duration::ZERO, ..run() };
    assert_eq!(claim("d", over).await, Claimed::Own { seed: u64::MAX });
    // Its window is over, so it makes room, whether or not somebody has deleted it.
    assert_eq!(claim("e", run()).await, Claimed::Own { seed: u64::MAX });
    assert_eq!(full(claim("f", run()).await), FullOf::Requests);
    // Others have their own room, and none of it outlives the tenant.
    let theirs = named(&other).await;
    other.claim_client_request(&theirs, run()).await.expect("claim");
    store.platform().delete_tenant(&slug, DeleteTenant::IfWithoutAdapters).await.expect("delete");
}
