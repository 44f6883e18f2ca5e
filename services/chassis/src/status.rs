//! The only place where a gRPC status is built or taken apart: [`Fault`] ⇄ [`Status`] with `google.rpc` details
//! (<https://google.aip.dev/193>). Every status carries ErrorInfo and RequestInfo.

use std::{collections::HashMap, time::Duration};

use domain::{Detail, Fault, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of everything that Banyan refuses.
pub const ERROR_DOMAIN: &str = "banyan";

/// A repeated wait hint never asks for less than this, so that nobody spins.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(1);

pub fn status_of(fault: &Fault, request_id: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(fault.reason.as_str(), ERROR_DOMAIN, HashMap::new());
    details.set_request_info(request_id, "");
    let (mut fields, mut quotas, mut preconditions) = (Vec::new(), Vec::new(), Vec::new());
    for detail in &fault.details {
        match detail {
            Detail::Violation { field, reason, description } => fields.push(FieldViolation {
                field: field.clone(),
                description: description.clone(),
                reason: reason.clone(),
                localized_message: None,
            }),
            Detail::Quota { subject, description } => quotas.push(QuotaViolation::new(subject, description)),
            Detail::RetryAfter(after) => {
                details.set_retry_info(Some((*after).max(RETRY_AFTER_MIN)));
            }
            Detail::Resource { kind, name } => {
                details.set_resource_info(kind.as_ref(), name, "", "");
            }
            Detail::Precondition { kind, subject, description } => {
                preconditions.push(PreconditionViolation::new(kind, subject, description));
            }
        }
    }
    if !fields.is_empty() {
        details.set_bad_request(fields);
    }
    if !quotas.is_empty() {
        details.set_quota_failure(quotas);
    }
    if !preconditions.is_empty() {
        details.set_precondition_failure(preconditions);
    }
    Status::with_error_details(code_of(fault.reason), fault.message.clone(), details)
}

/// What a status says, ours or (on a broken connection, say) the transport's.
pub fn fault_of(status: &Status) -> Fault {
    let details = status.get_error_details();
    let reason = details
        .error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)
        .and_then(|info| Reason::parse(&info.reason))
        .unwrap_or_else(|| reason_of(status.code()));
    let mut fault = Fault::new(reason, status.message());
    for violation in details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default() {
        fault = fault.detail(Detail::Violation {
            field: violation.field.clone(),
            reason: violation.reason.clone(),
            description: violation.description.clone(),
        });
    }
    for violation in details.quota_failure().map(|quota| quota.violations.as_slice()).unwrap_or_default() {
        fault = fault
            .detail(Detail::Quota { subject: violation.subject.clone(), description: violation.description.clone() });
    }
    for violation in details.precondition_failure().map(|failure| failure.violations.as_slice()).unwrap_or_default() {
        fault = fault.detail(Detail::Precondition {
            kind: violation.r#type.clone(),
            subject: violation.subject.clone(),
            description: violation.description.clone(),
        });
    }
    if let Some(resource) = details.resource_info() {
        fault = fault.detail(Detail::Resource {
            kind: resource.resource_type.clone().into(),
            name: resource.resource_name.clone(),
        });
    }
    if let Some(after) = details.retry_info().and_then(|retry| retry.retry_delay) {
        fault = fault.retry_after(after);
    }
    fault
}

/// The request id that a status carries, if it is one of ours.
pub fn request_id_of(status: &Status) -> Option<String> {
    status.get_details_request_info().map(|info| info.request_id).filter(|id| !id.is_empty())
}

const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest | Reason::AdapterRefused | Reason::ContextLength => Code::InvalidArgument,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::NotFound => Code::NotFound,
        Reason::AlreadyExists | Reason::IdempotencyMismatch => Code::AlreadyExists,
        Reason::EtagMismatch => Code::Aborted,
        Reason::FailedPrecondition | Reason::AdapterLoad | Reason::BaseMismatch => Code::FailedPrecondition,
        Reason::RateLimited | Reason::QuotaExceeded | Reason::QueueFull => Code::ResourceExhausted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::Cancelled => Code::Cancelled,
        Reason::WorkerUnavailable | Reason::BackendUnavailable | Reason::ShuttingDown => Code::Unavailable,
        Reason::Unimplemented => Code::Unimplemented,
        Reason::Internal => Code::Internal,
    }
}

/// The nearest reason for a status that nobody of ours made.
const fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Reason::InvalidRequest,
        Code::Unauthenticated => Reason::Unauthenticated,
        Code::PermissionDenied => Reason::PermissionDenied,
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::FailedPrecondition => Reason::FailedPrecondition,
        Code::ResourceExhausted => Reason::QuotaExceeded,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Cancelled => Reason::Cancelled,
        Code::Unavailable | Code::Unknown => Reason::WorkerUnavailable,
        Code::Unimplemented => Reason::Unimplemented,
        Code::Ok | Code::Aborted | Code::DataLoss | Code::Internal => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(reason: Reason) -> Fault {
        Fault::new(reason, "no")
            .detail(Detail::Violation { field: "a.b".into(), reason: "E_SHAPE".into(), description: "wrong".into() })
            .detail(Detail::Violation { field: "c".into(), reason: "E_RANK".into(), description: "too".into() })
            .detail(Detail::Quota { subject: "tenants/acme".into(), description: "used up".into() })
            .detail(Detail::Precondition { kind: "ALIAS".into(), subject: "live".into(), description: "move".into() })
            .detail(Detail::Resource { kind: "adapter".into(), name: "acme/x".into() })
            .retry_after(Duration::from_millis(1500))
    }

    #[test]
    fn every_fault_survives_the_wire() {
        for reason in Reason::ALL {
            let fault = full(*reason);
            let status = status_of(&fault, "r-1");
            assert_eq!(fault_of(&status), fault);
            assert_eq!(request_id_of(&status).as_deref(), Some("r-1"));
            assert_eq!(status.get_error_details().error_info().map(|info| info.domain.as_str()), Some(ERROR_DOMAIN));
        }
    }

    #[test]
    fn a_foreign_status_gets_the_nearest_reason() {
        assert_eq!(fault_of(&Status::unavailable("gone")).reason, Reason::WorkerUnavailable);
        assert_eq!(fault_of(&Status::cancelled("x")).reason, Reason::Cancelled);
    }
}
