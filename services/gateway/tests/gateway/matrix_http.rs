//! Every HTTP route × every method × every standing × its own, another and no tenant's model. The routes are the list that
//! the router is made of; one that is not in [`BODIES`] fails the test.

use std::collections::BTreeSet;

use domain::Role;
use gateway::access::{HTTP_ROUTES, HttpMethod, HttpRoute, Standing};
use proto::v1;
use serde_json::Value;

use crate::{
    fake_worker::{Act, FakeWorker},
    http::{Reply, get, request, send},
    matrix::{House, platform_key, rule_of, standings},
    platform::{AUDITOR, OPERATOR, Platform, inference_key, within},
};

/// A body for each route that is good in every other respect. `M` stands for a model, in the path too.
const BODIES: &[(&str, &str)] = &[
    ("/v1/chat/completions", r#"{"model": "M", "max_tokens": 4, "messages": [{"role": "user", "content": "a"}]}"#),
    ("/v1/completions", r#"{"model": "M", "max_tokens": 4, "prompt": "a"}"#),
    ("/v1/models", ""),
    ("/v1/models/{*model}", ""),
];
/// Of HTTP, but for `CONNECT`, which is no request for a path.
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"];

/// Somebody who calls, as the header has it, and the status that tells what becomes of every call of his.
struct Caller {
    name: String,
    authorization: Option<String>,
    house: House,
    standing: Option<Standing>,
}

impl Caller {
    fn stranger(name: &str, authorization: Option<&str>) -> Self {
        let authorization = authorization.map(str::to_owned);
        Self { name: name.to_owned(), authorization, house: House::nowhere(), standing: None }
    }

    async fn of(platform: &Platform, number: usize, standing: Standing) -> Self {
        let house = House::build(platform, &format!("house-{number}")).await;
        let token = match standing {
            Standing::Operator => OPERATOR.to_owned(),
            Standing::Auditor => AUDITOR.to_owned(),
            Standing::Key(role) => platform_key(platform, house.id, role).await,
        };
        let authorization = Some(format!("Bearer {token}"));
        Self { name: standing.to_string(), authorization, house, standing: Some(standing) }
    }
}

fn model_of(house: &House) -> String {
    format!("{}/{}", house.tenant, house.adapter)
}

async fn call(platform: &Platform, route: &HttpRoute, method: &str, caller: &Caller, model: &str) -> Reply {
    let body = BODIES.iter().find(|(path, _)| *path == route.path).expect("in the matrix").1;
    let body = if method == "POST" { body.replace("\"M\"", &format!("{model:?}")) } else { String::new() };
    let path = route.path.replace("{*model}", model);
    let headers: Vec<_> = caller.authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    send(platform, request(method, &path, &headers, body)).await
}

/// Status and code of a refusal, whose shape is OpenAI's.
fn refused(reply: &Reply, what: &str) -> (u16, String) {
    let error = &reply.json()["error"];
    for name in ["message", "type", "code"] {
        assert!(error[name].as_str().is_some_and(|text| !text.is_empty()), "{what}: {error}");
    }
    assert!(error.get("param").is_some(), "{what}: {error}");
    (reply.status, error["code"].as_str().unwrap_or_default().to_owned())
}

/// The words of a refusal, without the model's name and the request's id.
fn words(reply: &Reply, model: &str) -> String {
    let mut body = reply.json();
    let id = body.pointer_mut("/error/banyan/request_id").map(Value::take);
    assert_eq!(id, Some(Value::from(reply.header("x-request-id"))));
    format!("{} {body}", reply.status).replace(model, "M")
}

#[test]
fn the_matrix_has_every_route_of_the_router_and_no_other() {
    let here: BTreeSet<_> = BODIES.iter().map(|(path, _)| *path).collect();
    let routes: BTreeSet<_> = HTTP_ROUTES.iter().map(|route| route.path).collect();
    assert_eq!(here, routes);
}

#[tokio::test]
async fn every_route_is_open_to_whom_its_rpc_is_open_and_shows_nobody_anothers_model() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let rival = model_of(&House::build(&platform, "rival").await);
    let nowhere = model_of(&House::nowhere());
    let mut callers = vec![
        Caller::stranger("nobody", None),
        Caller::stranger("somebody with another scheme", Some("Basic YTpi")),
        Caller::stranger("somebody with an unknown key", Some("Bearer bn_wrong")),
        revoked(&platform).await,
    ];
    for (number, standing) in standings().into_iter().enumerate() {
        callers.push(Caller::of(&platform, number, standing).await);
    }
    for route in HTTP_ROUTES {
        for caller in &callers {
            let own = model_of(&caller.house);
            for method in METHODS {
                let what = format!("{method} {} by {}", route.path, caller.name);
                let reply = call(&platform, route, method, caller, &own).await;
                if method != route.method.as_str() {
                    assert_eq!(reply.status, 405, "{what}");
                    if method != "HEAD" {
                        assert_eq!(refused(&reply, &what).1, "method_not_supported", "{what}");
                    }
                    continue;
                }
                assert!(!reply.header("x-request-id").is_empty(), "{what}");
                match caller.standing {
                    None => assert_eq!(refused(&reply, &what), (401, "invalid_api_key".to_owned()), "{what}"),
                    Some(standing) if !rule_of(route.rpc).callers.contains(&standing) => {
                        assert_eq!(refused(&reply, &what), (403, "permission_denied".to_owned()), "{what}");
                        let foreign = call(&platform, route, method, caller, &rival).await;
                        let unknown = call(&platform, route, method, caller, &nowhere).await;
                        assert_eq!(words(&foreign, &rival), words(&unknown, &nowhere), "{what}");
                    }
                    Some(_) => {
                        assert_eq!(reply.status, 200, "{what}: {:?}", reply.body);
                        if route.path == "/v1/models" {
                            let listed = reply.json();
                            let names = listed["data"].as_array().expect("a list").iter().map(|model| &model["id"]);
                            let names: Vec<_> = names.filter_map(Value::as_str).collect();
                            assert_eq!(names, ["base", &own], "{what}");
                            continue;
                        }
                        let foreign = call(&platform, route, method, caller, &rival).await;
                        let unknown = call(&platform, route, method, caller, &nowhere).await;
                        assert_eq!(refused(&foreign, &what), (404, "model_not_found".to_owned()), "{what}");
                        assert_eq!(words(&foreign, &rival), words(&unknown, &nowhere), "{what}");
                    }
                }
            }
        }
    }
    platform.stop().await;
}

/// Of a key that was good.
async fn revoked(platform: &Platform) -> Caller {
    let house = House::build(platform, "left").await;
    let (name, key) = platform.make_key(&house.tenant, v1::Role::TenantAdmin).await;
    assert_eq!(send(platform, get("/v1/models", &key)).await.status, 200);
    platform.keys(OPERATOR).revoke_api_key(v1::RevokeApiKeyRequest { name }).await.expect("revokes");
    within(async { while send(platform, get("/v1/models", &key)).await.status != 401 {} }).await;
    let authorization = Some(format!("Bearer {key}"));
    Caller { name: "the holder of a revoked key".to_owned(), authorization, house, standing: None }
}

#[tokio::test]
async fn a_key_reaches_of_the_routes_those_of_its_methods_and_nothing_is_beside_the_routes() {
    let worker = FakeWorker::start("one", vec![Act::Say("a"), Act::Finish]).await;
    let platform = Platform::start(&[&worker]).await;
    let acme = platform.tenant("acme", v1::TenantLimits::default()).await;
    for route in HTTP_ROUTES {
        let scoped = v1::ApiKey { methods: vec!["CountTokens".into()], ..inference_key() };
        let authorization = Some(format!("Bearer {}", platform.make(&acme, scoped).await));
        let standing = Some(Standing::Key(Role::Inference));
        let caller = Caller { name: "a scoped key".to_owned(), authorization, house: House::nowhere(), standing };
        let reply = call(&platform, route, route.method.as_str(), &caller, "base").await;
        assert_eq!(refused(&reply, route.path), (403, "permission_denied".to_owned()), "{}", route.path);
    }
    for path in ["/v1/embeddings", "/v1/", "/", "/v1/models/"] {
        for method in [HttpMethod::Get, HttpMethod::Post] {
            let nowhere = send(&platform, request(method.as_str(), path, &[], "")).await;
            assert_eq!(refused(&nowhere, path), (404, "unknown_url".to_owned()), "{path}");
        }
    }
    platform.stop().await;
}
