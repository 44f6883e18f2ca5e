//! Many answers at once, and answers that nobody waits for any more.

use futures::future::join_all;
use proto::v1;

use crate::platform::{INDUSTRIES, Platform, Settings, ask, ask_at_length, generate, generous, open};

const QUESTIONS: [&str; 4] = [
    "What does E-17 mean?",
    "Someone wrote E-17 in the report. What does that refer to?",
    "Please describe code E-17 in a few words.",
    "Hello! How are you today?",
];

fn models() -> Vec<String> {
    INDUSTRIES.iter().map(|industry| format!("acme/{industry}")).chain(["base".to_owned()]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_streams_over_four_adapters_and_the_base_each_answer_as_alone() {
    let platform = Platform::start(Settings { workers: 2, ..Settings::default() }).await;
    let key = platform.acme_with_industries().await;
    let client = platform.inference().await;
    let models = models();
    let mut alone = Vec::new();
    for model in &models {
        for question in QUESTIONS {
            let answer = generate(&mut client.clone(), &key, ask(model, question, 48)).await.expect("alone");
            alone.push((model.clone(), question, answer));
        }
    }

    let together = join_all((0..64).map(|number| {
        let (model, question, _) = &alone[number % alone.len()];
        let (mut client, key) = (client.clone(), key.clone());
        async move { generate(&mut client, &key, ask(model, question, 48)).await.expect("together") }
    }))
    .await;

    for (number, answer) in together.iter().enumerate() {
        let (model, question, expected) = &alone[number % alone.len()];
        assert_eq!(answer.tokens, expected.tokens, "{model}: {question}");
        assert_eq!(answer.text, expected.text, "{model}: {question}");
        let (receipt, before) = (answer.finish.receipt.as_ref(), expected.finish.receipt.as_ref());
        let (receipt, before) = (receipt.expect("receipt"), before.expect("receipt"));
        assert_eq!(receipt.adapter_digest, before.adapter_digest);
        assert_eq!(receipt.adapter_digest.is_empty(), model == "base");
        let usage = answer.finish.usage.expect("usage");
        assert_eq!(receipt.tokens, usage.prompt_tokens + usage.completion_tokens);
        assert_eq!(usage.completion_tokens as usize, answer.tokens.len());
    }
    let of_e17: Vec<_> =
        alone.iter().filter(|(_, question, _)| *question == QUESTIONS[0]).map(|(.., answer)| &answer.text).collect();
    for (at, text) in of_e17.iter().enumerate() {
        assert!(!of_e17[..at].contains(text), "every industry says something else of E-17: {of_e17:?}");
    }
    let answers = || alone.iter().map(|(.., answer)| answer).chain(&together);
    let tokens: u32 = answers().filter_map(|answer| answer.finish.receipt.as_ref()).map(|receipt| receipt.tokens).sum();
    let requests = i64::try_from(answers().count()).expect("few");
    assert_eq!(platform.usage_of("finished", requests).await, (requests, tokens.into()), "every answer is on record");
    for worker in 0..2 {
        platform.wait_until_idle(worker).await;
    }
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stream_frees_its_blocks_its_slot_and_its_lease() {
    let platform = Platform::start(Settings::default()).await;
    let key = platform.tenant("solo", v1::TenantLimits { concurrent_requests: 2, ..generous() }).await;
    platform.create_adapter("solo", "claims").await;
    platform.push("solo", "claims", "finance", "live").await;
    let mut client = platform.inference().await;

    // With two slots, every round must get back both of the one before.
    for _ in 0..8 {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut streams = Vec::new();
        while streams.len() < 2 {
            let request = ask_at_length("solo/claims", "What does E-17 mean?", 400);
            match open(&mut client, &key, request).await {
                Ok(mut stream) => {
                    stream.message().await.expect("a first step").expect("not ended");
                    streams.push(stream);
                }
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
                    assert!(std::time::Instant::now() < deadline, "a cancelled stream kept its slot");
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        }
        drop(streams);
    }
    let status = platform.wait_until_idle(0).await;
    assert!(status.completion_tokens_total < 16 * 400, "cancelled answers are not computed to their end: {status:?}");
    platform.stop().await;
}
