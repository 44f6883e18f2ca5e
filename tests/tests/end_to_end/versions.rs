//! Hot swap: aliases move, versions do not.

use proto::v1;
use tonic::Code;

use crate::platform::{Platform, Settings, ask, ask_at_length, generate, generous, open, operator, read};

const QUESTION: &str = "What does E-17 mean?";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_promoted_mid_stream_changes_no_running_answer_and_every_next_one() {
    let platform = Platform::start(Settings::default()).await;
    let key = platform.tenant("acme", generous()).await;
    platform.create_adapter("acme", "claims").await;
    let old = platform.push("acme", "claims", "finance", "live").await;
    let new = platform.push("acme", "claims", "healthcare", "").await;
    let mut client = platform.inference().await;
    let request = || ask_at_length("acme/claims", QUESTION, 300);
    let expected = generate(&mut client, &key, request()).await.expect("alone");

    let mut running = Vec::new();
    for _ in 0..8 {
        let mut stream = open(&mut client, &key, request()).await.expect("open");
        let first = stream.message().await.expect("a first step").expect("not ended");
        running.push((first, stream));
    }
    platform.move_alias("acme", "claims", "live", &new).await;
    let next = generate(&mut client, &key, ask("acme/claims", QUESTION, 64)).await.expect("next");

    assert_eq!(next.finish.receipt.expect("receipt").adapter_digest, new);
    for (first, stream) in running {
        let rest = read(stream).await.expect("a running answer ends well");
        let tokens: Vec<_> = first.tokens.iter().map(|token| token.id).chain(rest.tokens).collect();
        assert_eq!(tokens, expected.tokens);
        assert_eq!(rest.finish.receipt.expect("receipt").adapter_digest, old);
    }
    let pinned = generate(&mut client, &key, ask(&format!("acme/claims@{old}"), QUESTION, 64)).await;
    assert_eq!(pinned.expect("the old one can still be named").finish.receipt.expect("receipt").adapter_digest, old);

    let name = "tenants/acme/adapters/claims/aliases/live".to_owned();
    let rolled = platform.adapters().await;
    let back = v1::RollbackAliasRequest { name, ..Default::default() };
    let alias = rolled.clone().rollback_alias(operator(back)).await.expect("roll back").into_inner();
    assert_eq!((alias.digest, alias.previous_digest), (old.clone(), new));
    let after = generate(&mut client, &key, ask("acme/claims", QUESTION, 64)).await.expect("after");
    assert_eq!(after.finish.receipt.expect("receipt").adapter_digest, old);
    platform.wait_until_idle(0).await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_push_again_under_the_same_name_never_serves_old_weights_or_old_kv() {
    let platform = Platform::start(Settings::default()).await;
    let key = platform.tenant("acme", generous()).await;
    let mut client = platform.inference().await;
    let mut answers = Vec::new();
    for industry in ["finance", "healthcare", "finance"] {
        platform.create_adapter("acme", "claims").await;
        let digest = platform.push("acme", "claims", industry, "live").await;
        // Twice, so that the second one may come from the prefix cache.
        for _ in 0..2 {
            let answer = generate(&mut client, &key, ask("acme/claims", QUESTION, 64)).await.expect("answer");
            assert_eq!(answer.finish.receipt.as_ref().expect("receipt").adapter_digest, digest);
            answers.push(answer.text);
        }
        let request = v1::DeleteAdapterRequest { name: "tenants/acme/adapters/claims".to_owned() };
        platform.adapters().await.delete_adapter(operator(request)).await.expect("delete");
        for model in ["acme/claims".to_owned(), format!("acme/claims@{digest}")] {
            let gone = generate(&mut client, &key, ask(&model, QUESTION, 8)).await.expect_err("deleted");
            assert_eq!(gone.code(), Code::NotFound, "{model}");
        }
    }
    assert_eq!([&answers[0], &answers[0], &answers[0]], [&answers[1], &answers[4], &answers[5]]);
    assert_eq!(answers[2], answers[3]);
    assert_ne!(answers[0], answers[2]);
    platform.stop().await;
}
