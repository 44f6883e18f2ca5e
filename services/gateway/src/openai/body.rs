//! Reads a request's body: bounded in size and in time, and a JSON object.

use axum::body::Body;
use domain::{Fault, Reason};
use serde_json::{Map, Value};

use crate::config::{GatewayConfig, ms};

pub async fn read(body: Body, config: &GatewayConfig) -> Result<Map<String, Value>, Fault> {
    let (bytes_max, wait) = (config.calls.message_bytes_max, ms(config.http.body_read_ms));
    let bytes = match tokio::time::timeout(wait, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a body was not read");
            return Err(Fault::invalid("body", format!("must come whole, with at most {bytes_max} bytes")));
        }
        Err(_) => {
            let words = format!("the request's body did not come within {} ms", wait.as_millis());
            return Err(Fault::new(Reason::DeadlineExceeded, words));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| Fault::invalid("body", format!("must be a JSON object: {error}")))
}
