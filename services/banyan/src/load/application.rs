//! Requests as applications send them, over a few connections.

use std::sync::Arc;

use proto::v1::{GenerateRequest, TokenIds, generate_request::Input};

use super::drive::{Target, Times};
use crate::{cli::LoadArgs, client, failure::Failure};

/// The keys are taken in turn, one for each connection.
///
/// # Errors
/// Nobody answers at the endpoint.
pub async fn target(endpoint: &str, keys: &[String], args: &LoadArgs) -> Result<Target, Failure> {
    let mut clients = Vec::new();
    for n in 0..args.connections as usize {
        clients.push(client::inference_at(endpoint, &keys[n % keys.len()]).await?);
    }
    let request = GenerateRequest {
        model: "base".to_owned(),
        input: Some(Input::Tokens(TokenIds { ids: vec![1; args.prompt_tokens as usize] })),
        max_tokens: args.messages,
        ..GenerateRequest::default()
    };
    Ok(Arc::new(move |n| {
        let (mut client, request) = (clients[n % clients.len()].clone(), request.clone());
        Box::pin(async move { Times::of(client.generate(request).await?.into_inner()).await })
    }))
}
