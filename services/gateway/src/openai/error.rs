//! The only place where a [`Fault`] becomes an HTTP answer in OpenAI's words: `{"error":{message,type,param,code}}`.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, Uri, header},
};
use domain::{Detail, Fault, Reason, RequestId};
use serde_json::{Value, json};

use super::shape;

/// What a client may wait for by itself; the rest is not worth trying again.
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Tells OpenAI's clients not to try again by themselves.
const SHOULD_RETRY: &str = "x-should-retry";

pub fn respond(fault: &Fault, id: Option<RequestId>) -> Response<Body> {
    let kind = kind(fault);
    let mut response = shape::json(&body(fault, id));
    *response.status_mut() = kind.status;
    let headers = response.headers_mut();
    match fault.retry_hint() {
        Some(after) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(after.as_millis().max(1) as u64));
        }
        None if kind.status == StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        None => {}
    }
    response
}

/// Also what an answer ends with that fails after it has begun.
pub fn body(fault: &Fault, id: Option<RequestId>) -> Value {
    let kind = kind(fault);
    let param = fault.details.iter().find_map(|detail| match detail {
        Detail::Violation { field, .. } => Some(field.as_str()),
        Detail::Resource { kind, .. } if kind == "model" => Some("model"),
        _ => None,
    });
    json!({"error": {
        "message": fault.message,
        "type": kind.name,
        "param": param,
        "code": kind.code,
        "banyan": {"reason": fault.reason.as_str(), "request_id": id.map(|id| id.to_string()), "limits": quotas(fault)},
    }})
}

pub fn unknown_route(method: &Method, uri: &Uri) -> Response<Body> {
    let message = format!("Unknown request URL: {method} {}", uri.path());
    status(StatusCode::NOT_FOUND, &message, "unknown_url")
}

pub fn wrong_method(method: &Method, uri: &Uri) -> Response<Body> {
    let message = format!("Not allowed to {method} on {}", uri.path());
    status(StatusCode::METHOD_NOT_ALLOWED, &message, "method_not_supported")
}

fn status(status: StatusCode, message: &str, code: &str) -> Response<Body> {
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
    let mut response = shape::json(&json!({ "error": error }));
    *response.status_mut() = status;
    response
}

/// Every limit that is in the way.
fn quotas(fault: &Fault) -> Vec<Value> {
    let quota = |detail: &Detail| match detail {
        Detail::Quota { subject, description } => Some(json!({"limit": subject, "description": description})),
        _ => None,
    };
    fault.details.iter().filter_map(quota).collect()
}

struct Kind {
    status: StatusCode,
    name: &'static str,
    code: Option<String>,
}

fn kind(fault: &Fault) -> Kind {
    const INVALID: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    let (status, name, code) = match fault.reason {
        Reason::InvalidRequest => {
            return Kind { status: StatusCode::BAD_REQUEST, name: INVALID, code: violation_code(fault) };
        }
        Reason::RateLimited if is_budget(fault) => {
            (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota")
        }
        Reason::QuotaExceeded => (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota"),
        Reason::RateLimited => (StatusCode::TOO_MANY_REQUESTS, limit_kind(fault), "rate_limit_exceeded"),
        Reason::Unauthenticated => (StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key"),
        Reason::PermissionDenied => (StatusCode::FORBIDDEN, INVALID, "permission_denied"),
        Reason::NotFound => (StatusCode::NOT_FOUND, INVALID, "model_not_found"),
        Reason::ContextLength => (StatusCode::BAD_REQUEST, INVALID, "context_length_exceeded"),
        Reason::AdapterRefused => (StatusCode::BAD_REQUEST, INVALID, "adapter_refused"),
        Reason::AlreadyExists => (StatusCode::CONFLICT, INVALID, "already_exists"),
        Reason::EtagMismatch => (StatusCode::CONFLICT, INVALID, "etag_mismatch"),
        Reason::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, INVALID, "idempotency_mismatch"),
        Reason::FailedPrecondition => (StatusCode::BAD_REQUEST, INVALID, "failed_precondition"),
        Reason::AdapterLoad => (StatusCode::BAD_REQUEST, INVALID, "adapter_load"),
        Reason::BaseMismatch => (StatusCode::BAD_REQUEST, INVALID, "base_mismatch"),
        Reason::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "overloaded"),
        Reason::WorkerUnavailable | Reason::BackendUnavailable | Reason::ShuttingDown => {
            (StatusCode::SERVICE_UNAVAILABLE, SERVER, "service_unavailable")
        }
        Reason::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, SERVER, "deadline_exceeded"),
        // As nginx has it: nobody reads it.
        Reason::Cancelled => {
            (StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), INVALID, "client_closed_request")
        }
        Reason::Unimplemented => (StatusCode::NOT_FOUND, INVALID, "unknown_url"),
        Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
    };
    Kind { status, name, code: Some(code.to_owned()) }
}

/// OpenAI's own codes where the violation has one (`unsupported_parameter`, say).
fn violation_code(fault: &Fault) -> Option<String> {
    fault.details.iter().find_map(|detail| match detail {
        Detail::Violation { reason, .. } if reason == Reason::InvalidRequest.as_str() => {
            Some("invalid_value".to_owned())
        }
        Detail::Violation { reason, .. } => Some(reason.to_ascii_lowercase()),
        _ => None,
    })
}

fn subjects(fault: &Fault) -> impl Iterator<Item = &str> {
    fault.details.iter().filter_map(|detail| match detail {
        Detail::Quota { subject, .. } => Some(subject.as_str()),
        _ => None,
    })
}

fn is_budget(fault: &Fault) -> bool {
    subjects(fault).any(|subject| subject.contains("budget"))
}

/// OpenAI names the kind of limit that was hit first.
fn limit_kind(fault: &Fault) -> &'static str {
    match subjects(fault).next() {
        Some(subject) if subject.contains("tokens") => "tokens",
        _ => "requests",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_reason_has_a_status_that_says_whose_fault_it_is() {
        for reason in Reason::ALL {
            let response = respond(&Fault::new(*reason, "no"), None);
            let ours = matches!(
                reason,
                Reason::QueueFull
                    | Reason::WorkerUnavailable
                    | Reason::BackendUnavailable
                    | Reason::ShuttingDown
                    | Reason::DeadlineExceeded
                    | Reason::Internal
            );
            let status = response.status();
            assert!(status.is_server_error() == ours && (ours || status.is_client_error()), "{reason:?}: {status}");
        }
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back_and_a_budget_that_it_is_no_use() {
        let quota = |subject: &str| {
            Fault::new(Reason::RateLimited, "no")
                .detail(Detail::Quota { subject: subject.to_owned(), description: String::new() })
        };
        let limited = respond(&quota("key.output_tokens_per_minute").retry_after(Duration::from_millis(1200)), None);
        assert_eq!((limited.headers()["retry-after"].as_bytes(), limited.status().as_u16()), (&b"2"[..], 429));
        let body = body(&quota("output_tokens_per_minute"), None);
        assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!("tokens"), &json!("rate_limit_exceeded")));
        let spent = respond(&quota("budget_day"), None);
        assert_eq!(spent.headers()[SHOULD_RETRY], "false");
        assert_eq!(super::body(&quota("budget_day"), None)["error"]["code"], json!("insufficient_quota"));
    }
}
