//! `GET /v1/models`: what the key may use.

use axum::{body::Body, response::Response};
use domain::Fault;
use proto::v1;
use serde_json::{Value, json};
use store::Page;

use super::shape;
use crate::{guard::Session, inference::Inference};

const PAGE_SIZE: u16 = 1_000;
/// OpenAI's list has no pages, so it ends here.
const MODELS_MAX: usize = 10_000;

pub async fn list(inference: &Inference, session: &Session) -> Result<Response<Body>, Fault> {
    let (mut models, mut page) = (Vec::new(), Page::first(PAGE_SIZE));
    loop {
        let found = inference.models(session, page).await?;
        models.extend(found.models.into_iter().map(wire));
        if found.next_page_token.is_empty() || models.len() >= MODELS_MAX {
            return Ok(shape::json(&json!({"object": "list", "data": models})));
        }
        page = Page { size: PAGE_SIZE, token: found.next_page_token };
    }
}

pub fn wire(model: v1::Model) -> Value {
    let owner = model.name.split_once('/').map_or("banyan", |(tenant, _)| tenant);
    json!({
        "id": model.name,
        "object": "model",
        "created": model.update_time.map(|time| time.seconds).unwrap_or_default(),
        "owned_by": owner,
        "banyan": {
            "display_name": model.display_name,
            "adapter_digest": model.adapter_digest,
            "base_digest": model.base_digest,
            "context_length": model.context_length,
        },
    })
}
