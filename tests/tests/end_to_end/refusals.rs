//! Every limit can be hit, and says so.

use std::time::{Duration, Instant};

use chassis::status::fault_of;
use domain::{Detail, Reason};
use proto::v1;
use tonic::Code;

use crate::platform::{
    Platform, Settings, ask, ask_at_length, generate, generous, industry_dir, open, read, with_token,
};

const QUESTION: &str = "What does E-17 mean?";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let settings = Settings { worker: "[engine]\nrunning_max = 1\nwaiting_max = 1\n", ..Settings::default() };
    let platform = Platform::start(settings).await;
    let key = platform.tenant("acme", generous()).await;
    let mut client = platform.inference().await;

    let mut streams = Vec::new();
    let refused = loop {
        assert!(streams.len() < 64, "a queue of one took 64 requests");
        let (mut client, key) = (client.clone(), key.clone());
        let request = ask_at_length("base", QUESTION, 400);
        // A waiting request answers only when it runs, so each is opened by a task of its own.
        let opening = tokio::spawn(async move {
            let asked = Instant::now();
            open(&mut client, &key, request).await.map_err(|status| (status, asked.elapsed()))
        });
        let opened = tokio::time::timeout(Duration::from_millis(50), opening).await;
        match opened {
            Ok(Ok(Err(refused))) => break refused,
            Ok(Ok(Ok(stream))) => streams.push(stream),
            Ok(Err(crash)) => panic!("{crash}"),
            // It waits; dropping the handle leaves the request where it is.
            Err(_) => continue,
        }
    };
    let fault = fault_of(&refused.0);
    assert_eq!(fault.reason, Reason::QueueFull);
    assert!(fault.retry_hint().is_some(), "{fault:?}");
    assert!(chassis::status::request_id_of(&refused.0).is_some());
    drop(streams);
    // The queue drains, and the next request is answered.
    platform.wait_until_idle(0).await;
    generate(&mut client, &key, ask("base", QUESTION, 4)).await.expect("after the rush");
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_of_a_tenant_can_be_hit_and_says_which_and_when() {
    let platform = Platform::start(Settings::default()).await;
    let mut client = platform.inference().await;
    let cases = [
        ("requests", v1::TenantLimits { requests_per_minute: 2, ..generous() }),
        ("input", v1::TenantLimits { input_tokens_per_minute: 60, ..generous() }),
        ("output", v1::TenantLimits { output_tokens_per_minute: 48, ..generous() }),
    ];
    for (tenant, limits) in cases {
        let key = platform.tenant(&format!("by-{tenant}"), limits).await;
        let mut refused = None;
        for _ in 0..8 {
            if let Err(status) = generate(&mut client, &key, ask_at_length("base", QUESTION, 32)).await {
                refused = Some(fault_of(&status));
                break;
            }
        }
        let fault = refused.unwrap_or_else(|| panic!("{tenant} per minute were never limited"));
        assert_eq!(fault.reason, Reason::RateLimited, "{fault:?}");
        assert!(fault.retry_hint().is_some(), "{fault:?}");
        assert!(fault.details.iter().any(|detail| matches!(detail, Detail::Quota { .. })), "{fault:?}");
    }

    let key = platform.tenant("by-slots", v1::TenantLimits { concurrent_requests: 1, ..generous() }).await;
    let mut held = open(&mut client, &key, ask_at_length("base", QUESTION, 450)).await.expect("the only slot");
    held.message().await.expect("a step").expect("not ended");
    let refused = open(&mut client, &key, ask("base", QUESTION, 8)).await;
    // The first may have ended meanwhile on a fast machine; then there was nothing to refuse.
    if let Err(status) = refused {
        assert_eq!(fault_of(&status).reason, Reason::RateLimited);
    }
    read(held).await.expect("the first goes on");
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_violation_of_a_request_is_named_at_once() {
    let platform = Platform::start(Settings::default()).await;
    let key = platform.tenant("acme", generous()).await;
    let mut client = platform.inference().await;
    let mut request = ask("base", QUESTION, 8);
    request.model = "not a model".to_owned();
    request.sampling = Some(v1::Sampling { temperature: Some(-1.0), top_p: Some(2.0), ..Default::default() });
    request.stop = vec![String::new()];
    let status = client.generate(with_token(request, &key)).await.expect_err("refused");
    let fault = fault_of(&status);
    let fields: Vec<_> = fault
        .details
        .iter()
        .filter_map(|detail| match detail {
            Detail::Violation { field, .. } => Some(field.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(status.code(), Code::InvalidArgument);
    for wanted in ["model", "temperature", "top_p", "stop"] {
        assert!(fields.iter().any(|field| field.contains(wanted)), "{wanted} in {fields:?}");
    }

    let long = "word ".repeat(2_000);
    let fault = fault_of(&client.generate(with_token(ask("base", &long, 8), &key)).await.expect_err("too long"));
    assert_eq!(fault.reason, Reason::ContextLength);
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutated_adapter_is_refused_with_its_codes_and_nothing_of_it_is_kept() {
    let platform = Platform::start(Settings::default()).await;
    platform.tenant("acme", generous()).await;
    platform.create_adapter("acme", "claims").await;
    let weights = std::fs::read(industry_dir("finance").join("adapter_model.safetensors")).expect("weights");
    let config = std::fs::read_to_string(industry_dir("finance").join("adapter_config.json")).expect("config");
    let mut other_rank: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    other_rank["r"] = (other_rank["r"].as_u64().expect("a rank") + 1).into();
    let cases: [(&str, String, Vec<u8>); 4] = [
        ("E_RANK_CONFLICT", other_rank.to_string(), weights.clone()),
        ("E_CONTAINER", config.clone(), weights[..weights.len() - 1].to_vec()),
        ("E_UNKNOWN_SEMANTICS", config.replacen('{', "{\"new_maths\": true,", 1), weights.clone()),
        ("E_CONTAINER", config.clone(), vec![0xff; 64]),
    ];
    for (code, config, weights) in cases {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("adapter_config.json"), config).expect("write");
        std::fs::write(dir.path().join("adapter_model.safetensors"), weights).expect("write");
        let status = platform.upload("acme", "claims", "live", dir.path()).await.expect_err(code);
        let fault = fault_of(&status);
        assert_eq!(fault.reason, Reason::AdapterRefused, "{fault:?}");
        let codes: Vec<_> = fault
            .details
            .iter()
            .filter_map(|detail| match detail {
                Detail::Violation { reason, .. } => Some(reason.as_str()),
                _ => None,
            })
            .collect();
        assert!(codes.contains(&code), "{code} in {codes:?}: {}", fault.message);
    }
    let listed =
        v1::ListAdapterVersionsRequest { parent: "tenants/acme/adapters/claims".to_owned(), ..Default::default() };
    let listed = platform.adapters().await.list_adapter_versions(crate::platform::operator(listed)).await;
    assert!(listed.expect("list").into_inner().versions.is_empty());
    platform.stop().await;
}
