//! Why something was refused: one closed list of reasons, and what a client needs to know to act on one.
//! `chassis` turns a [`Fault`] into a gRPC status and back, so that it survives every hop.

use std::{borrow::Cow, fmt, time::Duration};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The stable, machine-readable reason of a refusal (`google.rpc.ErrorInfo.reason`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant),+ }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As it goes over the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

reasons! {
    /// A field of the request is wrong; every violation is listed.
    InvalidRequest = "INVALID_REQUEST",
    /// An uploaded adapter is refused; every refusal is listed with its `E_…` code.
    AdapterRefused = "ADAPTER_REFUSED",
    /// No credentials, or ones that are not known, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED",
    /// Known caller, but this is not for its role.
    PermissionDenied = "PERMISSION_DENIED",
    /// Does not exist, or belongs to another tenant: the two cannot be told apart.
    NotFound = "NOT_FOUND",
    AlreadyExists = "ALREADY_EXISTS",
    /// Somebody else changed it since it was read.
    EtagMismatch = "ETAG_MISMATCH",
    /// A `client_request_id` that stands for another request.
    IdempotencyMismatch = "IDEMPOTENCY_MISMATCH",
    /// The state does not allow this now (a version that an alias points at, a tenant that has adapters).
    FailedPrecondition = "FAILED_PRECONDITION",
    /// A rate limit; says which and when to come back.
    RateLimited = "RATE_LIMITED",
    /// A stock is used up (adapters, bytes); waiting does not help.
    QuotaExceeded = "QUOTA_EXCEEDED",
    /// The worker's queue is full.
    QueueFull = "QUEUE_FULL",
    /// Prompt and answer do not fit the context.
    ContextLength = "CONTEXT_LENGTH",
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    Cancelled = "CANCELLED",
    /// An adapter version could not be loaded by the worker.
    AdapterLoad = "ADAPTER_LOAD",
    /// The worker has another base model than the gateway resolved against.
    BaseMismatch = "BASE_MISMATCH",
    /// No worker answers.
    WorkerUnavailable = "WORKER_UNAVAILABLE",
    /// The database or the shared limits do not answer.
    BackendUnavailable = "BACKEND_UNAVAILABLE",
    /// The process is stopping.
    ShuttingDown = "SHUTTING_DOWN",
    Unimplemented = "UNIMPLEMENTED",
    /// A fault of ours. The client gets a request id, the log the rest.
    Internal = "INTERNAL",
}

impl Reason {
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// A refusal: reason, a sentence for a person, details for a program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub reason: Reason,
    pub message: String,
    pub details: Vec<Detail>,
}

/// What a client may act on; one kind per `google.rpc` detail.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// One wrong field (`BadRequest.FieldViolation`); `reason` may carry an `E_…` code.
    Violation { field: String, reason: String, description: String },
    /// A limit that was hit (`QuotaFailure.Violation`).
    Quota { subject: String, description: String },
    /// When trying again makes sense (`RetryInfo`).
    RetryAfter(Duration),
    /// What was looked for (`ResourceInfo`).
    Resource { kind: Cow<'static, str>, name: String },
    /// What must be changed first (`PreconditionFailure.Violation`).
    Precondition { kind: String, subject: String, description: String },
}

impl Fault {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: Vec::new() }
    }

    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        self.detail(Detail::RetryAfter(after))
    }

    /// One wrong field.
    pub fn invalid(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self::invalid_all(vec![(field.into(), description.to_string())])
    }

    /// Every wrong field at once; `violations` must not be empty.
    pub fn invalid_all(violations: Vec<(String, String)>) -> Self {
        let sentences: Vec<_> = violations.iter().map(|(field, why)| format!("{field}: {why}")).collect();
        let details = violations
            .into_iter()
            .map(|(field, description)| Detail::Violation {
                field,
                reason: Reason::InvalidRequest.as_str().to_owned(),
                description,
            })
            .collect();
        Self { reason: Reason::InvalidRequest, message: sentences.join("; "), details }
    }

    /// Does not exist, or is not the caller's: always the same words.
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self::new(Reason::NotFound, format!("{kind} `{name}` was not found"))
            .detail(Detail::Resource { kind: kind.into(), name })
    }

    /// A fault of ours; the cause is logged where this is made and never sent.
    pub fn internal() -> Self {
        Self::new(Reason::Internal, "internal error; quote the request id when you report it")
    }

    /// When trying again makes sense, if the fault says so.
    pub fn retry_hint(&self) -> Option<Duration> {
        self.details.iter().find_map(|detail| match detail {
            Detail::RetryAfter(after) => Some(*after),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_wire_form() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
    }
}
