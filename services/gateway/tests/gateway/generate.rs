//! The story of a generation, and every way in which it can end.

use std::time::{Duration, Instant};

use domain::Reason;
use proto::v1;
use store::{FinishReason, Outcome, Page};
use tonic::Request;

use crate::{
    fake_worker::{Act, CONTEXT_LENGTH, FakeWorker, base},
    platform::{Platform, ask, collect, fault, within},
};

#[tokio::test]
async fn an_answer_carries_its_receipt_and_its_usage_record_follows() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Say("cde"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;

    let answer = platform.generate(&acme.key, ask("base")).await.expect("answers");
    let records = platform.usage_of(&acme, 1).await;

    assert_eq!((answer.text.as_str(), answer.tokens), ("abcde", 5));
    let receipt = answer.finish.receipt.expect("a receipt");
    assert_eq!(receipt.base_digest, base().digest);
    assert_eq!((receipt.worker.as_str(), receipt.tokens, receipt.adapter_digest.as_str()), ("one", 15, ""));
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!(record.request.to_string(), receipt.request_id);
    assert_eq!(record.outcome, Outcome::Finished(FinishReason::Length));
    assert_eq!((record.prompt_tokens, record.cached_prompt_tokens, record.completion_tokens), (10, 1, 5));
    assert!(record.first_token.is_some() && record.model == "base" && record.worker == "one");
    // A seed was drawn, sent and told.
    let sent = worker.requests().remove(0);
    assert_eq!(sent.sampling.and_then(|sampling| sampling.seed), Some(answer.finish.seed));
    assert_eq!(sent.tenant_id, acme.id.to_string());
    assert_eq!(sent.share.as_ref().map(|share| share.tenant_id.clone()), Some(acme.id.to_string()));
    platform.stop().await;
}

#[tokio::test]
async fn the_form_of_an_answer_reaches_the_worker_and_its_refusal_the_client() {
    use v1::response_format::Format;
    let worker = FakeWorker::start("one", vec![Act::Say("{}"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let formed = |format| {
        let response_format = Some(v1::ResponseFormat { format: Some(format) });
        v1::GenerateRequest { response_format, ..ask("base") }
    };
    let schema = formed(Format::JsonSchema(r#"{"type": "object"}"#.to_owned()));
    platform.generate(&acme.key, schema.clone()).await.expect("answers");
    assert_eq!(worker.requests()[0].response_format, schema.response_format);
    // Not JSON: refused here. A grammar that the worker refuses: its words come through, and nobody else is tried.
    let refused = platform.generate(&acme.key, formed(Format::JsonSchema("{".to_owned()))).await;
    assert!(refused.err().expect("refused").message.contains("response_format"));
    assert_eq!(worker.requests().len(), 1);
    worker.will(vec![Act::Fail(Reason::InvalidRequest)]);
    let refused = platform.generate(&acme.key, formed(Format::Lark("start:".to_owned()))).await;
    assert_eq!((refused.err().expect("refused").reason, worker.requests().len()), (Reason::InvalidRequest, 2));
    platform.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_worker_and_is_recorded() {
    let mut worker = FakeWorker::start("one", vec![Act::Say("abc"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let one_at_a_time = v1::TenantLimits { concurrent_requests: 1, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", one_at_a_time).await;

    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    assert_eq!(within(stream.message()).await.expect("a step").expect("a step").text, "abc");
    drop(stream);
    worker.dropped(1).await;

    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::Cancelled, 3));
    // The slot comes back.
    worker.will(vec![Act::Say("x"), Act::Finish]);
    within(async { while platform.generate(&acme.key, ask("base")).await.is_err() {} }).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_first_token_frees_the_worker_too() {
    let mut worker = FakeWorker::start("one", vec![Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut client = platform.inference(&acme.key);
    let call = tokio::spawn(async move { client.generate(ask("base")).await.map(|_| ()) });
    within(async {
        while worker.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    call.abort();
    worker.dropped(1).await;
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::Cancelled, 0));
    platform.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_in_the_middle_and_reaches_the_worker() {
    let mut worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;

    let mut request = Request::new(ask("base"));
    request.set_timeout(Duration::from_millis(1_500));
    let start = Instant::now();
    let stream = platform.inference(&acme.key).generate(request).await.expect("begins").into_inner();
    let refused = collect(stream).await.err().expect("cut off");
    assert_eq!(refused.reason, Reason::DeadlineExceeded);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_000) && took < Duration::from_secs(10), "took {took:?}");

    worker.dropped(1).await;
    let timeout = worker.timeouts().remove(0).expect("the deadline was passed on");
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::DeadlineExceeded, 2), "{timeout}");
    platform.stop().await;
}

#[tokio::test]
async fn a_deadline_before_the_first_token_is_told_in_our_words() {
    let mut worker = FakeWorker::start("one", vec![Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut request = Request::new(ask("base"));
    // The header alone, so that the client's own clock does not answer for the gateway.
    request.metadata_mut().insert("grpc-timeout", "800m".parse().expect("ascii"));
    let channel = platform.channel(platform.gateway.inference_addr);
    let mut client = proto::v1::inference_service_client::InferenceServiceClient::new(channel);
    request.metadata_mut().insert("authorization", chassis::bearer::value(&acme.key).expect("a header"));
    let refused = client.generate(request).await.expect_err("cut off");
    if chassis::status::request_id_of(&refused).is_some() {
        assert_eq!(fault(&refused).reason, Reason::DeadlineExceeded);
    } else {
        // tonic's client keeps the header's deadline as well, and may be first on a busy machine.
        assert!(matches!(refused.code(), tonic::Code::Cancelled | tonic::Code::DeadlineExceeded), "{refused:?}");
    }
    worker.dropped(1).await;
    assert_eq!(platform.usage_of(&acme, 1).await[0].outcome, Outcome::DeadlineExceeded);
    platform.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_before_the_first_token_is_replaced_unseen() {
    let good = vec![Act::Say("ok"), Act::Finish];
    let one = FakeWorker::start("one", vec![Act::Break]).await;
    let two = FakeWorker::start("two", vec![Act::Break]).await;
    let platform = Platform::start(&[&one, &two]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    within(async { while platform.generate(&acme.key, ask("base")).await.is_ok() {} }).await;

    for (broken, well) in [(&one, &two), (&two, &one)] {
        broken.will(vec![Act::Break]);
        well.will(good.clone());
        // Both are looked at again after a moment; whoever is asked first, the answer comes.
        let before = well.requests().len();
        within(async {
            loop {
                match platform.generate(&acme.key, ask("base")).await {
                    Ok(answer) => {
                        assert_eq!(answer.finish.receipt.expect("a receipt").worker, well.name);
                        break;
                    }
                    Err(fault) => assert_eq!(fault.reason, Reason::WorkerUnavailable),
                }
            }
        })
        .await;
        assert!(well.requests().len() > before);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_again_and_again_ends_the_stream_and_what_was_sent_is_recorded() {
    let worker = FakeWorker::start("one", vec![Act::Say("abc"), Act::Break]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    assert_eq!(within(stream.message()).await.expect("a step").expect("a step").text, "abc");
    let refused = fault(&within(stream.message()).await.expect_err("broken off"));
    assert_eq!(refused.reason, Reason::WorkerUnavailable);
    assert!(!refused.message.contains("transport"), "internals stay inside");
    let records = platform.usage_of(&acme, 1).await;
    assert_eq!((records[0].outcome, records[0].completion_tokens), (Outcome::Failed, 3));
    platform.stop().await;
}

#[tokio::test]
async fn a_full_queue_is_tried_elsewhere_once_and_then_passed_on_with_its_hint() {
    let one = FakeWorker::start("one", vec![Act::Fail(Reason::QueueFull)]).await;
    let two = FakeWorker::start("two", vec![Act::Fail(Reason::QueueFull)]).await;
    let platform = Platform::start(&[&one, &two]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    // Both must be well, or there is nobody to be asked second.
    within(async {
        loop {
            let before = one.requests().len() + two.requests().len();
            let refused = platform.generate(&acme.key, ask("base")).await.err().expect("refused");
            assert_eq!(refused.reason, Reason::QueueFull);
            assert_eq!(refused.retry_hint(), Some(Duration::from_millis(700)));
            if one.requests().len() + two.requests().len() == before + 2 {
                break;
            }
        }
    })
    .await;
    two.will(vec![Act::Say("ok"), Act::Finish]);
    assert_eq!(platform.generate(&acme.key, ask("base")).await.expect("answers").text, "ok");
    // Refusals are not usage.
    assert_eq!(platform.usage_of(&acme, 1).await.len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn an_answer_of_another_adapter_is_never_passed_off_as_the_one_that_was_asked_for() {
    let worker = FakeWorker::start("one", vec![Act::Say("abc"), Act::FinishWithAnother]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let refused = platform.generate(&acme.key, ask("base")).await.err().expect("refused");
    assert_eq!(refused.reason, Reason::Internal);
    assert_eq!(platform.usage_of(&acme, 1).await[0].outcome, Outcome::Failed);
    platform.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_the_context_is_refused_before_anything_is_charged() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let one_a_minute = v1::TenantLimits { requests_per_minute: 1, ..v1::TenantLimits::default() };
    let acme = platform.tenant("acme", one_a_minute).await;
    let long = |prompt: u32, max_tokens| v1::GenerateRequest {
        input: Some(v1::generate_request::Input::Prompt("x".repeat(prompt as usize))),
        max_tokens,
        ..ask("base")
    };
    for request in [long(CONTEXT_LENGTH, 1), long(CONTEXT_LENGTH, 0), long(CONTEXT_LENGTH - 9, 10)] {
        let refused = platform.generate(&acme.key, request).await.err().expect("refused");
        assert_eq!(refused.reason, Reason::ContextLength);
    }
    // Without a wish, the answer gets what is left.
    platform.generate(&acme.key, long(CONTEXT_LENGTH - 9, 0)).await.expect("fits");
    assert_eq!(worker.requests()[0].max_tokens, 9);
    platform.stop().await;
}

#[tokio::test]
async fn a_stop_ends_running_answers_with_a_word_and_leaves_nothing_behind() {
    let worker = FakeWorker::start("one", vec![Act::Say("ab"), Act::Hang]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let mut stream = platform.inference(&acme.key).generate(ask("base")).await.expect("begins").into_inner();
    within(stream.message()).await.expect("a step");
    let (end, (store, _database)) = within(async { tokio::join!(collect_end(stream), platform.end()) }).await;
    assert_eq!(end.reason, Reason::ShuttingDown);
    let records = store.tenant(acme.id).list_usage(&Page::first(10)).await.expect("lists").items;
    assert_eq!((records.len(), records[0].completion_tokens), (1, 2), "written before the gateway ended");
}

async fn collect_end(mut stream: tonic::Streaming<v1::GenerateResponse>) -> domain::Fault {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end without a finish"),
            Err(status) => return fault(&status),
        }
    }
}

#[tokio::test]
async fn models_are_listed_page_by_page_the_base_first() {
    let worker = FakeWorker::start("one", Vec::new()).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    let page = |page_size, page_token: &str| v1::ListModelsRequest { page_size, page_token: page_token.to_owned() };
    let mut client = platform.inference(&acme.key);
    let first = client.list_models(page(1, "")).await.expect("lists").into_inner();
    assert_eq!((first.models.len(), first.models[0].name.as_str()), (1, "base"));
    assert_eq!(first.models[0].context_length, CONTEXT_LENGTH);
    let second = client.list_models(page(1, &first.next_page_token)).await.expect("lists").into_inner();
    assert!(second.models.is_empty() && second.next_page_token.is_empty());
    let wrong = client.list_models(page(1, "nonsense")).await.expect_err("not ours");
    assert_eq!(fault(&wrong).reason, Reason::InvalidRequest);
    let counted = v1::CountTokensRequest {
        model: "base".into(),
        input: Some(v1::count_tokens_request::Input::Prompt("four".into())),
    };
    assert_eq!(client.count_tokens(counted).await.expect("counts").into_inner().tokens, 4);
    platform.stop().await;
}
