//! What a client is told about an error of the store. Causes go to the log, here and once.

use std::time::Duration;

use domain::{Detail, Fault, Reason};
use store::StoreError;

const RETRY_AFTER: Duration = Duration::from_secs(1);

pub trait StoreFault {
    /// `name` is what the client called the thing that the call is about.
    fn fault(self, name: impl ToString) -> Fault;
}

impl StoreFault for StoreError {
    fn fault(self, name: impl ToString) -> Fault {
        let name = name.to_string();
        match self {
            Self::NotFound { what, .. } => Fault::not_found(what.as_str(), name),
            Self::AlreadyExists { what, .. } => {
                Fault::new(Reason::AlreadyExists, format!("{what} `{name}` exists already"))
                    .detail(Detail::Resource { kind: what.as_str().into(), name })
            }
            Self::Conflict { what, .. } => {
                Fault::new(Reason::EtagMismatch, format!("{what} `{name}` was changed meanwhile: read it again"))
                    .detail(Detail::Resource { kind: what.as_str().into(), name })
            }
            Self::FailedPrecondition(precondition) => Fault::new(Reason::FailedPrecondition, precondition.to_string())
                .detail(Detail::Precondition {
                    kind: format!("{precondition:?}"),
                    subject: name,
                    description: precondition.to_string(),
                }),
            Self::QuotaExceeded { stock, max, used, wanted } => {
                let description = format!("{stock}: {used} of {max} used, {wanted} more wanted");
                Fault::new(Reason::QuotaExceeded, format!("the tenant's quota is used up: {description}"))
                    .detail(Detail::Quota { subject: stock.to_string(), description })
            }
            Self::InvalidValue { field, rule } => Fault::invalid(field, format!("must {rule}")),
            Self::InvalidPageToken => Fault::invalid("page_token", "is not one that this list gave out"),
            Self::Unavailable(cause) => {
                tracing::error!(%cause, "the database does not answer");
                Fault::new(Reason::BackendUnavailable, "the database does not answer").retry_after(RETRY_AFTER)
            }
            error @ (Self::SchemaBehind { .. } | Self::Migration(_) | Self::Internal(_)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, %cause, "the database failed");
                Fault::internal()
            }
        }
    }
}
