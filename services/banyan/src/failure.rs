//! How a verb fails: what is printed and with which exit code the process ends. The exit codes are part of the
//! command's contract (`banyan --help` lists them).

use std::{fmt, io, process::ExitCode};

use chassis::status::{fault_of, request_id_of};
use domain::{Detail, Fault, Reason};
use serde_json::{Value, json};
use tonic::Status;

pub type Outcome = Result<(), Failure>;

#[derive(Debug)]
pub enum Failure {
    /// What was typed cannot be done.
    Usage(String),
    /// Nothing to show to the server.
    NoCredentials(String),
    /// Nobody answers there.
    Unreachable { address: String, cause: String },
    /// A server refused.
    Refused { fault: Box<Fault>, request_id: Option<String> },
    /// All reasons are printed already (`inspect`).
    Printed,
    /// Anything else that went wrong on this side.
    Failed(String),
    /// The reader of our standard output left: not a fault.
    OutputClosed,
}

impl Failure {
    pub const REFUSED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const UNREACHABLE: u8 = 3;
    pub const UNAUTHENTICATED: u8 = 4;
    pub const TRY_LATER: u8 = 5;

    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => Self::USAGE,
            Self::NoCredentials(_) => Self::UNAUTHENTICATED,
            Self::Unreachable { .. } => Self::UNREACHABLE,
            Self::Refused { fault, .. } => match fault.reason {
                Reason::Unauthenticated | Reason::PermissionDenied => Self::UNAUTHENTICATED,
                Reason::RateLimited
                | Reason::QueueFull
                | Reason::WorkerUnavailable
                | Reason::BackendUnavailable
                | Reason::ShuttingDown => Self::TRY_LATER,
                _ => Self::REFUSED,
            },
            Self::Printed | Self::Failed(_) => Self::REFUSED,
            Self::OutputClosed => 0,
        }
    }

    /// Prints the failure on standard error, unless that is done already, and gives the exit code.
    pub fn report(&self, as_json: bool) -> ExitCode {
        if !matches!(self, Self::Printed | Self::OutputClosed) {
            if as_json {
                eprintln!("{}", self.to_json());
            } else {
                eprintln!("error: {self}");
            }
        }
        ExitCode::from(self.code())
    }

    /// For verbs that go on after a failure.
    pub fn to_json(&self) -> Value {
        let mut error = json!({ "message": self.to_string(), "exit_code": self.code() });
        if let Self::Refused { fault, request_id } = self {
            error["message"] = fault.message.as_str().into();
            error["reason"] = fault.reason.as_str().into();
            error["violations"] = fault.details.iter().filter_map(violation).collect();
            error["retry_after_ms"] = fault.retry_hint().map(|after| after.as_millis() as u64).into();
            error["request_id"] = request_id.as_deref().into();
        }
        json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::NoCredentials(message) | Self::Failed(message) => f.write_str(message),
            Self::Unreachable { address, cause } => write!(
                f,
                "cannot reach {address}: {cause}\n  start a server with `banyan up`, or say where one is: \
                 --endpoint URL (BANYAN_ENDPOINT), --admin-endpoint URL (BANYAN_ADMIN_ENDPOINT)"
            ),
            Self::Refused { fault, request_id } => write_fault(f, fault, request_id.as_deref()),
            Self::Printed | Self::OutputClosed => Ok(()),
        }
    }
}

fn write_fault(f: &mut fmt::Formatter<'_>, fault: &Fault, request_id: Option<&str>) -> fmt::Result {
    write!(f, "{} ({})", fault.message, fault.reason.as_str())?;
    for detail in &fault.details {
        match detail {
            // A message that says it already is not repeated.
            Detail::Violation { description, .. }
            | Detail::Quota { description, .. }
            | Detail::Precondition { description, .. }
                if fault.message.contains(description.as_str()) => {}
            Detail::Violation { field, reason, description } => write!(f, "\n  - {reason} {field}: {description}")?,
            Detail::Quota { subject, description } => write!(f, "\n  - {subject}: {description}")?,
            Detail::Precondition { kind, subject, description } => {
                write!(f, "\n  - {kind} {subject}: {description}")?;
            }
            Detail::RetryAfter(after) => write!(f, "\n  try again in {:.1} s", after.as_secs_f64())?,
            Detail::Resource { .. } => {}
        }
    }
    if fault.reason == Reason::Unauthenticated {
        f.write_str("\n  give a key with --key (BANYAN_KEY), or an operator token with --operator-token")?;
    }
    match request_id {
        Some(id) => write!(f, "\n  request id: {id}"),
        None => Ok(()),
    }
}

fn violation(detail: &Detail) -> Option<Value> {
    match detail {
        Detail::Violation { field, reason, description } => {
            Some(json!({ "code": reason, "field": field, "message": description }))
        }
        Detail::Quota { subject, description } => {
            Some(json!({ "code": "QUOTA", "field": subject, "message": description }))
        }
        Detail::Precondition { kind, subject, description } => {
            Some(json!({ "code": kind, "field": subject, "message": description }))
        }
        Detail::RetryAfter(_) | Detail::Resource { .. } => None,
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused { fault: Box::new(fault_of(&status)), request_id: request_id_of(&status) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    /// Keeps a failure that travelled inside; else the whole chain of causes.
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(fault: Fault) -> Failure {
        Failure::Refused { fault: Box::new(fault), request_id: Some("r-9".into()) }
    }

    #[test]
    fn every_violation_the_hint_and_the_request_id_are_printed() {
        let fault = Fault::invalid_all(vec![("top_p".into(), "too big".into()), ("seed".into(), "odd".into())])
            .retry_after(Duration::from_millis(1500));
        let short = Fault { message: "two faults".into(), ..fault.clone() };
        for text in [refused(fault.clone()).to_string(), refused(short).to_string()] {
            for part in ["top_p: too big", "seed: odd", "1.5 s", "r-9"] {
                assert_eq!(text.matches(part).count(), 1, "{text}");
            }
        }
        let json = refused(fault).to_json();
        assert_eq!(json["error"]["violations"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["error"]["retry_after_ms"], 1500);
    }

    #[test]
    fn exit_codes_tell_the_kinds_of_failure_apart() {
        let of = |reason| refused(Fault::new(reason, "no")).code();
        assert_eq!(of(Reason::AdapterRefused), 1);
        assert_eq!(of(Reason::Unauthenticated), 4);
        assert_eq!(of(Reason::QueueFull), 5);
        assert_eq!(Failure::Unreachable { address: "a".into(), cause: "b".into() }.code(), 3);
        assert_eq!(Failure::Usage("x".into()).code(), 2);
    }
}
